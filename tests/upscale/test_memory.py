"""Running out of memory is recognised, also where it happens beside the network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fdat_dense_iso.upscale import OutOfMemoryError, pipeline, upscale_image
from fdat_dense_iso.upscale.memory import is_out_of_memory
from fdat_dense_iso.upscale.transfer import Arrival
from tests.helpers.fake_models import nearest, picture
from tests.upscale.test_exact import MODELS


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


def scarce(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool]) -> list[int]:
    """Main memory runs out in those calls of `Arrival.wait`; counts all of them."""
    wait, calls = Arrival.wait, []

    def failing(self: Arrival) -> torch.Tensor:
        calls.append(len(calls))
        if fails(calls[-1]):
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 12 B")
        return wait(self)

    monkeypatch.setattr(Arrival, "wait", failing)
    monkeypatch.setattr(pipeline, "WAITS", (0.0, 0.0))
    return calls


@pytest.mark.parametrize("name", ["tiles", *MODELS])
def test_a_brief_shortage_beside_the_network_costs_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, image = (nearest(2) if name == "tiles" else MODELS[name]()), picture(80, 90)
    with monkeypatch.context() as patch:
        calls = scarce(patch, lambda call: False)
        expected = upscale_image(model, image, tile=32 if name == "tiles" else None)
        count = len(calls)
    for number in {0, count // 2, count - 1}:
        with monkeypatch.context() as patch:
            calls = scarce(patch, lambda call, n=number: call == n)
            result = upscale_image(model, image, tile=32 if name == "tiles" else None)
        assert torch.equal(result, expected) and len(calls) > count


@pytest.mark.parametrize("name", ["tiles", *MODELS])
def test_a_lasting_shortage_beside_the_network_says_what_to_do(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nearest(2) if name == "tiles" else MODELS[name]()
    scarce(monkeypatch, lambda call: True)
    with pytest.raises(OutOfMemoryError, match="close other programs"):
        upscale_image(model, picture(80, 90))


@pytest.mark.parametrize("name", ["tiles", *MODELS])
@pytest.mark.parametrize("error", [MemoryError("mine"), OutOfMemoryError("out of memory, mine")])
@pytest.mark.every(5)
def test_what_a_callback_raises_is_not_taken_for_a_shortage(name: str, error: Exception) -> None:
    model = nearest(2) if name == "tiles" else MODELS[name]()
    calls = []

    def progress(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 2:
            raise error

    with pytest.raises(type(error), match="mine"):
        options = {"tile": 32, "batch": 1} if name == "tiles" else {}
        upscale_image(model, picture(80, 90), progress=progress, **options)
    assert len(calls) == 2
