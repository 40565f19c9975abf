"""Device memory without a host: everything comes back as it was."""

from __future__ import annotations

import pytest
import torch

from fdat_dense_iso.upscale import upscale_image
from tests.helpers.fake_models import nearest, picture


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
