"""Where tiles lie: integer arithmetic on one axis at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class AxisPlan:
    """Tiles along one axis, all of the same size.

    Attributes:
        length: pixels of the image along the axis.
        size: pixels of a tile.
        starts: first pixel of each tile, ascending; the first is 0, the last tile ends with the
            image.
    """

    length: int
    size: int
    starts: tuple[int, ...]

    @property
    def overlaps(self) -> tuple[int, ...]:
        """Pixels that each tile shares with the next one."""
        return tuple(a + self.size - b for a, b in zip(self.starts, self.starts[1:]))


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple that is no less than ``value``."""
    return -(-value // multiple) * multiple


def plan_axis(
    length: int, tile: int, overlap: int, alignment: int = 1, *, fixed: bool = False
) -> AxisPlan:
    """Cover ``length`` pixels with equal tiles that overlap by at least ``overlap``.

    Tiles are made as small as their number allows, so that little is computed twice: 1000 pixels in
    tiles of 512 with overlap 32 become three of 355. Starts are multiples of ``alignment``, except
    for the last, which is shifted back to end with the image. An image no longer than a tile is one
    tile of its own length.

    Args:
        length: pixels of the image, at least 1.
        tile: largest size of a tile.
        overlap: smallest overlap of neighbours, less than ``tile``.
        alignment: sizes and starts are multiples of this; ``tile`` is rounded down to one,
            ``overlap`` up.
        fixed: tiles have exactly the size ``tile``.

    Raises:
        ValueError: a number is out of its range.
    """
    if length < 1 or tile < 1 or overlap < 0 or alignment < 1:
        raise ValueError(
            f"length {length}, tile {tile} and alignment {alignment} must be >= 1, overlap {overlap} >= 0"
        )
    if length <= tile:
        return AxisPlan(length, length, (0,))
    tile = max(tile // alignment, 1) * alignment
    overlap = round_up(overlap, alignment)
    if overlap >= tile:
        raise ValueError(
            f"overlap {overlap} leaves nothing of a tile of {tile} pixels (both rounded to multiples of {alignment}); "
            "make the overlap smaller or the tile larger"
        )
    if length <= tile:
        return AxisPlan(length, length, (0,))
    count = 1 + math.ceil((length - tile) / (tile - overlap))
    if not fixed:
        tile = round_up(math.ceil((length + (count - 1) * overlap) / count), alignment)
    stride = tile - overlap
    return AxisPlan(length, tile, tuple(min(i * stride, length - tile) for i in range(count)))


@dataclass(frozen=True)
class TileGrid:
    """Tiles of an image: the product of two axes, row by row."""

    rows: AxisPlan
    columns: AxisPlan

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    def index(self, number: int) -> tuple[int, int]:
        """Row and column in the grid of tile ``number``."""
        return divmod(number, len(self.columns.starts))

    def window(self, number: int, scale: int = 1) -> tuple[slice, slice]:
        """The pixels of tile ``number`` in the image enlarged by ``scale``."""
        row, column = self.index(number)
        y, x = self.rows.starts[row] * scale, self.columns.starts[column] * scale
        return slice(y, y + self.rows.size * scale), slice(x, x + self.columns.size * scale)


def plan_grid(
    height: int, width: int, tile: int, overlap: int, alignment: int = 1, *, fixed: bool = False
) -> TileGrid:
    """`plan_axis` for both axes of an image."""
    return TileGrid(
        plan_axis(height, tile, overlap, alignment, fixed=fixed),
        plan_axis(width, tile, overlap, alignment, fixed=fixed),
    )
