"""Canvases against the sum of weighted tiles, written out."""

from __future__ import annotations

import pytest
import torch

from fdat_dense_iso.common.tiling import plan_grid
from fdat_dense_iso.upscale.blending import Canvas, axis_parts, axis_weights
from fdat_dense_iso.upscale.channels import ChannelPass

COLOURS = ChannelPass((0, 1, 2), (0, 1, 2))
GREY = ChannelPass((0, 0, 0), (0,), average=True)


@pytest.mark.parametrize("one", [COLOURS, GREY], ids=["colours", "grey"])
@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(
    ("size", "tile", "overlap"),
    [((9, 50), 16, 0), ((40, 61), 16, 4), ((37, 33), 16, 8), ((20, 45), 16, 12), ((5, 7), 16, 2)],
    ids=str,
)
def test_equals_the_weighted_sum(
    size: tuple[int, int], tile: int, overlap: int, complete: bool, one: ChannelPass
) -> None:
    grid = plan_grid(*size, tile, overlap, fixed=tile < min(size))
    tiles = torch.rand(len(grid), 3, grid.rows.size * 2, grid.columns.size * 2) * 1.4 - 0.2
    rows, columns = axis_weights(grid.rows, 2), axis_weights(grid.columns, 2)
    expected = torch.zeros(2 * size[0], 2 * size[1], len(one.target))
    into = torch.full_like(expected, float("nan"))  # memory that nobody has written to
    canvas = Canvas(into, grid, 2, complete=complete)
    canvas.begin()
    for number, part in enumerate(tiles):
        row, column = grid.index(number)
        clamped = one.collect(part.clamp(0, 1))
        expected[grid.window(number, 2)] += (
            clamped * (rows[row][:, None] * columns[column])[..., None]
        )
        assert canvas.add(number, one.collect(part)) == grid.window(number, 2)
    assert torch.equal(into, expected.clamp(max=1))  # the sum of weights is rounded


def test_parts_where_three_tiles_overlap() -> None:
    """The last tile is shifted back to end with the image."""
    assert axis_parts(plan_grid(34, 34, 16, 8, fixed=True).rows, 1) is None
    assert axis_parts(plan_grid(40, 40, 16, 8, fixed=True).rows, 1) is not None
