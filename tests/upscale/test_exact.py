"""`upscale_image` through the engines that this pack's networks offer, against the plain descriptor
on whole images."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from spandrel import ImageModelDescriptor

from fdat_dense_iso.arch import load_model
from fdat_dense_iso.arch.dense_iso.config import DenseIsoViTConfig, pixel_shuffle_head
from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT
from fdat_dense_iso.upscale import OutOfMemoryError, upscale_image
from tests.helpers.fake_models import picture
from tests.helpers.fdat_cases import random_fdat, small


def fdat() -> ImageModelDescriptor:
    return load_model(random_fdat(small("pixelshuffledirect", 2)).state_dict())


def dense_iso() -> ImageModelDescriptor:
    torch.manual_seed(0)
    head = pixel_shuffle_head(fusion_width=8, widths=(8, 8, 8, 8))
    config = DenseIsoViTConfig(dims=(16, 24), depths=(1,), heads=(2, 2), hidden=(16, 24), head=head)
    network = DenseIsoViT(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return load_model(network.state_dict())


MODELS = {"fdat": fdat, "dense_iso": dense_iso}


def whole(model: ImageModelDescriptor, image: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([model(frame[None].movedim(-1, 1)).movedim(1, -1) for frame in image])


@pytest.mark.parametrize(
    ("size", "mode"),
    [((1, 1), "exact"), ((9, 70), "auto"), ((64, 64), "exact"), ((75, 110), "auto")],
    ids=str,
)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.every(3)
def test_equals_the_whole_image(name: str, size: tuple[int, int], mode: str) -> None:
    model, image = MODELS[name](), picture(*size, batch=2)
    expected = whole(model, image)
    assert expected.std() > 0.05
    result = upscale_image(model, image, mode=mode, border="model")
    assert (result - expected).abs().max() <= 5e-5


@pytest.mark.parametrize("name", MODELS)
def test_grey_and_rgba(name: str) -> None:
    model, image = MODELS[name](), picture(40, 50)
    grey = upscale_image(model, image[..., :1], border="model")
    assert (
        grey - whole(model, image[..., :1].expand(-1, -1, -1, 3)).mean(-1, keepdim=True)
    ).abs().max() <= 5e-5
    opaque = torch.cat([image, torch.ones_like(image[..., :1])], -1)
    found = upscale_image(model, opaque, border="model")[..., :3]
    assert (found - whole(model, image)).abs().max() <= 5e-5


@pytest.mark.parametrize("name", MODELS)
def test_progress_rises_to_the_total(name: str) -> None:
    seen: list[tuple[int, int]] = []
    upscale_image(
        MODELS[name](), picture(70, 90, batch=2), progress=lambda *step: seen.append(step)
    )
    done = [step for step, _ in seen]
    assert done == sorted(set(done)) and len({total for _, total in seen}) == 1
    assert seen[-1][0] == seen[-1][1] and len(seen) > 4


@pytest.mark.parametrize("name", MODELS)
def test_interrupt_leaves_the_model_usable(name: str) -> None:
    model, image = MODELS[name](), picture(70, 90)
    expected = upscale_image(model, image)

    def stop(done: int, total: int) -> None:
        if done >= total // 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        upscale_image(model, image, progress=stop)
    assert torch.equal(upscale_image(model, image), expected)


@pytest.mark.parametrize("failures", [1, 2])
def test_out_of_memory_leads_to_a_smaller_plan_and_the_same_result(
    failures: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, image = fdat(), picture(200, 90)
    expected = upscale_image(model, image)
    engine_module = sys.modules["fdat_dense_iso.arch.fdat.engine.run"]
    run = engine_module.ExactEngine.run
    bands = []

    def scarce(self, image, plan, write, progress=None, touched=None):
        bands.append(plan.band)
        if len(bands) <= failures:

            def fail(done: int, total: int) -> None:
                progress(done, total)
                if done >= 3:
                    raise torch.OutOfMemoryError("CUDA out of memory")

            return run(self, image, plan, write, fail)
        return run(self, image, plan, write, progress)

    monkeypatch.setattr(engine_module.ExactEngine, "run", scarce)
    seen: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING):
        result = upscale_image(model, image, progress=lambda *step: seen.append(step))
    assert (result - expected).abs().max() <= 5e-5
    assert len(bands) == failures + 1 and bands == sorted(bands, reverse=True)
    assert caplog.text.count("smaller bands") == failures
    done = [step for step, _ in seen]
    assert done == sorted(done) and seen[-1][0] == seen[-1][1]
    assert (
        len(done) > seen[-1][1]
    )  # told in the repeated bands too, since that is when users can interrupt


def test_the_floor_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fdat()
    upscale_image(model, picture(8, 8))

    def fail(self, *arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(sys.modules["fdat_dense_iso.arch.fdat.engine.run"].ExactEngine, "run", fail)
    with pytest.raises(OutOfMemoryError, match="use mode 'tile'"):
        upscale_image(model, picture(60, 60))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close_and_leaves_the_model_alone(name: str, precision: str) -> None:
    model, image = MODELS[name](), picture(70, 64)
    result = upscale_image(model, image, precision=precision, border="model")
    error = (result - whole(model, image)).pow(2).mean().sqrt()
    assert error <= (0.03 if precision == "bf16" else 0.005)
    assert model.dtype == torch.float32


class ScaledLinear(torch.nn.Linear):
    """As adapters write them: a layer in the place of another, of its shape and weights."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) / 2


def wrap(layer: torch.nn.Module) -> None:
    layer.__class__ = ScaledLinear


def hook(layer: torch.nn.Module) -> None:
    layer.register_forward_hook(lambda module, inputs, output: output / 2)


def replace_forward(layer: torch.nn.Module) -> None:
    plain = layer.forward
    layer.forward = lambda *inputs: plain(*inputs) / 2


@pytest.mark.parametrize(
    ("name", "part", "change"),
    [
        ("fdat", "", hook),
        ("fdat", "", replace_forward),
        ("fdat", "groups.0.conv", hook),
        ("fdat", "groups.0.blocks.0.attn.qkv", wrap),
        ("dense_iso", "", hook),
        ("dense_iso", "network", hook),
        ("dense_iso", "network", replace_forward),
        ("dense_iso", "network.head.0", hook),
        ("dense_iso", "network.stages.0.blocks.0.attention.qkv", wrap),
    ],
)
@pytest.mark.parametrize("mode", ["auto", "tile"])
@pytest.mark.every(5)
def test_what_was_added_to_a_network_counts(name: str, part: str, change, mode: str) -> None:
    model = MODELS[name]()
    image = picture(64, 64)
    before = upscale_image(model, image, mode=mode, border="model")
    change(model.model.get_submodule(part))
    with torch.inference_mode():
        expected = model.model(image.permute(0, 3, 1, 2)).clamp(0, 1).permute(0, 2, 3, 1)
    result = upscale_image(model, image, mode=mode, border="model")
    assert (result - expected).abs().max() <= 1e-5
    assert (result - before).abs().max() >= 1e-3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_head_is_composed_once_per_model(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model of the published size it takes half a minute on a CPU, and a picture a second."""
    engine, calls = sys.modules["fdat_dense_iso.arch.dense_iso.engine.run"], []
    fold_head = engine.fold_head

    def counting(convolutions, *arguments):
        weight = convolutions[0].weight
        if not weight.is_meta:  # of a dry run
            calls.append(weight.dtype)
        return fold_head(convolutions, *arguments)

    monkeypatch.setattr(engine, "fold_head", counting)
    model, image = dense_iso(), picture(20, 30)
    for _ in range(3):
        upscale_image(model, image, precision=precision, device="cpu")
    assert len(calls) == 1
    model.to(torch.device("cpu"))  # as other nodes do, with what is there already
    upscale_image(model, image, precision=precision, device="cpu")
    assert len(calls) == 1
    with torch.no_grad():
        model.model.network.head[-1].bias += 0.1
    upscale_image(model, image, precision=precision, device="cpu")
    assert len(calls) == 2
