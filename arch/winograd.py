"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3).

For m outputs y of a kernel g over m + 2 inputs d, in one dimension (Winograd 1980; Lavin and Gray, CVPR 2016)

    y = A^T [(G g) * (B^T d)]

in two dimensions the same along rows and columns, and summed over input channels between the brackets and A^T: one
matrix product for each of the (m + 2)^2 places. The transforms are Kronecker products applied as matrix products, too.

The points at which the polynomials are evaluated decide the rounding. With 0, +-3/4, +-3/2 and infinity a float32
result is within twice the error (RMS) of the direct convolution; with the customary 0, +-1, +-2 it is four times.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 4  # m: outputs along each side of a tile
TAPS = 3
PLACES = TILE + TAPS - 1
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
LEAST_CHANNELS = 64  # below, the transforms cost more than the products save
TOKENS = 2**11
"""Outputs computed at a time, so that what lies between the transforms stays in a CPU's cache."""


def _evaluation(terms: int) -> Tensor:
    """Values of the powers 0 .. terms - 1 at the points, and at infinity: (PLACES, terms)."""
    powers = torch.tensor(POINTS, dtype=torch.float64)[:, None] ** torch.arange(terms)
    at_infinity = torch.zeros(1, terms, dtype=torch.float64)
    at_infinity[0, -1] = 1
    return torch.cat([powers, at_infinity])


@cache
def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """A^T (TILE, PLACES), G (PLACES, TAPS) and B^T (PLACES, PLACES) in float64, with rows of B^T at most 1."""
    kernel, data = _evaluation(TAPS), torch.linalg.inv(_evaluation(PLACES)).T
    size = data.abs().amax(1, keepdim=True)
    return _evaluation(TILE).T, kernel * size, data / size


@cache
def _transforms(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The transforms of data (PLACES**2, PLACES**2) and of results (TILE**2, PLACES**2) in both dimensions."""
    result, _, data = _matrices()
    return torch.kron(data, data).to(dtype), torch.kron(result, result).to(dtype)


def suits(weight: Tensor) -> bool:
    """Whether a convolution weight (O, C, 3, 3) is faster this way: on a CPU, in full precision, with many channels."""
    outputs, channels, *kernel = weight.shape
    exact = weight.dtype in (torch.float32, torch.float64)
    return weight.device.type == "cpu" and exact and kernel == [3, 3] and min(outputs, channels) >= LEAST_CHANNELS


def working_values(channels: int, outputs: int) -> int:
    """Numbers that `convolve` keeps at the worst moment, beside the image and the result."""
    values = max(2 * channels, channels + outputs, 2 * outputs)  # at each of the places of a tile
    return TOKENS // TILE**2 * PLACES**2 * values


def transform_weight(weight: Tensor) -> Tensor:
    """Convolution weight (O, C, 3, 3) -> (PLACES**2, C, O) for `convolve`."""
    _, kernel, _ = _matrices()
    kernel = kernel.to(weight.device)
    transformed = torch.einsum("ia,jb,ocab->ijco", kernel, kernel, weight.double())
    return transformed.flatten(0, 1).to(weight.dtype).contiguous()


def convolve(image: Tensor, transformed: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """3x3 convolution of (B, C, h, w) in channels-last memory.

    Args:
        image: the data.
        transformed: from `transform_weight`.
        padding: columns of zeros left and right, rows of zeros above and below, as `torch.nn.functional.pad` has them.

    Returns:
        (B, O, h + above + below - 2, w + left + right - 2), channels last.
    """
    left, right, above, below = padding
    height, width = image.shape[2] + above + below - 2, image.shape[3] + left + right - 2
    shape = image.shape[0], max(0, height), max(0, width), transformed.shape[2]
    result = image.new_empty(shape)
    down, across = -(-height // TILE), -(-width // TILE)
    step = max(1, TOKENS // (across * TILE**2))  # rows of tiles
    for rows, into in zip(image.permute(0, 2, 3, 1), result):  # (h, w, C) and (height, width, O)
        for tile in range(0, down, step) if width > 0 else ():
            start, stop = tile * TILE, min(height, (tile + step) * TILE)  # the padded rows start .. stop + 2 are seen
            needed = -(-(stop - start) // TILE) * TILE + TAPS - 1
            missing = max(0, above - start)
            seen = rows[max(0, start - above) : max(0, stop + TAPS - 1 - above)]
            sides = (0, 0, left, across * TILE + TAPS - 1 - left - rows.shape[1])
            padded = F.pad(seen, (*sides, missing, needed - missing - seen.shape[0]))
            into[start:stop] = _convolve_tiles(padded, transformed)[: stop - start, :width]
    return result.permute(0, 3, 1, 2)


def _convolve_tiles(rows: Tensor, transformed: Tensor) -> Tensor:
    """(down * TILE + 2, across * TILE + 2, C) -> (down * TILE, across * TILE, O)."""
    data_transform, result_transform = _transforms(rows.dtype)
    tiles = rows.unfold(0, PLACES, TILE).unfold(1, PLACES, TILE)  # (down, across, C, places, places)
    down, across, channels = tiles.shape[:3]
    tiles = tiles.permute(0, 1, 3, 4, 2).reshape(down * across, PLACES**2, channels)
    data = torch.matmul(data_transform, tiles)  # (tiles, places**2, C)
    del tiles
    products = torch.bmm(data.transpose(0, 1), transformed)  # (places**2, tiles, O)
    del data
    result = torch.matmul(result_transform, products.transpose(0, 1))  # (tiles, TILE**2, O)
    result = result.view(down, across, TILE, TILE, -1).transpose(1, 2)  # (down, TILE, across, TILE, O)
    return result.reshape(down * TILE, across * TILE, -1)
