"""What other nodes and hosts have set for new tensors changes no result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from fdat_dense_iso.arch import adopt, load_model
from fdat_dense_iso.upscale import upscale_image
from tests.helpers.fake_models import picture, stencil
from tests.helpers.paths import MODELS
from tests.helpers.spandrels_fdat import spandrels_fdat

FDAT, DENSE_ISO = MODELS / "fdat_demo_x2.safetensors", MODELS / "dense_iso_demo_x4.safetensors"

DEFAULTS = ["meta", torch.float16, torch.float64]


@contextmanager
def default(value: str | torch.dtype) -> Iterator[None]:
    """A default device or dtype for new tensors, as a host sets it."""
    try:
        if isinstance(value, str):
            torch.set_default_device(value)
        else:
            torch.set_default_dtype(value)
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


def mask() -> torch.Tensor:
    """(1, 40, 54): the left third."""
    return (torch.arange(54) < 18).float().expand(1, 40, 54)


OPTIONS = {
    "tiles": {"mode": "tile", "tile": 32},
    "a mask": {"tile": 32, "mask": mask()},
    "ensemble": {"ensemble": 8},
    "another size": {"target": "1.5x"},
    "seamless": {"seamless": "both"},
    "wavelets": {"colour_fix": "wavelet"},
    "averages": {"colour_fix": "average"},
}


@pytest.mark.parametrize("defaults", DEFAULTS, ids=str)
@pytest.mark.parametrize("case", OPTIONS)
def test_upscaling(case: str, defaults: str | torch.dtype) -> None:
    model, image = stencil(2), picture(40, 54)
    expected = upscale_image(model, image, **OPTIONS[case])
    with default(defaults):
        result = upscale_image(model, image, **OPTIONS[case])
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("defaults", DEFAULTS, ids=str)
@pytest.mark.parametrize("mode", ["exact", "tile"])
@pytest.mark.parametrize("file", [FDAT, DENSE_ISO], ids=lambda file: file.stem)
@pytest.mark.every(5)
def test_loading_and_upscaling(file: Path, mode: str, defaults: str | torch.dtype) -> None:
    image = picture(24, 30)
    expected = upscale_image(load_model(file), image, mode=mode)
    with default(defaults):
        model = load_model(file)
        result = upscale_image(model, image, mode=mode)
    assert {(p.device.type, p.dtype) for p in model.model.parameters()} == {("cpu", torch.float32)}
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("defaults", DEFAULTS, ids=str)
def test_adopting(defaults: str | torch.dtype) -> None:
    state_dict = load_model(FDAT).model.state_dict()
    foreign = spandrels_fdat().FDATArch().load(dict(state_dict))
    with default(defaults):
        ours = adopt(foreign)
    assert all(
        torch.equal(tensor, state_dict[key]) for key, tensor in ours.model.state_dict().items()
    )
