"""The linear end of the head as one convolution: exact up to the borders."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fdat_dense_iso.arch.dense_iso.config import (
    ACTIVATIONS,
)
from fdat_dense_iso.arch.dense_iso.engine.fold import fold_head
from fdat_dense_iso.arch.kernels.onednn import has_internal_operators
from tests.helpers.dense_iso_heads import HEADS, pair, random_
from tests.helpers.sampling import sampled

FOLDED = [name for name, (_, start) in HEADS.items() if start is not None]


@pytest.mark.parametrize(
    ("head", "grid"),
    sampled(
        [(name, grid) for name in FOLDED for grid in (3, 4, 9)],
        lambda case: case[1] == 3 or case == (FOLDED[0], 9),
    ),
)
@pytest.mark.every(2)
def test_folded_head_is_exact_up_to_the_borders(head: str, grid: int) -> None:
    chosen, start = HEADS[head]
    channels, convolutions = 20, []
    for layer in chosen:
        convolutions.append(
            nn.Conv2d(
                channels, layer.channels, layer.kernel, padding=layer.kernel // 2, bias=layer.bias
            )
        )
        channels = layer.channels // layer.shuffle**2
    random_(nn.ModuleList(convolutions)).double()
    folded = fold_head(convolutions, chosen, grid)
    assert folded is not None and folded.start == start
    x = torch.randn(2, 20, grid, grid, dtype=torch.float64)
    entered = x
    with torch.no_grad():
        for i, (convolution, layer) in enumerate(zip(convolutions, chosen)):
            entered = x if i == start else entered
            x = ACTIVATIONS[layer.activation](F.pixel_shuffle(convolution(x), layer.shuffle))
        side = entered.shape[-1]
        out = folded(entered, ((0, side), (0, side)), ((0, side), (0, side)))
    assert folded.factor * side == x.shape[-1]
    assert float((out - x).abs().max()) <= 1e-10


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_folded_heads_by_products_of_patches(
    dtype: torch.dtype, tolerance: float, internal: bool
) -> None:
    """``internal`` False: by convolutions."""
    plain, engine = pair("linear")
    image = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=internal):
        if internal and not has_internal_operators(dtype, image.device):
            pytest.skip("this build of torch, or this processor, has no oneDNN for it")
        expected, out = plain(image), engine.to(dtype)(image.to(dtype))
        folded = engine.prepare().folded
    assert folded is not None and bool(folded.products) == internal
    assert float((out - expected).pow(2).mean().sqrt() / expected.std()) <= tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-10)])
def test_half_precision_of_the_folded_head(dtype: torch.dtype, tolerance: float) -> None:
    plain, engine = pair("linear")
    image = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        expected = plain.float()(image)
        out = engine.to(dtype)(image.to(dtype))
    assert out.dtype == dtype
    assert float((out.float() - expected).abs().mean() / expected.abs().mean()) < 4 * tolerance
