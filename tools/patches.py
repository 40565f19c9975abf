"""Training pairs for super-resolution: aligned patches of pictures and their bicubic reductions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tools.bicubic import imresize
from tools.metrics import modcrop

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"}


class PatchSampler:
    """Draws pairs of aligned patches, flipped and rotated at random.

    The probability of a patch is proportional to the error of bicubic interpolation on it.

    Args:
        folder: folder of pictures; those smaller than a patch are not used.
        scale: factor of the reduction.
        patch: side of a low-resolution patch in pixels.
        rng: source of random numbers.
    """

    def __init__(self, folder: Path, scale: int, patch: int, rng: np.random.Generator) -> None:
        self.scale, self.patch, self.rng = scale, patch, rng
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self.names: list[str] = []
        errors: list[float] = []
        self.corners: list[tuple[int, int, int]] = []
        for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES):
            high = modcrop(np.asarray(Image.open(path).convert("RGB")), scale)
            low = imresize(high, 1 / scale)
            error = np.abs(imresize(low, scale).astype(np.float64) - high).mean(2)
            summed = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
            side = patch * scale
            for y in range(0, low.shape[0] - patch + 1, patch // 4):
                for x in range(0, low.shape[1] - patch + 1, patch // 4):
                    top, left = y * scale, x * scale
                    total = summed[top + side, left + side] + summed[top, left]
                    errors.append(total - summed[top + side, left] - summed[top, left + side])
                    self.corners.append((len(self.pairs), y, x))
            self.pairs.append((low, high))
            self.names.append(path.name)
        if not self.corners:
            raise ValueError(f"{folder} holds no picture of at least {patch * scale} pixels a side")
        weights = np.maximum(errors, 0.0)  # rounding in the summed-area table gives negative ones
        self.probabilities = weights / weights.sum()

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Low (B, 3, patch, patch) and high (B, 3, patch * scale, patch * scale) in [0, 1]."""
        lows, highs = [], []
        for choice in self.rng.choice(len(self.corners), size, p=self.probabilities):
            index, y, x = self.corners[choice]
            low, high = self.pairs[index]
            y = min(y + int(self.rng.integers(self.patch // 4)), low.shape[0] - self.patch)
            x = min(x + int(self.rng.integers(self.patch // 4)), low.shape[1] - self.patch)
            turns, flip = int(self.rng.integers(4)), bool(self.rng.integers(2))
            for picture, factor, patches in ((low, 1, lows), (high, self.scale, highs)):
                side = self.patch * factor
                part = picture[y * factor : y * factor + side, x * factor : x * factor + side]
                part = np.rot90(part, turns)
                patches.append((part[:, ::-1] if flip else part).transpose(2, 0, 1))
        return tuple(torch.from_numpy(np.stack(p).astype(np.float32) / 255) for p in (lows, highs))  # type: ignore[return-value]
