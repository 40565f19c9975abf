"""Winograd convolution and the operators with fused GELU, against PyTorch's in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fdat_dense_iso.arch.fdat.engine.rows import (
    Seam,
    as_image,
    as_rows,
    convolve_band,
    gelu_depthwise_band,
)
from fdat_dense_iso.arch.fdat.engine.weights import Convolution
from fdat_dense_iso.arch.kernels import winograd
from fdat_dense_iso.arch.kernels.onednn import has_internal_operators
from fdat_dense_iso.arch.kernels.products import Product

CPU = torch.device("cpu")


def rows_of(height: int, width: int, channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(
        height, width, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def expected(
    rows: torch.Tensor, weight: torch.Tensor, above: int, below: int, groups: int = 1
) -> torch.Tensor:
    padded = F.pad(as_image(rows), (1, 1, above, below))
    return as_rows(F.conv2d(padded, weight, groups=groups))


@pytest.mark.parametrize(
    "size", [(3, 3), (3, 4), (5, 7), (6, 8), (18, 33), (40, 70), (2, 300), (600, 5)], ids=str
)
@pytest.mark.parametrize(
    "padding", [(1, 1, 0, 0), (1, 1, 1, 0), (0, 1, 0, 1), (1, 0, 1, 1), (0, 0, 0, 0)], ids=str
)
def test_winograd_is_the_convolution(
    size: tuple[int, int], padding: tuple[int, int, int, int]
) -> None:
    image, weight = (
        as_image(rows_of(*size, 2 * 64)),
        rows_of(1, 1, 80 * 64 * 9).view(80, 64, 3, 3) / 24,
    )
    image = image.view(2, 64, *size).contiguous(memory_format=torch.channels_last)
    if size[0] + sum(padding[2:]) < 3:
        pytest.skip("no output row")
    wanted = F.conv2d(F.pad(image, padding), weight)
    got = winograd.convolve(image, winograd.transform_weight(weight), padding)
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() <= 1e-12


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 0.1)]
)
@pytest.mark.parametrize("size", [(3, 3), (7, 9), (20, 61)], ids=str)
@pytest.mark.parametrize("shuffle", [1, 2, 3])
def test_winograd_finishes_and_shuffles(
    size: tuple[int, int], shuffle: int, dtype: torch.dtype, tolerance: float
) -> None:
    image, weight = as_image(rows_of(*size, 64)), rows_of(1, 1, 72 * 64 * 9).view(72, 64, 3, 3) / 24
    bias = rows_of(1, 1, 72).flatten()
    ordered = weight.unflatten(0, (-1, shuffle**2)).transpose(0, 1).flatten(0, 1)
    in_order = bias.unflatten(0, (-1, shuffle**2)).transpose(0, 1).flatten(0, 1).to(dtype)
    wanted = F.pixel_shuffle(F.gelu(F.conv2d(image, weight, bias, padding=1)), shuffle)
    transformed = winograd.transform_weight(ordered.to(dtype))
    got = winograd.convolve(
        image.to(dtype), transformed, (1, 1, 1, 1), lambda x: F.gelu(x.add_(in_order)), shuffle
    )
    assert got.dtype == dtype and got.shape == wanted.shape
    assert (got - wanted).abs().max() <= tolerance


@pytest.mark.parametrize("tokens", [1, 100, 700, 5000])
def test_winograd_takes_small_images_together(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "TOKENS", tokens)
    image = rows_of(5 * 16, 18, 64).view(5, 16, 18, 64).permute(0, 3, 1, 2)
    weight = rows_of(72, 64, 9).view(72, 64, 3, 3)
    got = winograd.convolve(image, winograd.transform_weight(weight), (1, 0, 0, 1))
    assert (got - F.conv2d(F.pad(image, (1, 0, 0, 1)), weight)).abs().max() <= 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_winograd_of_an_empty_batch_is_empty(dtype: torch.dtype) -> None:
    transformed = winograd.transform_weight(torch.ones(64, 64, 3, 3, dtype=dtype))
    assert winograd.convolve(
        torch.ones(0, 64, 8, 9, dtype=dtype), transformed, (1, 1, 1, 1)
    ).shape == (0, 64, 8, 9)


def test_winograd_of_too_few_rows_is_empty() -> None:
    transformed = winograd.transform_weight(torch.ones(64, 64, 3, 3))
    assert winograd.convolve(torch.ones(1, 64, 1, 9), transformed, (1, 1, 1, 0)).shape == (
        1,
        64,
        0,
        9,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [96, 180])
def test_rounding_of_winograd(channels: int, dtype: torch.dtype) -> None:
    """The file promises two (float32) and three times (bfloat16) the error (RMS) of the direct
    convolution."""
    rows = rows_of(34, 64, channels).to(dtype)
    weight = (rows_of(1, 1, channels**2 * 9).view(channels, channels, 3, 3) / channels**0.5 / 3).to(
        dtype
    )
    wanted = expected(rows.double(), weight.double(), 0, 0)
    direct = expected(rows, weight, 0, 0) - wanted
    transformed = (
        as_rows(winograd.convolve(as_image(rows), winograd.transform_weight(weight), (1, 1, 0, 0)))
        - wanted
    )
    error, limit = transformed.pow(2).mean().sqrt(), direct.pow(2).mean().sqrt()
    assert error <= 4 * limit
    if dtype == torch.float32:
        assert error <= 1.5e-6 and transformed.abs().max() <= 3e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("outputs", [3, 64])
def test_convolutions_choose_for_themselves(dtype: torch.dtype, outputs: int) -> None:
    rows, weight, bias = (
        rows_of(12, 9, 64),
        rows_of(1, 1, outputs * 576).view(outputs, 64, 3, 3) / 24,
        rows_of(1, 1, outputs),
    )
    convolution = Convolution.of(weight.to(dtype), bias.flatten().to(dtype))
    assert (convolution.transformed is not None) == (outputs == 64 and dtype == torch.float32)
    wanted = expected(rows, weight, 1, 0) + bias
    got = convolution(rows.to(dtype), True, False)
    assert (got - wanted).abs().max() <= (1e-5 if dtype == torch.float32 else 0.1)


@pytest.mark.parametrize("matrix_unit", [True, False])
def test_half_precision_transforms_only_wide_convolutions(
    matrix_unit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "has_matrix_unit", lambda: matrix_unit)
    assert winograd.suits((768, 192, 3, 3), torch.bfloat16, CPU) == (not matrix_unit)
    assert not winograd.suits((192, 192, 3, 3), torch.bfloat16, CPU)
    assert winograd.suits((192, 192, 3, 3), torch.float32, CPU)


@pytest.mark.parametrize("internal", [True, False])
def test_internal_operators_and_their_public_fallback(internal: bool) -> None:
    rows, weight = rows_of(6, 11, 24), rows_of(1, 1, 24 * 40).view(40, 24)
    kernel, bias = (
        rows_of(1, 1, 24 * 9, seed=1).view(24, 1, 3, 3),
        rows_of(1, 1, 40, seed=2).flatten(),
    )
    with torch.backends.mkldnn.flags(enabled=internal):
        if internal and not has_internal_operators(torch.float32, CPU):
            pytest.skip("this build of torch has no oneDNN")
        assert has_internal_operators(
            torch.float32, CPU
        ) == internal and not has_internal_operators(rows.dtype, CPU)
        product = Product.of(weight.float(), bias.float())
        assert (product.packed is not None) == internal
        plain, with_gelu = product(rows.float()), product.gelu(rows.float())
        mixed = {
            (top, bottom): gelu_depthwise_band(rows.float(), top, bottom, kernel.float())
            for top in (True, False)
            for bottom in (True, False)
        }
    assert (plain - (rows @ weight.T + bias)).abs().max() <= 2e-5
    assert (with_gelu - F.gelu(rows @ weight.T + bias)).abs().max() <= 2e-5
    for (top, bottom), got in mixed.items():
        wanted = F.gelu(expected(rows, kernel, int(top), int(bottom), groups=24))
        assert got.shape == wanted.shape and (got - wanted).abs().max() <= 1e-5


@pytest.mark.parametrize(
    "heights", [(1,), (1, 1), (1, 1, 1), (1, 2), (2, 1, 3), (5, 4), (3, 0), (4, 1, 0), (8, 8, 8)]
)
def test_seams_have_no_gap(heights: tuple[int, ...]) -> None:
    rows, kernel = rows_of(sum(heights), 7, 5), rows_of(1, 1, 4 * 5 * 9, seed=1).view(4, 5, 3, 3)
    seam, parts, at = Seam(), [], 0
    for index, height in enumerate(heights):
        last = index == len(heights) - 1
        parts += [
            convolve_band(*piece, kernel) for piece in seam.pieces(rows[at : at + height], last)
        ]
        at += height
    assert (torch.cat(parts) - expected(rows, kernel, 1, 1)).abs().max() <= 1e-12
