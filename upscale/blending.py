"""Puts overlapping tiles together: copied where a tile is alone, weighted where tiles overlap."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ..common.ramps import ramp
from ..common.tiling import AxisPlan, TileGrid

ALONE, BEFORE, AFTER = "alone", "before", "after"
"""What a part of a tile shares its pixels with: nothing, the tile before it, or the one after."""


def axis_weights(plan: AxisPlan, scale: int = 1) -> Tensor:
    """Weights (tiles, size * scale) float32 along one axis; at every pixel they sum to 1.

    A tile's weight rises linearly over the overlap with the tile before and falls over that with
    the next. At the image's own borders there is no ramp. Where more than two tiles overlap, the
    weights are divided by their sum.
    """
    size = plan.size * scale
    weights = torch.ones(len(plan.starts), size, dtype=torch.float64)
    for index, overlap in enumerate(plan.overlaps):
        width = overlap * scale
        rise = ramp(width, "linear")
        weights[index, size - width :] *= rise.flip(0)
        weights[index + 1, :width] *= rise
    total = torch.zeros(plan.length * scale, dtype=torch.float64)
    starts = [start * scale for start in plan.starts]
    for start, weight in zip(starts, weights):
        total[start : start + size] += weight
    for start, weight in zip(starts, weights):
        weight /= total[start : start + size]
    return weights.float()


def axis_parts(plan: AxisPlan, scale: int) -> list[list[tuple[slice, str]]] | None:
    """For every tile its parts along one axis, in output pixels, and with whom each is shared.

    None where a pixel lies in more than two tiles.
    """
    if any(following < start + plan.size for start, following in zip(plan.starts, plan.starts[2:])):
        return None
    size, overlaps = plan.size * scale, [0, *(o * scale for o in plan.overlaps), 0]
    parts = []
    for before, after in pairwise(overlaps):
        cuts = (slice(0, before), BEFORE), (slice(before, size - after), ALONE)
        cuts = (*cuts, (slice(size - after, size), AFTER))
        parts.append([(span, kind) for span, kind in cuts if span.start < span.stop])
    return parts


def _weigh(piece: Tensor, weights: Tensor) -> Tensor:
    """A part of a tile (h, w, C), clamped and times its weights (h, w), in float32."""
    return piece.clamp(0, 1).float().mul_(weights[..., None])


class Canvas:
    """One pass's picture, to which tiles are added in any order of rows, from left to right.

    Args:
        into: (H * scale, W * scale, channels of a pass) float32 on the CPU.
        grid: the tiles, in input pixels.
        scale: output size / input size.
        complete: every tile of the grid will be added, row by row. Then no pixel of ``into`` is
            touched that a tile does not need: most are written once, and none is cleared before.
    """

    def __init__(self, into: Tensor, grid: TileGrid, scale: int, *, complete: bool) -> None:
        self.into, self.grid, self.scale = into, grid, scale
        self.top = 0
        """The row of the picture with which ``into`` begins, where it is only a part of it."""
        self.row_weights = axis_weights(grid.rows, scale)
        self.column_weights = axis_weights(grid.columns, scale)
        rows, columns = axis_parts(grid.rows, scale), axis_parts(grid.columns, scale)
        self.sums = not complete or rows is None or columns is None
        if self.sums:
            rows = [[(slice(None), BEFORE)]] * len(grid.rows.starts)
            columns = [[(slice(None), BEFORE)]] * len(grid.columns.starts)
        self.rows, self.columns = rows, columns

    def begin(self) -> None:
        """Clear what tiles will be summed in; called before the first one."""
        if self.sums:
            self.into.zero_()

    def add(self, number: int, tile: Tensor) -> tuple[slice, slice]:
        """Add a tile (h, w, channels of the pass), any floating point, clamped or not, on the CPU.

        Returns its place in ``into``. Nothing has been written when main memory runs out in it, so
        it can be done again.
        """
        row, column = self.grid.index(number)
        place = self.grid.window(number, self.scale)
        target = self.into[place[0].start - self.top : place[0].stop - self.top, place[1]]
        alone, shared = [], []
        for rows, above in self.rows[row]:
            for columns, left in self.columns[column]:
                into, piece = target[rows, columns], tile[rows, columns]
                if above == left == ALONE:
                    alone.append((into, piece))
                    continue
                weights = self.row_weights[row][rows, None] * self.column_weights[column][columns]
                shared.append((into, _weigh(piece, weights), BEFORE in (above, left)))
        for into, piece in alone:
            torch.clamp(piece.float(), 0, 1, out=into)
        for into, weighted, another_was_there in shared:
            if another_was_there:
                into.add_(weighted).clamp_(max=1)  # the sum of weights is rounded
            else:
                into.copy_(weighted)
        return place
