"""Signs that a picture has been through compression or a noisy sensor: which kind of model it needs.

Models trained on clean reductions enlarge blocks and noise with everything else; models for real
pictures remove them, and lose a little detail where there are none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 8
"""Pixels of a side of JPEG's, WebP's and many videos' blocks."""

LEAST_QUALITY = 90
"""JPEGs of at least this quality count as clean, if nothing else speaks against it."""
MOST_BLOCKINESS = 1.13
ENOUGH = 256
"""Pixels of the shorter side from which on it is no chance where steps are larger."""
LARGEST = 1024
"""Pixels of a side of the middle that is looked at."""


@dataclass(frozen=True)
class Wear:
    """What was measured.

    Attributes:
        quality: of the JPEG file, None for others.
        blockiness: steps at the borders of blocks against steps elsewhere, in the direction that
            shows fewer: what stands in one alone is no block. 1 for none.
    """

    quality: int | None
    blockiness: float

    @property
    def signs(self) -> list[str]:
        """What speaks for a model for real pictures; empty if nothing does."""
        found = []
        if self.quality is not None and self.quality < LEAST_QUALITY:
            found.append(f"it is a JPEG of quality {self.quality}")
        if self.blockiness > MOST_BLOCKINESS:
            found.append(f"it shows blocks of compression ({self.blockiness:.2f})")
        return found

    def __str__(self) -> str:
        if self.signs:
            return " and ".join(self.signs)
        measure = f"{self.blockiness:.2f}; they count from {MOST_BLOCKINESS} on"
        return f"no traces of JPEG's blocks are found ({measure})"


def wear_of(pixels: NDArray[np.floating], quality: int | None = None) -> Wear:
    """Measure a picture (H, W, C) in [0, 1]; ``quality`` is that of its JPEG file."""
    grey = _middle(pixels[..., :3].mean(-1).astype(np.float32) * 255)
    return Wear(quality, min(blockiness(grey), blockiness(grey.T)))


def blockiness(grey: NDArray[np.float32]) -> float:
    """Steps between columns at the borders of blocks, wherever they begin, over those elsewhere.

    A step counts as far as it is larger than its neighbours, so that detail says nothing. Elsewhere
    is the third largest of the eight places in a block: one place stands out by a block of 8, two
    by blocks of 4 (WebP), and all or every second one where a picture was enlarged. Enlarging 4
    times by bicubic interpolation looks like WebP in a third of pictures. In small ones chance makes
    one place larger, so it counts less there.
    """
    steps = np.abs(np.diff(grey, axis=1))
    if steps.shape[1] < 4 * BLOCK or not steps.any():
        return 1.0
    beside = (steps[:, :-2] + steps[:, 2:]) / 2
    excess = np.maximum(steps[:, 1:-1] - beside, 0).mean(0)
    columns = len(excess) // BLOCK * BLOCK
    by_place = excess[:columns].reshape(-1, BLOCK).mean(0)
    others = np.sort(by_place)[-3]
    stands_out = (by_place.max() + 0.05) / (others + 0.05) - 1
    return float(1 + stands_out * min(1, min(grey.shape) / ENOUGH))


def _middle(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    top, left = (max(0, side - LARGEST) // 2 for side in grey.shape)
    return grey[top : top + LARGEST, left : left + LARGEST]
