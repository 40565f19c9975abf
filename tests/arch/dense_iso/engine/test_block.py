"""Blocks with packed weights give what the plain blocks give."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fdat_dense_iso.arch.kernels.onednn import has_internal_operators
from tests.helpers.dense_iso_heads import pair


@pytest.mark.parametrize(("internal", "intel"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-5)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gated_half": "first", "layer_scale": True},
        {"projection": False, "projection_bias": False, "qkv_bias": False},
        {"g_proj_bias": False, "path_bias": False, "out_proj_bias": False},
    ],
)
@pytest.mark.every(5)
def test_blocks_packed_for_onednn(
    changes: dict,
    dtype: torch.dtype,
    tolerance: float,
    internal: bool,
    intel: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against the plain blocks in float64; ``internal`` False: by public operators alone."""
    monkeypatch.setattr("fdat_dense_iso.arch.kernels.attention.is_intel", lambda: intel)
    plain, engine = pair("linear", **changes)
    x = torch.randn(2, 16, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stage = engine.to(dtype).stages[0]
    with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=internal):
        if internal and not has_internal_operators(dtype, x.device):
            pytest.skip("this build of torch, or this processor, has no oneDNN for it")
        expected = plain.run_stage(plain.stages[0], x)
        out = engine.run_stage(stage, x.to(dtype))
    assert out.dtype == dtype and len(engine.prepare().blocks) == int(internal)
    assert float((out - expected).abs().max() / expected.abs().max()) <= tolerance


@pytest.mark.parametrize(
    "change",
    [
        "wrapped layer",
        "hook",
        "fused optimiser",
        "autocast",
        pytest.param("compiled", marks=pytest.mark.slow),
    ],
)
def test_what_packed_blocks_must_not_miss(change: str) -> None:
    plain, engine = (network.float() for network in pair("linear"))
    image, called = torch.rand(1, 3, 16, 16), []
    with torch.no_grad():
        engine(image)
    networks: list[nn.Module] = [plain, engine]
    for network in (plain, engine):
        attention = network.stages[0].blocks[0].attention
        if change == "wrapped layer":
            attention.qkv = nn.Sequential(attention.qkv, nn.Softsign())
        elif change == "hook":
            attention.register_forward_hook(lambda *_: called.append(1))
        elif change == "fused optimiser":
            optimizer = torch.optim.SGD(network.train().parameters(), 0.5, fused=True)
            network(image).square().mean().backward()
            optimizer.step()
            network.eval()
    if change == "compiled":
        networks = [plain, torch.compile(engine, backend="eager")]  # type: ignore[list-item]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=change == "autocast"):
        expected, out = (network(image) for network in networks)
    tolerance = 0.03 if change == "autocast" else 1e-5
    assert (out - expected).abs().max() <= tolerance * expected.abs().max().clamp(1)
    assert len(called) == (2 if change == "hook" else 0)
