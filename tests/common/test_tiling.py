"""Tile positions against the properties that define them."""

from __future__ import annotations

import pytest
import torch

from fdat_dense_iso.common.tiling import plan_axis, plan_grid
from fdat_dense_iso.upscale.blending import axis_weights

CASES = [
    (length, tile, overlap, alignment)
    for length in (1, 7, 31, 64, 65, 97, 127, 128, 509, 1000, 1021)
    for tile in (8, 32, 64, 128, 512)
    for overlap in (0, 1, 8, 16, 31)
    for alignment in (1, 2, 8, 16)
    if -(-overlap // alignment) * alignment < max(tile // alignment, 1) * alignment
    or length <= tile
]


@pytest.mark.parametrize("fixed", [False, True])
def test_every_pixel_is_covered_by_equal_overlapping_tiles(fixed: bool) -> None:
    for length, tile, overlap, alignment in CASES:
        plan = plan_axis(length, tile, overlap, alignment, fixed=fixed)
        case = (length, tile, overlap, alignment, plan)
        assert plan.starts[0] == 0 and plan.starts[-1] + plan.size == length, case
        assert plan.size <= max(tile, alignment), case
        assert all(o >= overlap for o in plan.overlaps), case
        assert all(start % alignment == 0 for start in plan.starts[:-1]), case
        assert list(plan.starts) == sorted(set(plan.starts)), case
        if len(plan.starts) > 1:
            assert plan.size % alignment == 0, case
            assert not fixed or plan.size == max(tile // alignment, 1) * alignment, case
            # one tile fewer of the largest size could not cover the image
            largest = max(tile // alignment, 1) * alignment
            step = largest - -(-overlap // alignment) * alignment
            assert largest + (len(plan.starts) - 2) * step < length, case


def test_documented_example() -> None:
    plan = plan_axis(1000, 512, 32)
    assert (plan.size, plan.starts) == (355, (0, 323, 645))


@pytest.mark.parametrize("length", [5, 64, 512])
def test_image_no_longer_than_a_tile_is_one_tile(length: int) -> None:
    assert plan_axis(length, 512, 32, 8).starts == (0,)
    assert plan_axis(length, 512, 32, 8).size == length


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100, 16, 16), "leaves nothing"),
        ((100, 16, 9, 8), "leaves nothing"),
        ((0, 16, 4), "must be >= 1"),
    ],
)
def test_impossible_plans(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_axis(*arguments)


def test_grid_windows_tile_the_scaled_image() -> None:
    grid = plan_grid(37, 61, 16, 4)
    seen = torch.zeros(37 * 3, 61 * 3)
    for number in range(len(grid)):
        seen[grid.window(number, 3)] += 1
    assert seen.min() >= 1


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_weights_sum_to_one_without_a_ramp_at_the_border(scale: int) -> None:
    for length, tile, overlap, alignment in CASES[::3]:
        plan = plan_axis(length, tile, overlap, alignment)
        weights = axis_weights(plan, scale)
        total = torch.zeros(length * scale, dtype=torch.float64)
        for start, weight in zip(plan.starts, weights):
            assert (weight >= 0).all()
            total[start * scale : (start + plan.size) * scale] += weight
        assert (total - 1).abs().max() <= 1e-6, plan
        if len(plan.starts) == 1:
            assert (weights == 1).all()


def test_two_tiles_hand_over_linearly() -> None:
    weights = axis_weights(plan_axis(12, 8, 4), 1)
    assert weights[0].tolist() == pytest.approx([1, 1, 1, 1, 0.875, 0.625, 0.375, 0.125])
    assert weights[1].tolist() == pytest.approx([0.125, 0.375, 0.625, 0.875, 1, 1, 1, 1])
