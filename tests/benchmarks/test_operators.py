"""The benchmark of the operators: its estimate of rounding, against the convolution itself."""

from __future__ import annotations

import pytest
import torch

from benchmarks.operators import amplification, rounding
from fdat_dense_iso.arch.kernels.winograd import ALGORITHMS, Algorithm


@pytest.mark.parametrize(
    "points",
    [(0.0, 1.0, -1.0), (0.0, 0.75, -0.75, 1.5, -1.5), (0.0, 1.0, -1.0, 2.0, -2.0)],
    ids=str,
)
def test_growth_is_that_of_noise_in_the_products(points: tuple[float, ...]) -> None:
    """Every product of random tiles gets noise of one part of its size; the outputs' noise is
    measured."""
    algorithm = Algorithm(len(points) - 1, points)
    result, kernel, data = algorithm.matrices()
    noise, white, kernels = (
        torch.randn(20000, n, n, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        for i, n in enumerate((algorithm.places, algorithm.places, 3))
    )
    products = (kernel @ kernels @ kernel.T) * (data @ white @ data.T)
    outputs = result @ (products * noise) @ result.T  # (., tile, tile)
    assert float(outputs.square().mean().sqrt()) / 3 == pytest.approx(
        amplification(algorithm), rel=0.05
    )


def test_rounding_of_float32_is_known() -> None:
    torch.manual_seed(0)
    assert torch.float32 in ALGORITHMS and 1 < rounding(torch.float32, channels=64) < 4
