"""One batch of tiles through a model: precision, NaN, batches, and what a descriptor promises."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from fdat_dense_iso.upscale import upscale_image
from tests.helpers.fake_models import Nearest, descriptor, enlarged, nearest, picture, windowed


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
