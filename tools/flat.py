"""Flat, shaded and framed patches: what patches of detail never show a network.

Networks that pad with zeros darken the border of a flat picture unless they have met some: patches
drawn by their detail hold none. White, black and other flat colours, ramps, and frames of one
colour around another, whose clean reductions are known.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tools.degrade import Degradation, reduced, to_picture

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
WIDEST_FRAME = 12
"""Low-resolution pixels."""


class FlatPatches:
    """Draws pairs of patches (side, side, 3) and (side * scale, side * scale, 3).

    Args:
        scale: factor of the reduction; 1 leaves the size.
        side: of a low-resolution patch in pixels.
        rng: source of random numbers.
        degradation: spoils half of the low patches with noise and compression; None for none.
    """

    def __init__(
        self, scale: int, side: int, rng: np.random.Generator, degradation: Degradation | None
    ) -> None:
        self.scale, self.side, self.rng, self.degradation = scale, side, rng, degradation

    def draw(self) -> Pair:
        """A pair, low and high."""
        high = self._picture(self.side * self.scale)
        low = reduced(high, self.scale)
        if self.degradation is not None and self.rng.random() < 0.5:
            low = self.degradation.finish(to_picture(low))
        return low, high

    def _picture(self, side: int) -> NDArray[np.uint8]:
        picture = np.empty((side, side, 3))
        picture[:] = self._colour()
        kind = self.rng.random()
        if kind < 0.25:
            ramp = np.linspace(0, 1, side)[:, None, None]
            picture += (self._colour() - picture) * ramp
        elif kind < 0.65:
            widths = self.rng.integers(0, WIDEST_FRAME * self.scale + 1, 4)
            top, bottom, left, right = widths * (self.rng.random(4) < 0.7)
            picture[top : side - bottom, left : side - right] = self._colour()
        return np.rot90(np.floor(picture + 0.5), int(self.rng.integers(4))).astype(np.uint8)

    def _colour(self) -> NDArray[np.float64]:
        kind = self.rng.random()
        if kind < 0.3:
            return np.full(3, 255.0)
        if kind < 0.4:
            return np.zeros(3)
        if kind < 0.65:
            return np.full(3, float(self.rng.integers(256)))
        if kind < 0.85:  # saturated colours keep the most of a dark border
            return 255.0 * self.rng.integers(0, 2, 3)
        return self.rng.integers(0, 256, 3).astype(np.float64)
