"""Tiles, blended, in the memory there is."""

from __future__ import annotations

import pytest
import torch
from spandrel import ModelTiling

from fdat_dense_iso.upscale import OutOfMemoryError, blending, upscale_image
from fdat_dense_iso.upscale.placement import DirectPlacement
from tests.helpers.fake_models import Nearest, descriptor, enlarged, nearest, picture


@pytest.mark.parametrize(
    "options",
    [{}, {"tile": 16}, {"tile": 16, "overlap": 0}, {"tile": 24, "overlap": 9, "batch": 5}],
)
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 50), (13, 17), (31, 64), (53, 47), (97, 101)], ids=str
)
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_tiled_equals_untiled(scale: int, size: tuple[int, int], options: dict) -> None:
    image = picture(*size, batch=2)
    result = upscale_image(nearest(scale), image, **options)
    assert result.shape == (2, size[0] * scale, size[1] * scale, 3)
    assert result.dtype == torch.float32 and result.device.type == "cpu" and result.is_contiguous()
    assert (result - enlarged(image, scale)).abs().max() <= 1e-6


def test_position_dependent_model_is_blended_between_its_tiles() -> None:
    """A model that returns a different constant for every call: each pixel is a convex mix of its
    tiles' constants."""

    class Counter(Nearest):
        def forward(self, x):
            result = super().forward(x)
            return (
                result if x.device.type == "meta" else torch.full_like(result, len(self.calls) / 10)
            )

    result = upscale_image(
        descriptor(Counter(2), 2), picture(8, 20), tile=8, overlap=4, batch=1, mode="tile"
    )
    row = result[0, 0, :, 0]
    assert row[0] == pytest.approx(0.1) and row[-1] == pytest.approx(row.max().item())
    assert (row[1:] - row[:-1] >= -1e-6).all()
    assert (result[0] == result[0, :1]).all()


def test_image_within_one_tile_is_one_call() -> None:
    model = nearest()
    upscale_image(model, picture(40, 30), tile=40)
    assert model.model.calls == [(1, 3, 40, 30)]


def test_batches_hold_as_many_tiles_as_asked_for() -> None:
    model = nearest()
    upscale_image(model, picture(40, 40), tile=16, overlap=4, batch=4)
    assert {shape[0] for shape in model.model.calls[:-1]} == {4}
    assert sum(shape[0] for shape in model.model.calls) == 9


@pytest.mark.parametrize(("multiple_of", "minimum"), [(8, 0), (1, 32), (16, 64)])
def test_size_requirements_are_met_by_every_tile(multiple_of: int, minimum: int) -> None:
    model = nearest(multiple_of=multiple_of, minimum=minimum)
    image = picture(75, 91)
    result = upscale_image(model, image, tile=40, overlap=8)
    assert all(
        h % multiple_of == w % multiple_of == 0 and min(h, w) >= minimum
        for _, _, h, w in model.model.calls
    )
    assert (result - enlarged(image, 2)).abs().max() <= 1e-6


class LittleMemory(Nearest):
    """Runs out of memory above a number of pixels per call."""

    def __init__(self, pixels: int) -> None:
        super().__init__(2)
        self.pixels = pixels
        self.failures = 0

    def forward(self, x):
        if x.device.type != "meta" and x.shape[0] * x.shape[2] * x.shape[3] > self.pixels:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().forward(x)


@pytest.mark.parametrize("pixels", [100 * 100, 64 * 64, 3000, 40 * 40])
@pytest.mark.parametrize(
    "options", [{"mode": "whole"}, {"tile": 128, "batch": 8}, {"tile": 64, "batch": 3}]
)
def test_out_of_memory_leads_to_smaller_batches_and_tiles(pixels: int, options: dict) -> None:
    network = LittleMemory(pixels)
    image = picture(150, 190)
    seen: list[tuple[int, int]] = []
    result = upscale_image(
        descriptor(network, 2), image, progress=lambda *s: seen.append(s), **options
    )
    assert (result - enlarged(image, 2)).abs().max() <= 1e-6
    assert network.failures <= 5
    assert seen[-1][0] == seen[-1][1] and [done for done, _ in seen] == sorted(
        {done for done, _ in seen}
    )


def test_finished_tiles_are_not_computed_again() -> None:
    network = Nearest(2)

    def less_and_less(x: torch.Tensor) -> None:
        if len(network.calls) > 4 and x.shape[-1] > 32:
            network.calls.pop()
            raise torch.OutOfMemoryError("out of memory")

    network.before = less_and_less
    image = picture(64, 256)
    result = upscale_image(descriptor(network, 2), image, tile=64, overlap=0, batch=1, mode="tile")
    assert (result - enlarged(image, 2)).abs().max() <= 1e-6
    assert [shape[-1] for shape in network.calls].count(64) == 4

    network = Nearest(2)
    network.before = lambda x: less_and_less_2(x)
    calls_of_first_two: list[int] = []

    def less_and_less_2(x: torch.Tensor) -> None:
        if len(network.calls) == 3 and x.shape[-1] == 64:
            network.calls.pop()
            calls_of_first_two.append(len(network.calls))
            raise RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 17179869184 bytes"
            )

    result = upscale_image(descriptor(network, 2), image, tile=64, overlap=0, batch=1, mode="tile")
    assert (result - enlarged(image, 2)).abs().max() <= 1e-6
    assert calls_of_first_two == [2] and [s[-1] for s in network.calls[:2]] == [64, 64]
    assert all(shape[-1] <= 32 for shape in network.calls[2:])


class Scarce(DirectPlacement):
    """A device with little free memory."""

    def __init__(self, model, free: int) -> None:
        super().__init__(model, "cpu")
        self.free = free

    def available(self) -> int:
        return self.free


def test_tiles_shrink_to_the_free_memory() -> None:
    model, image = nearest(2), picture(500, 600)
    upscale_image(model, image, placement=Scarce(model, 2**40))
    assert max(shape[-1] for shape in model.model.calls) > 300
    model.model.calls.clear()
    free = 2 * 2**20
    result = upscale_image(model, image, placement=Scarce(model, free))
    assert (result - enlarged(image, 2)).abs().max() <= 1e-6
    largest = max(shape[-1] * shape[-2] for shape in model.model.calls)
    assert 32 * 32 < largest * (3 + 2 * 3 * 4 + 4) * 4 <= 1.5 * free


def test_tiles_keep_the_overlap_that_was_asked_for() -> None:
    model, image = nearest(2), picture(500, 600)
    result = upscale_image(model, image, overlap=48, placement=Scarce(model, 2**18))
    assert (result - enlarged(image, 2)).abs().max() <= 1e-6
    heights = {shape[-2] for shape in model.model.calls}
    assert heights == {94}  # 10 tiles of at most 2 * 48 rows cover 500: (500 + 9 * 48) / 10 each


def test_running_out_of_memory_while_blending_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, image = nearest(2), picture(40, 30)
    expected = upscale_image(model, image, tile=24, overlap=8)
    weigh, counts = blending._weigh, []
    for number in range(1, 9):
        counts.clear()

        def failing(piece: torch.Tensor, weights: torch.Tensor, number: int = number):
            counts.append(1)
            if len(counts) == number:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return weigh(piece, weights)

        monkeypatch.setattr(blending, "_weigh", failing)
        assert torch.equal(upscale_image(model, image, tile=24, overlap=8), expected)
        assert len(counts) > number


def test_a_large_overlap_makes_the_automatic_tile_larger() -> None:
    image = picture(600, 20)
    assert (upscale_image(nearest(2), image, overlap=300) - enlarged(image, 2)).abs().max() <= 1e-6


def test_the_floor_says_what_to_do() -> None:
    model = descriptor(LittleMemory(10), 2)
    with pytest.raises(
        OutOfMemoryError, match=r"single tile of \d+x\d+ pixels.*close other programs"
    ):
        upscale_image(model, picture(100, 100))


def test_other_errors_are_not_taken_for_out_of_memory() -> None:
    model = nearest()

    def broken(x) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    model.model.before = broken
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        upscale_image(model, picture(40, 40), tile=16)
    assert len(model.model.calls) <= 2


def test_models_that_see_the_whole_image_get_it() -> None:
    model = nearest(tiling=ModelTiling.DISCOURAGED)
    upscale_image(model, picture(700, 30))
    assert model.model.calls == [(1, 3, 700, 30)]
    model = nearest()
    upscale_image(model, picture(700, 30))
    assert len(model.model.calls) == 2


@pytest.mark.parametrize("cause", ["tile", "mask", "memory", "out of memory"])
def test_tiles_of_a_model_that_sees_the_whole_image_are_told(
    cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, in one line, whatever made it tiles; and never where there are none."""
    model = nearest(tiling=ModelTiling.DISCOURAGED)
    options = {}
    if cause == "tile":
        options["tile"] = 64
    elif cause == "mask":
        options["mask"] = torch.ones(1, 400, 30)
        options["mask"][:, 300:] = 0
    elif cause == "memory":
        where = DirectPlacement(model, "cpu")
        where.available = lambda: 2_000_000  # type: ignore[method-assign]
        options["placement"] = where
    else:
        model = descriptor(LittleMemory(10_000), 2, tiling=ModelTiling.DISCOURAGED)
    upscale_image(model, picture(400, 30, batch=2), **options)
    told = [
        r.getMessage() for r in caplog.records if "looks at the whole picture" in r.getMessage()
    ]
    assert len(told) == 1 and "\n" not in told[0]
    assert "in tiles of 30x" in told[0] or cause in ("memory", "out of memory")
    caplog.clear()
    upscale_image(nearest(tiling=ModelTiling.DISCOURAGED), picture(400, 30))
    upscale_image(nearest(), picture(400, 30), tile=64)
    assert not caplog.records
