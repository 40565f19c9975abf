"""`upscale_image` against closed forms: a nearest-neighbour model makes the same picture, tiled or
not.

More than 400 lines, because all promises of one function stand together.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from spandrel import ModelTiling
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fdat_dense_iso.upscale import OutOfMemoryError, Target, upscale_image
from fdat_dense_iso.upscale.placement import DirectPlacement, is_out_of_memory
from fdat_dense_iso.upscale.precision import best_dtype, cast_copy
from tests.helpers.fake_models import Nearest, descriptor, enlarged, nearest, picture, windowed


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


@pytest.mark.parametrize("tile", [None, 16])
@pytest.mark.parametrize("model_channels", [1, 3, 4])
@pytest.mark.parametrize("image_channels", [1, 3, 4])
def test_any_channels_through_any_model(
    image_channels: int, model_channels: int, tile: int | None
) -> None:
    image = picture(21, 30, image_channels, batch=2)
    result = upscale_image(nearest(2, model_channels), image, tile=tile)
    expected = enlarged(image, 2)
    assert result.shape == expected.shape
    if image_channels == 4:
        visible = expected[..., 3:] > 1 / 255
        assert ((result - expected).abs() * visible).max() <= 1e-4
        assert (result[..., 3] - expected[..., 3]).abs().max() <= 1e-6
    else:
        assert (result - expected).abs().max() <= 1e-6


def test_opaque_alpha_costs_nothing_and_stays_opaque() -> None:
    model = nearest()
    image = picture(20, 20, 4)
    image[..., 3] = 1
    result = upscale_image(model, image)
    assert len(model.model.calls) == 1
    assert (result[..., 3] == 1).all()
    assert (result[..., :3] - enlarged(image, 2)[..., :3]).abs().max() <= 1e-6


class Box(nn.Module):
    """A 3x3 box filter: mixes the colours of neighbours, as real networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3, 1, 3, 3), 1 / 9))

    def forward(self, x):
        return nn.functional.conv2d(
            nn.functional.pad(x, (1, 1, 1, 1), "replicate"), self.weight, groups=3
        )


def test_transparent_pixels_do_not_fringe() -> None:
    """A red disc on transparent green stays red to its last visible pixel."""
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    inside = ((y - 16) ** 2 + (x - 16) ** 2 < 100).float()
    image = torch.stack([inside, 1 - inside, torch.zeros_like(inside), inside], -1)[None]
    result = upscale_image(descriptor(Box(), 1), image, alpha="model")
    visible = result[..., 3] > 0.05
    assert result[..., 1][visible].max() <= 1e-5
    assert result[..., 0][visible].min() >= 1 - 1e-4
    plain = upscale_image(descriptor(Box(), 1), image, alpha="resize")
    assert torch.equal(plain[..., 3], image[..., 3])


@pytest.mark.parametrize(
    ("target", "size"),
    [
        (0.5, (15, 20)),
        (3.0, (90, 120)),
        (Target(width=100), (75, 100)),
        (Target(height=33), (33, 44)),
        (Target(width=50, height=50), (50, 50)),
        (2.0, (60, 80)),
    ],
    ids=str,
)
def test_target_size(target, size: tuple[int, int]) -> None:
    image = torch.full((2, 30, 40, 4), 0.25)
    image[..., 3] = 0.5
    result = upscale_image(nearest(2), image, target=target)
    assert result.shape == (2, *size, 4)
    assert (result[..., :3] - 0.25).abs().max() <= 1e-5 and (
        result[..., 3] - 0.5
    ).abs().max() <= 1e-5


def test_progress_counts_every_tile_of_every_frame_and_pass() -> None:
    seen: list[tuple[int, int]] = []
    upscale_image(
        nearest(),
        picture(40, 40, 4, batch=2),
        tile=24,
        overlap=8,
        batch=2,
        progress=lambda *s: seen.append(s),
    )
    assert seen == [(2 * (i + 1), 16) for i in range(8)]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("fault", ["none", "progress", "model", "argument"])
def test_descriptor_comes_back_as_it_was(fault: str, dtype: torch.dtype, training: bool) -> None:
    model = nearest()
    model.model.gain.data.uniform_(0.9, 1)
    model.model.to(dtype).train(training)
    before = {key: value.clone() for key, value in model.model.state_dict().items()}

    def fail(*_) -> None:
        raise Interrupted

    def broken(x) -> None:
        raise RuntimeError("broken layer")

    if fault == "model":
        model.model.before = broken
    options = {
        "none": {},
        "progress": {"progress": fail},
        "model": {"batch": 1},
        "argument": {"precision": "fp99"},
    }[fault]
    expected = {
        "none": None,
        "progress": Interrupted,
        "model": RuntimeError,
        "argument": ValueError,
    }[fault]
    for precision in ("auto", "bf16"):
        arguments = {"precision": precision, **options}
        if expected is None:
            upscale_image(model, picture(40, 40), tile=16, **arguments)
        else:
            with pytest.raises(expected):
                upscale_image(model, picture(40, 40), tile=16, **arguments)
    after = model.model.state_dict()
    assert model.model.training == training and model.dtype == dtype and model.device.type == "cpu"
    assert all(torch.equal(after[key], before[key]) and after[key].dtype == dtype for key in before)
    assert not model.model._forward_hooks and "patcher" not in vars(model)


def test_half_precision_runs_in_a_copy() -> None:
    model = nearest()
    dtypes = []
    model.model.before = lambda x: dtypes.append(x.dtype)
    image = picture(30, 30)
    result = upscale_image(model, image, precision="bf16", tile=16)
    assert set(dtypes) == {torch.bfloat16} and model.dtype == torch.float32
    assert (result - enlarged(image, 2)).abs().max() <= 0.005


class Overflows(Nearest):
    """Infinite (or NaN) in half precision for tiles that hold a bright pixel."""

    def __init__(self, value: float) -> None:
        super().__init__(2)
        self.value = value
        self.dtypes: list[torch.dtype] = []

    def forward(self, x):
        result = super().forward(x)
        if x.device.type != "meta":
            self.dtypes.append(x.dtype)
            if x.dtype != torch.float32 and (x > 0.99).any():
                result[..., 0] = self.value
        return result


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_overflow_is_computed_again_in_float32(
    value: float, precision: str, caplog: pytest.LogCaptureFixture
) -> None:
    image = picture(16, 48) * 0.9
    image[0, 4, 40] = 1
    network = Overflows(value)
    with caplog.at_level(logging.WARNING):
        result = upscale_image(
            descriptor(network, 2), image, tile=16, overlap=0, batch=1, precision=precision
        )
    assert (result - enlarged(image, 2)).abs().max() <= 0.005
    assert (result[:, :, 64:] - enlarged(image, 2)[:, :, 64:]).abs().max() <= 1e-6
    assert "float32" in caplog.text and "NaN or infinite" in caplog.text


def test_nan_in_float32_is_an_error() -> None:
    model = nearest()
    model.model.gain.data[0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite values in float32"):
        upscale_image(model, picture(20, 20))


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


@pytest.mark.parametrize("mode", ["auto", "exact", "tile", "whole"])
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 40), (40, 1), (15, 17), (12, 100), (100, 12), (33, 47)], ids=str
)
def test_networks_of_one_input_size(size: tuple[int, int], mode: str) -> None:
    image = picture(*size, batch=2)
    result = upscale_image(windowed(Nearest(3), 3, 16, 4), image, mode=mode)
    assert (result - enlarged(image, 3)).abs().max() <= 1e-6


class Direct(Nearest):
    """Says by the protocol which module is to be run, whose output is not clamped."""

    offset = 0.0

    @property
    def tile_contract(self) -> SimpleNamespace:
        return SimpleNamespace(window=None, overlap=4, alignment=4, network=self)

    def forward(self, x):
        return super().forward(x) + self.offset


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_networks_called_directly_are_watched_too(value: float) -> None:
    network = Direct(2)
    network.offset = value
    with pytest.raises(ValueError, match="NaN or infinite values in float32"):
        upscale_image(descriptor(network, 2), picture(20, 20))


class OnlyFloat32(Nearest):
    message = "expected m1 and m2 to have the same dtype, but got: float != BFloat16"

    def forward(self, x):
        if x.dtype != torch.float32:
            raise RuntimeError(self.message)
        return super().forward(x)


def test_an_error_without_a_message_is_named_by_its_type(caplog: pytest.LogCaptureFixture) -> None:
    network, image = OnlyFloat32(2), picture(20, 20)
    network.message = ""
    with caplog.at_level(logging.WARNING):
        result = upscale_image(descriptor(network, 2), image, precision="bf16")
    assert torch.equal(result, upscale_image(nearest(2), image))
    assert "does not run (RuntimeError)" in caplog.text


def test_a_model_that_does_not_run_in_half_precision_runs_in_float32(
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = picture(40, 40)
    with caplog.at_level(logging.WARNING):
        result = upscale_image(
            descriptor(OnlyFloat32(2), 2), image, tile=16, batch=4, precision="bf16"
        )
    assert torch.equal(result, upscale_image(nearest(2), image, tile=16, batch=4))
    assert "does not run (expected m1 and m2" in caplog.text


def test_swinir_in_bfloat16_at_sizes_where_spandrel_fails() -> None:
    from spandrel.architectures.SwinIR import SwinIR

    network = SwinIR(
        img_size=16,
        window_size=8,
        depths=[2],
        embed_dim=12,
        num_heads=[2],
        upscale=2,
        upsampler="nearest+conv",
    )
    model = descriptor(network.eval(), 2, multiple_of=8)
    image = picture(40, 52)
    result = upscale_image(model, image, precision="bf16")
    assert (result - upscale_image(model, image, precision="fp32")).abs().max() <= 0.02


@pytest.mark.parametrize("wrong", ["scale", "channels"])
def test_output_that_contradicts_the_descriptor(wrong: str) -> None:
    class Wrong(Nearest):
        def forward(self, x):
            result = super().forward(x)
            return result[:, :1] if wrong == "channels" else result[:, :, ::2, ::2]

    with pytest.raises(ValueError, match="where its descriptor promises"):
        upscale_image(descriptor(Wrong(2), 2), picture(20, 20))


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


class FailingProduct(TorchDispatchMode):
    """Runs out of memory at one of the products of tensors that come after the model's first
    call."""

    def __init__(self, number: int, calls: list) -> None:
        super().__init__()
        self.number, self.calls, self.count = number, calls, 0
        calls.clear()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.ops.aten.mul.Tensor and self.calls:
            self.count += 1
            if self.count == self.number:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return func(*args, **(kwargs or {}))


def test_running_out_of_memory_while_blending_loses_nothing() -> None:
    model, image = nearest(2), picture(40, 30)
    products = FailingProduct(0, model.model.calls)
    with products:
        expected = upscale_image(model, image, tile=24, overlap=8)
    assert products.count >= 8
    for number in range(1, products.count + 1):
        with FailingProduct(number, model.model.calls):
            assert torch.equal(upscale_image(model, image, tile=24, overlap=8), expected)


def test_copies_keep_nothing_of_the_host() -> None:
    model = nearest(2)
    model.patcher = object()
    copy = cast_copy(model, torch.bfloat16)
    assert "patcher" not in vars(copy) and copy.model is not model.model
    assert (
        copy.dtype == torch.bfloat16 and model.dtype == torch.float32 and hasattr(model, "patcher")
    )


@pytest.mark.parametrize(
    ("half", "bfloat", "capability", "expected"),
    [
        (True, True, (9, 0), torch.float16),
        (False, True, (9, 0), torch.bfloat16),
        (False, True, (7, 5), torch.float32),
        (True, True, (6, 1), torch.float32),
        (False, False, (9, 0), torch.float32),
    ],
)
def test_best_dtype(
    monkeypatch: pytest.MonkeyPatch, half: bool, bfloat: bool, capability, expected
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    model = nearest(2)
    model.supports_half, model.supports_bfloat16 = half, bfloat
    assert best_dtype(model, torch.device("cuda")) == expected
    assert best_dtype(model, torch.device("cpu")) == torch.float32


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"), True),
        (
            RuntimeError(
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
            ),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_by_type_and_words(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_a_large_overlap_makes_the_automatic_tile_larger() -> None:
    image = picture(600, 20)
    assert (upscale_image(nearest(2), image, overlap=300) - enlarged(image, 2)).abs().max() <= 1e-6


def test_opaque_frames_stay_opaque_beside_others() -> None:
    image = picture(20, 20, 4, batch=2)
    image[0, ..., 3] = 1
    assert (upscale_image(descriptor(Box4(), 1), image)[0, ..., 3] == 1).all()


class Box4(nn.Module):
    """Loses a little of everything, alpha too."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.999))

    def forward(self, x):
        return x * self.gain


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


def test_model_that_takes_no_batches() -> None:
    model = nearest()

    def refuse(x: torch.Tensor) -> None:
        if len(x) > 1:
            raise RuntimeError("view size is not compatible with input tensor's size and stride")

    model.model.before = refuse
    image = picture(40, 40)
    result = upscale_image(model, image, tile=16, batch=4)
    assert (result - enlarged(image, 2)).abs().max() <= 1e-6
    assert [shape[0] for shape in model.model.calls].count(4) == 1


def test_models_that_see_the_whole_image_get_it() -> None:
    model = nearest(tiling=ModelTiling.DISCOURAGED)
    upscale_image(model, picture(700, 30))
    assert model.model.calls == [(1, 3, 700, 30)]
    model = nearest()
    upscale_image(model, picture(700, 30))
    assert len(model.model.calls) == 2


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(8, 8, 3), r"shape \(8, 8, 3\); \(B, H, W, C\)"),
        (torch.rand(1, 8, 8, 2), "C = 1, 3 or 4"),
        (torch.rand(1, 8, 8, 5), "C = 1, 3 or 4"),
        (torch.rand(1, 0, 8, 3), "no pixels"),
        (torch.rand(0, 8, 8, 3), "no pixels"),
        (torch.randint(0, 255, (1, 8, 8, 3), dtype=torch.uint8), "divide 8-bit values by 255"),
        (torch.full((1, 8, 8, 3), float("nan")), "NaN or infinite"),
        ("picture.png", "torch.Tensor"),
    ],
    ids=range(8),
)
def test_bad_images(image, message: str) -> None:
    model = nearest()
    with pytest.raises(ValueError, match=message):
        upscale_image(model, image)
    assert model.model.calls == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fast"}, "mode 'fast'"),
        ({"mode": "exact"}, "no exact mode"),
        ({"precision": "int8"}, "precision 'int8'"),
        ({"alpha": "drop"}, "alpha 'drop'"),
        ({"tile": 4}, "tile is 4"),
        ({"overlap": -1}, "overlap is -1"),
        ({"batch": 0}, "batch is 0"),
        ({"tile": 32, "overlap": 32}, "leaves nothing"),
        ({"target": Target(factor=0.001)}, "sides must be"),
        ({"target": Target(width=10**6)}, "sides must be"),
        ({"target": float("inf")}, "a number above 0"),
        ({"target": (20, 20)}, "the target is a tuple; a factor, a text or a Target"),
        ({"target": "large"}, "is not understood"),
        ({"tile": 16.0}, "whole number"),
        ({"device": "meta"}, "device 'meta' holds no values"),
        ({"output_device": "meta"}, "device 'meta' holds no values"),
        ({"device": "gpu"}, "device 'gpu' can't be used here"),
        ({"device": "xla:0"}, "device 'xla:0' can't be used here"),
    ],
    ids=lambda v: str(v),
)
def test_bad_options(options: dict, message: str) -> None:
    model = nearest()
    with pytest.raises(ValueError, match=message):
        upscale_image(model, picture(40, 40), **options)
    assert model.model.calls == []


@pytest.mark.parametrize("target", [None, 0.001])
def test_huge_images_are_refused_before_any_work(target: float | None) -> None:
    model = nearest()
    huge = torch.zeros(1).expand(1, 60_000, 60_000, 3)
    with pytest.raises(
        OutOfMemoryError, match=r"needs \d+\.\d GiB of main memory and \d+\.\d GiB are free"
    ):
        upscale_image(model, huge, target=target)
    assert model.model.calls == []


def test_precision_that_the_model_lacks() -> None:
    with pytest.raises(ValueError, match="does not support fp16; use precision 'auto' or 'fp32'"):
        upscale_image(nearest(half=False), picture(8, 8), precision="fp16")


def test_other_things_than_models() -> None:
    with pytest.raises(ValueError, match="Linear; an image model was expected"):
        upscale_image(nn.Linear(3, 3), picture(8, 8))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_of_other_floating_types(dtype: torch.dtype) -> None:
    image = picture(20, 20).to(dtype)
    result = upscale_image(nearest(), image)
    assert result.dtype == torch.float32 and torch.equal(result, enlarged(image, 2).float())


def test_out_of_range_input_is_clamped_on_output() -> None:
    result = upscale_image(nearest(), picture(20, 20) * 3 - 1, tile=16)
    assert result.min() == 0 and result.max() <= 1 + 1e-6
