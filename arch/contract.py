"""What a network of this package tells an engine about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


Recall = Callable[[str, int, int, Callable[[], Tensor]], Tensor]
"""``recall(name, first, last, compute)``: what ``compute()`` gives, which depends on the frames from
``first`` to ``last`` of the clip alone; from memory where an earlier clip held the same ones."""


@dataclass(frozen=True, kw_only=True)
class ClipContract:
    """Offered as ``model.clip_contract`` by a network that takes successive frames and gives one.

    Its input has the channels of all frames one after the other: (B, frames * C, h, w).

    Attributes:
        before, after: frames of the clip before and after the one that comes out.
        recalling: the network on one tile (1, frames * C, h, w), with a `Recall`; None where no
            part of it can be used again for another clip.
    """

    before: int
    after: int
    recalling: Callable[[Tensor, Recall], Tensor] | None = None

    @property
    def frames(self) -> int:
        """How many the network takes."""
        return self.before + 1 + self.after


def compute_anew(name: str, first: int, last: int, compute: Callable[[], Any]) -> Any:
    """A `Recall` that remembers nothing."""
    return compute()
