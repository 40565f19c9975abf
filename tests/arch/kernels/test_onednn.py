"""Internal operators of torch are used where they are as they were, and done without elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from fdat_dense_iso.arch.kernels import onednn
from fdat_dense_iso.arch.kernels.products import AddedProduct, Product

CPU = torch.device("cpu")
CHANGED = (
    None,  # gone
    "mkldnn::_linear_pointwise(Tensor X, Tensor W, str attr, Tensor? B, Scalar?[] scalars, str? algorithm) -> Tensor",
    "mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm, int more) "
    "-> Tensor",
    "mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars) -> Tensor",
)
GROWN = (
    "mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm, int more=0) "
    "-> Tensor"
)


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    onednn._computes.cache_clear()
    yield
    onednn._computes.cache_clear()


def change(monkeypatch: pytest.MonkeyPatch, schema: str | None) -> None:
    """Another version's operator, which fails when it is called."""
    named = (
        {}
        if schema is None
        else {"default": SimpleNamespace(_schema=torch._C.parse_schema(schema))}
    )
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", SimpleNamespace(**named))


@pytest.mark.parametrize("schema", CHANGED)
def test_operators_with_other_arguments_are_not_called(
    monkeypatch: pytest.MonkeyPatch, schema: str | None
) -> None:
    change(monkeypatch, schema)
    assert not onednn.has_internal_operators(torch.float32, CPU)
    x, weight, bias = torch.randn(6, 8), torch.randn(4, 8), torch.randn(4)
    expected = x.double() @ weight.double().T + bias
    assert (Product.of(weight, bias)(x) - expected).abs().max() < 1e-5
    rows = torch.zeros(2, 3, 4)
    AddedProduct.of(weight, bias)(rows, x.view(2, 3, 8))
    assert (rows.view(6, 4) - expected).abs().max() < 1e-5


def test_arguments_with_defaults_may_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    if not onednn.has_internal_operators(torch.float32, CPU):
        pytest.skip("this torch has no oneDNN")
    onednn._computes.cache_clear()
    change(monkeypatch, GROWN)
    assert onednn.has_internal_operators(torch.float32, CPU)
