"""What a network of this package tells a tiling engine about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TileContract:
    """Offered as ``model.tile_contract`` (a protocol of attributes: engines read it without
    importing this).

    Attributes:
        window: side of the windows in which ``model`` takes every image by itself, with an
            ``exact_engine`` for them, so that nobody else need tile it; None: it has none.
        overlap: sensible overlap of neighbouring tiles, in input pixels.
        alignment: starts and sizes of tiles are best multiples of this many input pixels.
        network: (B, C, h, w) -> (B, C, h * scale, w * scale), unclamped.
    """

    window: int | None
    overlap: int
    alignment: int
    network: Callable[[Tensor], Tensor]
