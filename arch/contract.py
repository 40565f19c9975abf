"""What a network of this package tells a tiling engine about how to tile it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TileContract:
    """Offered as ``model.tile_contract``; engines read its attributes without importing this class.

    Attributes:
        window: side of the windows into which the model divides every image by itself. Such a model
            has an ``exact_engine`` and need not be tiled by others. None: it has no windows.
        overlap: sensible overlap of neighbouring tiles, in input pixels.
        alignment: starts and sizes of tiles should be multiples of this many input pixels.
        network: what to call on a tile: (B, C, h, w) -> (B, C, h * scale, w * scale), not clamped.
        mirror_borders: its padding spoils the border of a picture, so that the picture is better
            continued by its mirror image first.
    """

    window: int | None
    overlap: int
    alignment: int
    network: Callable[[Tensor], Tensor]
    mirror_borders: bool = False
