"""What is known of the processor, and what is assumed where torch can't tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from fdat_dense_iso.arch.kernels import processor


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    processor._capabilities.cache_clear()
    yield
    processor._capabilities.cache_clear()


def raises() -> dict[str, object]:
    raise RuntimeError("no CPUID here")


@pytest.mark.parametrize(
    ("answer", "matrix_unit", "intel"),
    [
        (lambda: {"cpu_name": "Intel Xeon", "amx_bf16": True}, True, True),
        (lambda: {"cpu_name": "Intel Core", "amx_bf16": False}, False, True),
        (lambda: {"cpu_name": "AMD EPYC"}, False, False),
        (raises, False, False),
        (None, False, False),  # as in older versions of torch
    ],
)
def test_processors(
    answer: Callable[[], dict] | None,
    matrix_unit: bool,
    intel: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if answer is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", answer, raising=False)
    assert (processor.has_matrix_unit(), processor.is_intel()) == (matrix_unit, intel)
