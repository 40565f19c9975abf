"""Upscales by the model only where a mask is, and resamples elsewhere, with a soft transition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .resize import enlarged_bands
from .seamless import Margins

GROWTH = 10
"""Input pixels by which the mask is grown before its border is softened."""

SOFTENING = 8
"""Radius in input pixels of the average that softens the border. It is two less than `GROWTH`, so
that the border of the mask keeps weight 1."""

LEAST = 1 / 512
"""Values of the mask below this, half a level of 8 bit, count as 0."""


@dataclass(frozen=True)
class Region:
    """Where one frame is upscaled by the model.

    Attributes:
        weights: (H, W) float32 in [0, 1]: the model's share. At least the mask; falls to 0 outside
            of it.
        touched: (H, W) bool: what the model must compute; False further than a pixel from every
            weight above 0.
    """

    weights: Tensor
    touched: Tensor

    @property
    def empty(self) -> bool:
        """Whether the model has nothing to compute."""
        return not bool(self.touched.any())


class Masks:
    """The regions of a batch's frames.

    Args:
        mask: (B or 1, H, W), or (H, W), in [0, 1], of any size: it is resampled to the image's.
        frames, height, width: number and size of the image's frames.
        margins: by how much the frames are continued at seams.

    Raises:
        ValueError: the mask has another shape or type, or holds NaN or infinite values.
    """

    def __init__(
        self, mask: Tensor, frames: int, height: int, width: int, margins: Margins
    ) -> None:
        if not isinstance(mask, Tensor):
            raise ValueError(
                f"the mask is a {type(mask).__name__}; a torch.Tensor (B, H, W) was expected"
            )
        if mask.is_meta or mask.is_nested or mask.layout is not torch.strided:
            kind = "on the device meta" if mask.is_meta else "sparse or nested"
            raise ValueError(f"the mask is {kind} and holds no pixels; give a plain tensor")
        shape = tuple(mask.shape)
        mask = mask[None] if mask.ndim == 2 else mask
        if mask.ndim != 3 or 0 in shape or not mask.is_floating_point():
            raise ValueError(
                f"the mask is {mask.dtype} of the shape {shape}; floating point (B, H, W) in [0, 1] was expected"
            )
        if len(mask) not in (1, frames):
            raise ValueError(
                f"there are {len(mask)} masks for {frames} pictures; give one for all, or one for each"
            )
        if not bool(mask.isfinite().all()):
            raise ValueError(
                "the mask holds NaN or infinite values; look at the node or program that made it"
            )
        self.mask = mask
        self.size = height, width
        self.margins = margins
        self._last: tuple[int, Region] | None = None

    def same(self, index: int, other: int) -> bool:
        """Whether two frames have equal masks."""
        return len(self.mask) == 1 or torch.equal(self.mask[index], self.mask[other])

    @property
    def empty(self) -> bool:
        """Whether the mask is 0 everywhere, in every frame."""
        return bool((self.mask < LEAST).all())

    @property
    def full(self) -> bool:
        """Whether the mask is 1 everywhere, in every frame, so that it can be ignored."""
        return bool((self.mask >= 1).all())

    def region(self, index: int) -> Region:
        """The region of one frame, including its margins."""
        index = index if len(self.mask) > 1 else 0
        if self._last is None or self._last[0] != index:
            mask = self.mask[index].to("cpu", torch.float32)
            if tuple(mask.shape) != self.size:
                mask = F.interpolate(mask[None, None], self.size, mode="bilinear", antialias=True)[
                    0, 0
                ]
            self._last = index, feathered(self.margins.add(mask.clamp(0, 1)))
        return self._last[1]


def feathered(mask: Tensor) -> Region:
    """The region of a mask (H, W): 1 up to 2 pixels outside of it, a linear ramp, 0 from 19 on."""
    grown = _neighbours(F.max_pool2d, torch.where(mask >= LEAST, mask, 0)[None, None], GROWTH)
    weights = _neighbours(partial(F.avg_pool2d, count_include_pad=False), grown, SOFTENING)
    touched = _neighbours(F.max_pool2d, weights, 1) > 0  # enlarging spreads the weights by a pixel
    return Region(weights[0, 0].clamp(0, 1), touched[0, 0])


def _neighbours(pool: Callable[..., Tensor], planes: Tensor, radius: int) -> Tensor:
    """Pool over ``radius`` pixels to either side, along one axis after the other."""
    side = 2 * radius + 1
    return pool(pool(planes, (side, 1), 1, (radius, 0)), (1, side), 1, (0, radius))


def blend_(result: Tensor, frame: Tensor, weights: Tensor, rows: int = 64) -> None:
    """Blend ``result`` (H * scale, W * scale, C) in place with the resampled ``frame`` (H, W, C).

    ``weights`` (H, W): the share of ``result``; where it is 0, ``result`` may hold anything finite.
    Works in bands of ``rows`` input rows.
    """
    scale = result.shape[0] // frame.shape[0]
    planes = torch.cat([weights[None], frame.permute(2, 0, 1)])
    for band, enlarged in enlarged_bands(planes, scale, rows):
        share, plain = enlarged[..., :1].clamp(0, 1), enlarged[..., 1:].clamp(0, 1)
        torch.lerp(plain, result[band], share, out=result[band])
