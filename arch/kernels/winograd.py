"""3x3 convolutions with fewer multiplications: Winograd's F(m x m, 3 x 3).

For m outputs y of a kernel g over m + 2 inputs d, in one dimension (Winograd 1980; Lavin and Gray,
CVPR 2016)

    y = A^T [(G g) * (B^T d)]

In two dimensions the same is done along rows and columns. What is in brackets is summed over the
input channels before A^T is applied; that is one matrix product for each of the (m + 2)^2 places of
a tile. The transforms for both dimensions are Kronecker products of matrices, applied as matrix
products, too.

The points at which the polynomials are evaluated decide the rounding. In full precision m = 4 takes
a quarter of the multiplications, and with 0, +-3/4, +-3/2 and infinity a float32 result is within
twice the error (RMS) of the direct convolution; with the customary 0, +-1, +-2 it is four times. In
bfloat16 m = 2 with 0, +-1 and infinity takes four ninths, at three times the error; m = 4 would
have eight times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .processor import has_matrix_unit

TAPS = 3
LEAST_CHANNELS = 64  # below, the transforms cost more than the products save
LEAST_PAIRS = {torch.bfloat16: 2**17}
"""Least product of input and output channels, by precision. Where products are fast, the transforms
are a larger share of the time, and they cost precision."""
TOKENS = 2**11
"""Outputs computed at a time, so that the data between the transforms stay in a CPU's cache."""


@dataclass(frozen=True)
class Algorithm:
    """F(tile x tile, TAPS x TAPS) with polynomials evaluated at ``points`` and at infinity."""

    tile: int  # m
    points: tuple[float, ...]

    @property
    def places(self) -> int:
        """Side of a tile of inputs: m + 2."""
        return self.tile + TAPS - 1

    def matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        """A^T (tile, places), G (places, TAPS) and B^T (places, places) in float64.

        Each row of B^T is scaled so that its largest entry is 1.
        """
        kernel, data = self._evaluation(TAPS), torch.linalg.inv(self._evaluation(self.places)).T
        size = data.abs().amax(1, keepdim=True)
        return self._evaluation(self.tile).T, kernel * size, data / size

    def _evaluation(self, terms: int) -> Tensor:
        """The powers 0 .. terms - 1 of the points and of infinity: (places, terms)."""
        powers = torch.tensor(self.points, dtype=torch.float64)[:, None] ** torch.arange(terms)
        at_infinity = torch.zeros(1, terms, dtype=torch.float64)
        at_infinity[0, -1] = 1
        return torch.cat([powers, at_infinity])


_PRECISE = Algorithm(4, (0.0, 0.75, -0.75, 1.5, -1.5))
ALGORITHMS = {
    torch.float64: _PRECISE,
    torch.float32: _PRECISE,
    torch.bfloat16: Algorithm(2, (0.0, 1.0, -1.0)),
}


@cache
def _transforms(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The two-dimensional transforms of data and of results.

    (places**2, places**2) and (tile**2, places**2)
    """
    result, _, data = ALGORITHMS[dtype].matrices()
    return torch.kron(data, data).to(dtype), torch.kron(result, result).to(dtype)


def suits(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> bool:
    """Whether `convolve` is faster than a direct convolution by a weight of ``shape`` (O, C, k, k).

    It is on a CPU, with many channels.
    """
    outputs, channels, *kernel = shape
    if dtype == torch.bfloat16 and has_matrix_unit():
        return False
    wide = min(outputs, channels) >= LEAST_CHANNELS and outputs * channels >= LEAST_PAIRS.get(
        dtype, 0
    )
    return wide and kernel == [TAPS, TAPS] and device.type == "cpu" and dtype in ALGORITHMS


def working_values(channels: int, outputs: int, dtype: torch.dtype) -> int:
    """Values that `convolve` keeps at the worst moment, beside the image and the result."""
    algorithm = ALGORITHMS[dtype]
    values = max(2 * channels, channels + outputs, 2 * outputs)  # at each of the places of a tile
    return TOKENS // algorithm.tile**2 * algorithm.places**2 * values


def transform_weight(weight: Tensor) -> Tensor:
    """Convolution weight (O, C, 3, 3) -> (places**2, C, O) for `convolve`."""
    _, kernel, _ = ALGORITHMS[weight.dtype].matrices()
    kernel = kernel.to(weight.device)
    transformed = torch.einsum("ia,jb,ocab->ijco", kernel, kernel, weight.double())
    return transformed.flatten(0, 1).to(weight.dtype).contiguous()


def convolve(
    image: Tensor,
    transformed: Tensor,
    padding: tuple[int, int, int, int],
    finish: Callable[[Tensor], Tensor] = lambda outputs: outputs,
    shuffle: int = 1,
) -> Tensor:
    """3x3 convolution of (B, C, h, w) in channels-last memory.

    Args:
        image: the data.
        transformed: from `transform_weight`.
        padding: columns of zeros left and right, rows of zeros above and below, as
            `torch.nn.functional.pad` has them.
        finish: what is done to outputs (..., O) while they are in the cache: bias, activation.
        shuffle: r, for a PixelShuffle of channels in the order (r, r, O / r**2).

    Returns:
        (B, O / r**2, (h + above + below - 2) * r, (w + left + right - 2) * r), channels last.
    """
    left, right, above, below = padding
    height, width = (
        max(0, image.shape[2] + above + below - 2),
        max(0, image.shape[3] + left + right - 2),
    )
    tile = ALGORITHMS[image.dtype].tile
    result = image.new_empty(
        image.shape[0], height * shuffle, width * shuffle, transformed.shape[2] // shuffle**2
    )
    down, across = -(-height // tile), -(-width // tile)
    step = max(1, TOKENS // max(1, across * tile**2))  # rows of tiles computed at a time
    together = max(1, step // max(1, down))  # images computed at a time
    # rows and into are (b, h, w, C)
    for rows, into in zip(image.permute(0, 2, 3, 1).split(together), result.split(together)):
        # split() gives one empty group for an empty batch
        for top in range(0, down, step) if into.numel() else ():
            # these outputs depend on the padded rows start .. stop + 2
            start, stop = (top * tile, min(height, (top + step) * tile))
            needed = -(-(stop - start) // tile) * tile + TAPS - 1
            missing = max(0, above - start)
            seen = rows[:, max(0, start - above) : max(0, stop + TAPS - 1 - above)]
            sides = (0, 0, left, across * tile + TAPS - 1 - left - rows.shape[2])
            padded = F.pad(seen, (*sides, missing, needed - missing - seen.shape[1]))
            outputs = finish(_convolve_tiles(padded, transformed))  # (b, down, across, tile**2, O)
            outputs = outputs.unflatten(4, (shuffle, shuffle, -1))
            for tiles, target in zip(outputs, into):
                _place(tiles, target[start * shuffle : stop * shuffle])
    return result.permute(0, 3, 1, 2)


def _convolve_tiles(rows: Tensor, transformed: Tensor) -> Tensor:
    """(B, down * tile + 2, across * tile + 2, C) -> (B, down, across, tile**2, O)."""
    algorithm = ALGORITHMS[rows.dtype]
    data_transform, result_transform = _transforms(rows.dtype)
    places, tile = algorithm.places**2, algorithm.tile**2
    tiles = rows.unfold(1, algorithm.places, algorithm.tile).unfold(
        2, algorithm.places, algorithm.tile
    )
    images, down, across, channels = tiles.shape[:4]  # of (B, down, across, C, places, places)
    shape = images, down, across
    if rows.dtype == torch.bfloat16:  # its batched products would copy transposed operands
        tiles = tiles.permute(4, 5, 0, 1, 2, 3).reshape(places, -1)
        data = torch.mm(data_transform, tiles).view(places, -1, channels)  # (places**2, tiles, C)
        del tiles
        products = torch.bmm(data, transformed)  # (places**2, tiles, O)
        del data
        return (
            torch.mm(result_transform, products.flatten(1))
            .view(tile, *shape, -1)
            .permute(1, 2, 3, 0, 4)
        )
    tiles = tiles.permute(0, 1, 2, 4, 5, 3).reshape(-1, places, channels)
    data = torch.matmul(data_transform, tiles)  # (tiles, places**2, C)
    del tiles
    products = torch.bmm(data.transpose(0, 1), transformed)  # (places**2, tiles, O)
    del data
    return torch.matmul(result_transform, products.transpose(0, 1)).view(*shape, tile, -1)


def _place(outputs: Tensor, into: Tensor) -> None:
    """Write tiles (down, across, tile**2, r, r, C), shuffled, into (height * r, width * r, C).

    What the last tiles have beyond that is left out.
    """
    tile, r = math.isqrt(outputs.shape[2]), outputs.shape[3]
    outputs = outputs.unflatten(2, (tile, tile)).permute(
        0, 2, 4, 1, 3, 5, 6
    )  # (down, tile, r, across, tile, r, C)
    (down, below), (across, beside) = (divmod(side // r, tile) for side in into.shape[:2])
    for vertical, rows, start in (
        (slice(0, down), tile, 0),
        (slice(down, None), below, down * tile * r),
    ):
        for horizontal, columns, left in (
            (slice(0, across), tile, 0),
            (slice(across, None), beside, across * tile * r),
        ):
            part = outputs[vertical, :rows, :, horizontal, :columns]
            if part.numel():
                height, width = part.shape[0] * rows * r, part.shape[3] * columns * r
                target = into[start : start + height, left : left + width]
                target.unflatten(1, (-1, columns, r)).unflatten(0, (-1, rows, r)).copy_(part)
