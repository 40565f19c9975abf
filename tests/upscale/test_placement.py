"""Device memory without a host: everything comes back as it was."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
import torch

from fdat_dense_iso.upscale import accelerator, upscale_image
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


GIB = 2**30


def module(monkeypatch: pytest.MonkeyPatch, kind: str, **answers: object) -> torch.device:
    """A device of this kind, whose module has these functions."""
    monkeypatch.setattr(torch, kind, SimpleNamespace(**answers), raising=False)
    return SimpleNamespace(type=kind) if kind == "npu" else torch.device(kind)  # type: ignore[return-value]


def raises(_: object) -> tuple[int, int]:
    raise RuntimeError("The device (Intel(R) Graphics) doesn't support querying the free memory.")


@pytest.mark.parametrize("kind", ["xpu", "npu"])
def test_free_memory_is_the_devices(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = module(
        monkeypatch,
        kind,
        mem_get_info=lambda _: (3 * GIB, 16 * GIB),
        memory_reserved=lambda _: 2 * GIB,
        memory_allocated=lambda _: GIB,
    )
    assert accelerator.free_memory(device) == 4 * GIB


@pytest.mark.parametrize(("main", "free"), [(64, 15), (6, 6)])
def test_a_chip_that_does_not_tell_what_is_free(
    main: int, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = module(
        monkeypatch,
        "xpu",
        mem_get_info=raises,
        get_device_properties=lambda _: SimpleNamespace(total_memory=16 * GIB),
        memory_allocated=lambda _: GIB,
    )
    memory = SimpleNamespace(available=main * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert accelerator.free_memory(device) == free * GIB


def test_directml_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("privateuseone")  # other tests give it a module, DirectML has none
    monkeypatch.setattr(accelerator, "_module", lambda device: None)
    assert accelerator.free_memory(device) == accelerator.UNKNOWN_MEMORY
    assert not accelerator.computes_half(device) and not accelerator.computes_bfloat16(device)
    accelerator.release_cache(device)


@pytest.mark.parametrize(
    ("name", "computes"),
    [
        *(("gfx803", False), ("gfx902", False), ("gfx906:sramecc+:xnack-", False)),
        *(("gfx908", True), ("gfx90a", True), ("gfx90c:xnack-", False), ("gfx942", True)),
        *(("gfx1030", False), ("gfx1036", False), ("gfx1100", True), ("gfx1201", True)),
    ],
)
def test_bfloat16_of_amd(name: str, computes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(gcnArchName=name)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert accelerator.computes_bfloat16(torch.device("cuda")) == computes


@pytest.mark.parametrize("properties", [{}, {"has_bfloat16_conversions": False}])
def test_bfloat16_of_intel(properties: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(has_fp16=True, **properties)
    device = module(monkeypatch, "xpu", get_device_properties=lambda _: found)
    assert accelerator.computes_half(device) and not accelerator.computes_bfloat16(device)
    found.has_bfloat16_conversions = True
    assert accelerator.computes_bfloat16(device)
