"""Precisions by name, and copies of models in them."""

from __future__ import annotations

import pytest
import torch

from fdat_dense_iso.upscale import upscale_image
from fdat_dense_iso.upscale.precision import best_dtype, cast_copy
from tests.helpers.fake_models import nearest, picture


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


def test_precision_that_the_model_lacks() -> None:
    with pytest.raises(ValueError, match="does not support fp16; use precision 'auto' or 'fp32'"):
        upscale_image(nearest(half=False), picture(8, 8), precision="fp16")
