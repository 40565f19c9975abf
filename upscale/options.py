"""The options of `upscale_image`, checked in one place before any work, as they are declared."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..common.upscaling import UPSCALING
from .target import Target

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How pictures are upscaled, whatever they are. For the meaning see `upscale_image`.

    Raises:
        ValueError: a value is none of those allowed.
    """

    mode: str
    tile: int | None
    overlap: int | None
    batch: int | None
    precision: str
    alpha: str
    seamless: str
    border: str
    target: Target | None = None
    ensemble: int = 1
    colour_fix: str = "none"
    cuts: str = "auto"
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        for option in UPSCALING:
            if hasattr(self, option.name):  # a mask is as large as its picture, and checked there
                option.check(getattr(self, option.name))
        if self.dtype not in DTYPES:
            known = ", ".join(map(str, DTYPES))
            raise ValueError(f"dtype {self.dtype!r} is not known; use one of {known}")
        if self.tile is not None and self.overlap is not None and self.overlap >= self.tile:
            raise ValueError(
                f"overlap {self.overlap} leaves nothing of a tile of {self.tile}; make it smaller than the tile"
            )
