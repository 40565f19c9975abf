"""Windows and blending against closed forms and a plain loop over windows."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdat_dense_iso.arch.windowed.geometry import plan_windows
from fdat_dense_iso.arch.windowed.network import WindowedUpscaler

LENGTHS = [16, 17, 23, 28, 29, 31, 40, 41, 64, 97, 101, 211]


class Nearest(nn.Module):
    """Enlarges x3 by repetition: blended windows must give exactly what the whole image gives."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        return F.interpolate(x, scale_factor=3, mode="nearest")


class WindowMean(nn.Module):
    """Depends on everything in its window, so that every window differs."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="nearest") * x.mean((2, 3), keepdim=True)


def wrap(network: nn.Module, scale: int, **options: int) -> WindowedUpscaler:
    return WindowedUpscaler(network, window=16, scale=scale, **{"overlap": 4, **options})


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("overlap", [0, 1, 4, 5, 8])
def test_windows_cover_the_axis_and_weights_sum_to_one(length: int, overlap: int) -> None:
    starts = [window.start for window in plan_windows(length, 16, overlap, 1)]
    assert starts[0] == 0 and starts[-1] == length - 16
    assert all(0 < following - start <= 16 - overlap for start, following in pairwise(starts))
    for scale in (1, 2, 3):
        total = torch.zeros(length * scale, dtype=torch.float64)
        for window in plan_windows(length, 16, overlap, scale):
            assert (window.weights >= 0).all() and 0 <= window.start <= length - 16
            begin, end = window.kept
            assert window.target == window.start * scale + begin and 0 <= begin < end <= 16 * scale
            total[window.target : window.target + end - begin] += window.weights
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-15)


@pytest.mark.parametrize("start", [480, 960])
def test_windows_of_a_tile_lie_as_in_the_whole_image(start: int) -> None:
    whole = [window.start for window in plan_windows(1500, 64, 16, 1)]
    tile = [start + window.start for window in plan_windows(512, 64, 16, 1)]
    assert set(tile[:-1]) <= set(whole)


def test_no_ramp_at_the_borders() -> None:
    first, *_, last = plan_windows(50, 16, 4, 2)
    assert first.target == 0 and last.target + len(last.weights) == 100
    assert first.weights[:24].eq(1).all() and last.weights[-24:].eq(1).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 33), (16, 16), (17, 16), (31, 50), (53, 29)])
def test_position_free_network_equals_the_whole_image(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size, dtype=torch.float64)
    network = Nearest()
    out = wrap(network, 3)(image)
    torch.testing.assert_close(
        out, F.interpolate(image, scale_factor=3, mode="nearest"), rtol=0, atol=1e-14
    )
    assert all(shape[2:] == (16, 16) for shape in network.shapes)


def test_windows_are_batched_across_images() -> None:
    network = Nearest()
    wrap(network, 3, batch=3)(
        torch.rand(4, 3, 40, 16)
    )  # 3 windows below each other in each of four images
    assert [shape[0] for shape in network.shapes] == [3, 1, 3, 1, 3, 1]


def test_windows_are_batched_within_a_row() -> None:
    network = Nearest()
    wrap(network, 3, batch=4)(
        torch.rand(2, 3, 16, 40)
    )  # 3 windows beside each other, of three kinds, in two images
    assert [shape[0] for shape in network.shapes] == [4, 2]


def test_only_kept_pixels_are_asked_for() -> None:
    class Parts(Nearest):
        def parts(
            self, x: Tensor, places: list[tuple[tuple[int, int], tuple[int, int]]]
        ) -> list[Tensor]:
            asked.extend(places)
            return [
                y[:, slice(*rows), slice(*columns)] for y, (rows, columns) in zip(self(x), places)
            ]

    asked: list[tuple[tuple[int, int], tuple[int, int]]] = []
    image = torch.rand(1, 3, 28, 10, dtype=torch.float64)  # two windows of 16, overlapping by 4
    out = wrap(Parts(), 3)(image)
    torch.testing.assert_close(
        out, F.interpolate(image, scale_factor=3, mode="nearest"), rtol=0, atol=1e-14
    )
    assert asked == [((0, 45), (9, 39)), ((3, 48), (9, 39))]


@pytest.mark.parametrize("size", [(16, 16), (20, 45), (40, 61)])
def test_equals_a_plain_loop_over_windows(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size, dtype=torch.float64)
    network = WindowMean()
    expected = torch.zeros(2, 3, size[0] * 2, size[1] * 2, dtype=torch.float64)
    for row in plan_windows(size[0], 16, 4, 2):
        for column in plan_windows(size[1], 16, 4, 2):
            patch = network(
                image[:, :, row.start : row.start + 16, column.start : column.start + 16]
            )
            for i in range(*row.kept):
                for j in range(*column.kept):
                    weight = row.weights[i - row.kept[0]] * column.weights[j - column.kept[0]]
                    expected[:, :, row.start * 2 + i, column.start * 2 + j] += (
                        weight * patch[:, :, i, j]
                    )
    torch.testing.assert_close(wrap(network, 2)(image), expected, rtol=0, atol=1e-12)


def test_contract_says_that_windows_are_its_tiles() -> None:
    upscaler = wrap(Nearest(), 3, alignment=2)
    contract = upscaler.tile_contract
    assert (contract.window, contract.overlap, contract.alignment) == (16, 4, 2)
    upscaler.register_forward_hook(lambda *_: None)  # the result is no longer that of windows alone
    assert upscaler.tile_contract.window is None
    assert contract.network(torch.rand(1, 3, 17, 23)).shape == (1, 3, 51, 69)


def test_windows_that_nothing_touches_are_left_out() -> None:
    image, touched = torch.rand(1, 3, 40, 61, dtype=torch.float64), torch.zeros(40, 61, dtype=bool)
    touched[30, 50] = True
    network = WindowMean()
    calls: list[int] = []
    network.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    upscaler = wrap(network, 2)
    everything, _ = run_engine(upscaler, image)
    windows, calls[:] = sum(calls), []
    result, progress = run_engine(upscaler, image, touched=touched)
    assert torch.equal(result[:, :, 60, 100], everything[:, :, 60, 100])
    assert sum(calls) == 2 < windows == len(progress)  # it lies where two windows overlap
    assert not result[:, :, :20, :20].any()


@pytest.mark.parametrize("image", [torch.rand(3, 8, 8), torch.rand(1, 3, 0, 8)])
def test_refuses_what_is_no_image(image: Tensor) -> None:
    with pytest.raises(ValueError, match="expected an image batch"):
        wrap(Nearest(), 3)(image)


def run_engine(
    upscaler: WindowedUpscaler, image: Tensor, touched: Tensor | None = None, **options: int
) -> tuple[Tensor, list[tuple[int, int]]]:
    engine = upscaler.exact_engine
    plan = engine.plan(len(image), *image.shape[2:], dtype=image.dtype, device="cpu", **options)
    bands: list[Tensor] = []
    progress: list[tuple[int, int]] = []

    def write(top: int, rows: Tensor) -> None:
        assert top == sum(band.shape[2] for band in bands)
        bands.append(rows.clone())

    engine.run(image, plan, write, lambda done, total: progress.append((done, total)), touched)
    return torch.cat(bands, 2), progress


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (16, 16), (20, 45), (53, 61)])
@pytest.mark.parametrize("batch", [1, 3])
def test_engine_gives_the_same_rows_in_order(size: tuple[int, int], batch: int) -> None:
    image = torch.rand(2, 3, *size, dtype=torch.float64)
    upscaler = wrap(WindowMean(), 2, batch=batch)
    result, progress = run_engine(upscaler, image)
    assert torch.equal(result, upscaler(image))
    assert progress == [(i + 1, len(progress)) for i in range(len(progress))]


def test_engine_plans_within_the_memory_there_is() -> None:
    engine = wrap(Nearest(), 3, batch=16).exact_engine
    ask = {"dtype": torch.float32, "device": "cpu"}
    plan = engine.plan(1, 64, 64, **ask)
    assert plan.batch == 16
    window = 3 * 16**2 * 4 * (1 + 9 + 9)  # its input, the network's output and the weighted result
    smaller = plan.smaller()
    assert plan.memory_required - smaller.memory_required == 8 * window
    assert engine.plan(1, 64, 64, **ask, available=smaller.memory_required).batch == 8
    smallest = engine.plan(1, 64, 64, **ask, available=1)
    assert smallest.batch == 1 and smallest.smaller() is None


def test_engine_stops_where_progress_raises() -> None:
    network = Nearest()

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    upscaler = wrap(network, 3, batch=1)
    plan = upscaler.exact_engine.plan(1, 40, 40, dtype=torch.float32, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        upscaler.exact_engine.run(torch.rand(1, 3, 40, 40), plan, lambda top, rows: None, stop)
    assert len(network.shapes) == 2
