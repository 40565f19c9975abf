"""Training pairs for super-resolution: aligned patches of pictures and their bicubic reductions."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
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
            low = imresize(high, 1 / scale) if scale > 1 else high
            # Without enlargement there is no error of it; detail is what a reduction by 2 loses.
            known = imresize(low, scale) if scale > 1 else imresize(imresize(high, 0.5), 2)
            known = known[: high.shape[0], : high.shape[1]]
            error = np.abs(known.astype(np.float64) - high).mean(2)
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

    def draw(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Low (patch, patch, 3) and high (patch * scale, patch * scale, 3)."""
        choice = self.rng.choice(len(self.corners), p=self.probabilities)
        index, y, x = self.corners[choice]
        low, high = self.pairs[index]
        y = min(y + int(self.rng.integers(self.patch // 4)), low.shape[0] - self.patch)
        x = min(x + int(self.rng.integers(self.patch // 4)), low.shape[1] - self.patch)
        parts = (
            picture[y * k : (y + self.patch) * k, x * k : (x + self.patch) * k]
            for picture, k in ((low, 1), (high, self.scale))
        )
        return turned(*parts, self.rng)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Low (B, 3, patch, patch) and high (B, 3, patch * scale, patch * scale) in [0, 1]."""
        return stack([self.draw() for _ in range(size)])


class Source(Protocol):
    """Something that draws a pair of patches, low and high, (side, side, 3) of 8 bit."""

    def draw(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]: ...


class Mixture:
    """Draws every patch from one of several sources, by their shares, which sum to 1."""

    def __init__(self, sources: list[tuple[float, Source]], rng: np.random.Generator) -> None:
        self.shares = [share for share, _ in sources]
        self.sources = [source for _, source in sources]
        self.rng = rng

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """As `PatchSampler.batch`."""
        chosen = self.rng.choice(len(self.sources), size, p=self.shares)
        return stack([self.sources[index].draw() for index in chosen])


def turned(
    low: NDArray[np.uint8], high: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Both patches, turned and flipped alike at random."""
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    low, high = np.rot90(low, turns), np.rot90(high, turns)
    return (low[:, ::-1], high[:, ::-1]) if flip else (low, high)


def stack(pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> tuple[Tensor, Tensor]:
    """Pairs of (H, W, 3) as two tensors (B, 3, H, W) in [0, 1]."""
    low, high = (
        torch.from_numpy(np.stack(side).astype(np.float32) / 255).permute(0, 3, 1, 2).contiguous()
        for side in zip(*pairs)
    )
    return low, high
