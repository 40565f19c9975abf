"""Spoilt patches beside what they were: cut and degraded once, kept on disk, drawn many times.

Degrading costs as much as a step of training, so that a training draws from a few thousand patches
that `SpoiltPatches` prepares before the first step, larger than those it gives away: their cut
moves, so that blocks of JPEG begin anywhere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.degrade import Degradation
from tools.patches import PatchSampler, turned

MARGIN = 8
"""Pixels of the spoilt patch that are cut off on each side: they would show where it was cut out."""
ROOM = 16
"""Pixels by which a kept patch is larger than a drawn one."""


class SpoiltPatches:
    """Draws pairs of patches (side, side, 3) and (side * scale, side * scale, 3), low and high.

    Args:
        clean: its pictures are cut; half of the cuts prefer detail as it does, half fall anywhere.
        count: how many patches are prepared.
        rng: source of random numbers, for drawing.
        seed: of what is prepared.
        cache: the .npz file that keeps the patches; read if it is there, else written.
    """

    def __init__(
        self, clean: PatchSampler, count: int, rng: np.random.Generator, seed: int, cache: Path
    ) -> None:
        self.clean, self.rng = clean, rng
        self.side = clean.patch + ROOM
        described = [clean.scale, clean.patch, count, seed]
        if not cache.exists():
            lows, places = self._prepare(count, np.random.default_rng(seed))
            cache.parent.mkdir(parents=True, exist_ok=True)
            partial = cache.with_suffix(".part.npz")
            np.savez(partial, lows=lows, places=places, described=described)
            partial.replace(cache)
        with np.load(cache) as file:
            if file["described"].tolist() != described:
                raise ValueError(
                    f"{cache} holds patches of another training (scale, side, count and seed "
                    f"{file['described'].tolist()}, not {described}); name another file or delete it"
                )
            self.lows, self.places = file["lows"], file["places"]

    def _prepare(
        self, count: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Spoilt patches (count, side, side, 3), and picture, top and left in high pixels."""
        degrade, scale = Degradation(self.clean.scale, rng), self.clean.scale
        whole = (self.side + 2 * MARGIN) * scale
        lows, places = [], []
        while len(lows) < count:
            index = int(rng.integers(len(self.clean.pairs)))
            y, x = rng.integers(0, 1 << 30, 2)
            if rng.random() < 0.5:
                choice = rng.choice(len(self.clean.corners), p=self.clean.probabilities)
                index, y, x = self.clean.corners[choice]
            high = self.clean.pairs[index][1]
            if min(high.shape[:2]) < whole:
                continue
            top, left = (
                int(at * scale) % (side - whole + 1) for at, side in zip((y, x), high.shape[:2])
            )
            low = degrade(high[top : top + whole, left : left + whole])
            lows.append(low[MARGIN:-MARGIN, MARGIN:-MARGIN])
            places.append((index, top + MARGIN * scale, left + MARGIN * scale))
        return np.stack(lows), np.array(places)

    def draw(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """A pair, low and high, turned and flipped at random."""
        choice = int(self.rng.integers(len(self.lows)))
        index, top, left = self.places[choice]
        y, x = self.rng.integers(0, ROOM + 1, 2)
        side, scale = self.clean.patch, self.clean.scale
        low = self.lows[choice][y : y + side, x : x + side]
        top, left = top + y * scale, left + x * scale
        high = self.clean.pairs[index][1][top : top + side * scale, left : left + side * scale]
        return turned(low, high, self.rng)
