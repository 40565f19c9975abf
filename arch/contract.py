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
        size: the network takes input tiles of exactly ``size`` x ``size`` pixels; None: any size.
        overlap: sensible overlap of neighbouring tiles, in input pixels.
        alignment: starts and sizes of tiles are best multiples of this many input pixels.
        network: (B, C, h, w) -> (B, C, h * scale, w * scale), unclamped.
    """

    size: int | None
    overlap: int
    alignment: int
    network: Callable[[Tensor], Tensor]
