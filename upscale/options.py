"""The options of `upscale_image`, checked in one place before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .colour import COLOUR_FIXES
from .ensemble import ENSEMBLES
from .precision import PRECISIONS
from .seamless import SEAMLESS
from .target import Target

MODES = ("auto", "exact", "tile", "whole")
ALPHA_MODES = ("model", "resize")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How pictures are upscaled, whatever they are. For the meaning see `upscale_image`.

    Raises:
        ValueError: a value is none of those allowed.
    """

    mode: str = "auto"
    tile: int | None = None
    overlap: int | None = None
    batch: int | None = None
    precision: str = "auto"
    alpha: str = "model"
    target: Target | None = None
    seamless: str = "none"
    ensemble: int = 1
    colour_fix: str = "none"
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        allowed: dict[str, tuple[Any, ...]] = {
            "mode": MODES,
            "precision": PRECISIONS,
            "alpha": ALPHA_MODES,
            "seamless": SEAMLESS,
            "ensemble": ENSEMBLES,
            "colour_fix": COLOUR_FIXES,
            "dtype": DTYPES,
        }
        for name, choices in allowed.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(
                    f"{name} {value!r} is not known; use one of {', '.join(map(str, choices))}"
                )
        for name, least in (("tile", 8), ("overlap", 0), ("batch", 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < least):
                raise ValueError(
                    f"{name} is {value}; it must be a whole number from {least} on, or left automatic"
                )
        if self.tile is not None and self.overlap is not None and self.overlap >= self.tile:
            raise ValueError(
                f"overlap {self.overlap} leaves nothing of a tile of {self.tile}; make it smaller than the tile"
            )
