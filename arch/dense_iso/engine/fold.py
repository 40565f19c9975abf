"""The linear end of Dense-Iso-ViT's head as one convolution, exact up to the borders.

Convolution and PixelShuffle are linear. Where no activation lies between them, the layers from some
point on are one linear map from the grid at that point to the pixels. Away from the borders it is
the same for every cell of the grid, so it is a convolution. It is composed from the last layer on:

    pixels <- K on the grid 2n <- PixelShuffle(2) <- W (3x3) on the grid n      K' = K . shuffle . W: 5x5 on grid n

At a border the layers pad their inputs with zeros, which the composed kernel would not. With
kernels up to 3x3 that concerns only the outermost cells, so K has three variants along each axis:
first cell, inner cells, last cell. They differ by one rule, in `_before_shuffle`: taps that would
read beyond the border are left out.

Where the grid is small and each of its cells has many outputs, the kernel is larger than the data,
and a convolution would spend most of its time on converting the kernel to its own layout. Such a
convolution is computed as a product of patches with a weight that is packed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.onednn import has_internal_operators
from ...kernels.products import Product
from ..config import RGB, HeadLayer

RADIUS = 2  # of the composed kernels
SIDE = 2 * RADIUS + 1
FIRST, INNER, LAST = range(3)
# for each variant, the taps of the kernel that can lie inside the image
TAPS_INSIDE = ((RADIUS, SIDE), (0, SIDE), (0, RADIUS + 1))

MANY_OUTPUTS = 128
"""Outputs per cell from which on patches are worth their memory, `SIDE` ** 2 times that of the
cells."""

Span = tuple[int, int]  # first cell and one past the last
Variants = list[list[Tensor]]  # 3 x 3: first, inner and last row by first, inner and last column


@dataclass(frozen=True)
class FoldedHead:
    """The layers from ``start`` on as one convolution with PixelShuffle.

    Attributes:
        start: index of the first layer that is folded.
        side: cells along one side of its grid, at least 3.
        factor: output pixels per cell and axis.
        kernels: (RGB * factor**2, C, rows, columns) without the taps beyond a border.
        biases: (RGB * factor**2,).
        products: the same as products of patches (cells, rows * columns * C) if that is faster,
            else empty.
    """

    start: int
    side: int
    factor: int
    kernels: Variants
    biases: Variants
    products: list[list[Product]]

    def __call__(self, x: Tensor, covered: tuple[Span, Span], wanted: tuple[Span, Span]) -> Tensor:
        """The output of some cells.

        Args:
            x: (B, C, rows, columns), the grid or a part of it.
            covered: rows and columns of the grid that ``x`` holds; they include all cells within 2
                cells of the wanted ones.
            wanted: rows and columns of the cells whose output is wanted.

        Returns:
            (B, 3, wanted rows * factor, wanted columns * factor)
        """
        (top, bottom), (left, right) = wanted
        out = x.new_empty(x.shape[0], RGB * self.factor**2, bottom - top, right - left)
        for v, rows in self._bands(wanted[0]):
            for h, columns in self._bands(wanted[1]):
                region = out[
                    :, :, rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left
                ]
                region.copy_(self._cells(x, covered, (v, h), (rows, columns)))
        return F.pixel_shuffle(out, self.factor)

    def _bands(self, wanted: Span) -> list[tuple[int, Span]]:
        """The wanted cells, divided by variant."""
        bands = ((FIRST, (0, 1)), (INNER, (1, self.side - 1)), (LAST, (self.side - 1, self.side)))
        cut = [
            (variant, (max(span[0], wanted[0]), min(span[1], wanted[1]))) for variant, span in bands
        ]
        return [(variant, span) for variant, span in cut if span[0] < span[1]]

    def _cells(
        self, x: Tensor, covered: tuple[Span, Span], variant: Span, wanted: tuple[Span, Span]
    ) -> Tensor:
        """Cells that are all of one variant, before the shuffle."""
        slices, padding = [], []
        for axis in range(2):
            taps = TAPS_INSIDE[variant[axis]]
            first, stop = wanted[axis][0] + taps[0] - RADIUS, wanted[axis][1] + taps[1] - RADIUS - 1
            inside = max(0, first), min(self.side, stop)
            slices.append(slice(inside[0] - covered[axis][0], inside[1] - covered[axis][0]))
            padding = [inside[0] - first, stop - inside[1], *padding]
        patch = F.pad(x[:, :, slices[0], slices[1]], padding)
        kernel = self.kernels[variant[0]][variant[1]]
        if self._by_products(x.dtype, x.device):
            return _multiply_patches(patch, kernel.shape[2:], self.products[variant[0]][variant[1]])
        return F.conv2d(patch, kernel, self.biases[variant[0]][variant[1]])

    def _by_products(self, dtype: torch.dtype, device: torch.device) -> bool:
        return bool(self.products) and has_internal_operators(dtype, device)


def _multiply_patches(x: Tensor, taps: Sequence[int], product: Product) -> Tensor:
    """A convolution as a product of the pixels under the kernel: (B, C, h, w) -> (B, O, h', w')."""
    patches = (
        x.permute(0, 2, 3, 1).unfold(1, taps[0], 1).unfold(2, taps[1], 1)
    )  # (B, h', w', C, rows, columns)
    return product(patches.permute(0, 1, 2, 4, 5, 3).flatten(3)).permute(0, 3, 1, 2)


def fold_head(
    convolutions: Sequence[nn.Conv2d], layers: Sequence[HeadLayer], grid: int
) -> FoldedHead | None:
    """Fold the end of the head that saves the most work; None if folding saves nothing.

    Args:
        convolutions: those of the head, in order.
        layers: the configuration of each.
        grid: side of the token grid on which the head starts.
    """
    sides = [
        grid * math.prod(layer.shuffle for layer in layers[:i]) for i in range(len(layers) + 1)
    ]

    def cost(start: int) -> int:
        plain = sum(
            sides[i] ** 2 * convolutions[i].in_channels * layers[i].channels * layers[i].kernel ** 2
            for i in range(start)
        )
        if start == len(layers):
            return plain
        return plain + sides[-1] ** 2 * convolutions[start].in_channels * RGB * SIDE**2

    start = min((*_foldable(layers, sides), len(layers)), key=cost)
    if start == len(layers):
        return None
    with torch.no_grad():
        kernels, biases = _compose(convolutions[start:], layers[start:])
    dtype = convolutions[start].weight.dtype
    biases = [[bias.to(dtype) for bias in row] for row in biases]
    layout = torch.channels_last  # as the tokens; else every call would convert the kernel
    trimmed = [
        [
            kernels[v][h][:, :, slice(*TAPS_INSIDE[v]), slice(*TAPS_INSIDE[h])]
            .to(dtype)
            .contiguous(memory_format=layout)
            for h in range(3)
        ]
        for v in range(3)
    ]
    factor = sides[-1] // sides[start]
    products = []
    if RGB * factor**2 >= MANY_OUTPUTS and has_internal_operators(
        dtype, convolutions[start].weight.device
    ):
        products = [
            [Product.of(k.permute(0, 2, 3, 1).flatten(1), b) for k, b in zip(*rows)]
            for rows in zip(trimmed, biases)
        ]
    return FoldedHead(start, sides[start], factor, trimmed, biases, products)


def _foldable(layers: Sequence[HeadLayer], sides: Sequence[int]) -> list[int]:
    """Indices of layers from which on the head is linear and composes to a kernel of 5x5.

    From there on every layer but the last must have a PixelShuffle.
    """
    starts = []
    last = layers[-1]
    if last.kernel <= 3 and last.activation == "none":
        for start in range(len(layers) - 2, -1, -1):
            layer = layers[start]
            if (
                layer.activation != "none"
                or layer.shuffle < 2
                or layer.kernel > 3
                or sides[start] < 3
            ):
                break
            starts.append(start)
    return starts


def _compose(
    convolutions: Sequence[nn.Conv2d], layers: Sequence[HeadLayer]
) -> tuple[Variants, Variants]:
    """Compose all ``layers`` to one convolution before a PixelShuffle(factor).

    Returns:
        Kernels (RGB * factor**2, C, SIDE, SIDE) and biases (RGB * factor**2,), by variant.
    """
    first = convolutions[0].weight
    dtype = torch.promote_types(first.dtype, torch.float32)  # rounded to half precision at the end
    identity = torch.eye(RGB, dtype=dtype, device=first.device)[:, :, None, None]
    kernels = [[identity] * 3 for _ in range(3)]
    biases = [[first.new_zeros(RGB, dtype=dtype)] * 3 for _ in range(3)]
    for convolution, layer in zip(reversed(convolutions), reversed(layers)):
        behind = kernels, biases
        kernels, biases = [[], [], []], [[], [], []]
        for v in range(3):
            for h in range(3):
                kernel, bias = behind[0][v][h], behind[1][v][h]
                if layer.shuffle > 1:
                    kernel, bias = _before_shuffle(*behind, (v, h), layer.shuffle)
                kernels[v].append(_before_convolution(kernel, convolution.weight.to(dtype)))
                if convolution.bias is not None:
                    bias = bias + kernel.sum((2, 3)) @ convolution.bias.to(dtype)
                biases[v].append(bias)
    return kernels, biases


def _before_shuffle(
    kernels: Variants, biases: Variants, variant: Span, r: int
) -> tuple[Tensor, Tensor]:
    """Move a convolution from behind a PixelShuffle(r) to before it, for a cell of ``variant``.

    Kernels (RGB * f**2, c, s, s) -> (RGB * (r * f)**2, c * r**2, 3, 3): a cell before the shuffle
    holds r x r cells behind it. In a first cell the first of the r rows is of the variant first,
    and
    the others are inner rows; nothing lies before it, so taps there are left out. The last cell
    likewise.
    """
    outputs, inputs, side = kernels[INNER][INNER].shape[:3]
    f, radius = math.isqrt(outputs // RGB), side // 2
    front = kernels[INNER][INNER].new_zeros(RGB, r, f, r, f, inputs, r, r, 3, 3)
    bias = front.new_zeros(RGB, r, f, r, f)
    steps = [
        [
            (place, _variant_behind(v, place, r), tap, *divmod(place + tap, r))
            for place in range(r)
            for tap in range(-radius, radius + 1)
            if _exists(v, (place + tap) // r)
        ]
        for v in variant
    ]
    for a, v, i, y, phase_y in steps[0]:
        for b, h, j, x, phase_x in steps[1]:
            taps = kernels[v][h][:, :, i + radius, j + radius].unflatten(0, (RGB, f, f))
            front[:, a, :, b, :, :, phase_y, phase_x, y + 1, x + 1] += taps
            bias[:, a, :, b] = biases[v][h].unflatten(0, (RGB, f, f))
    return front.flatten(5, 7).flatten(0, 4), bias.flatten()


def _variant_behind(variant: int, place: int, r: int) -> int:
    """The variant of cell ``place`` among the r cells that a cell of ``variant`` holds."""
    if variant == FIRST and place == 0:
        return FIRST
    return LAST if variant == LAST and place == r - 1 else INNER


def _exists(variant: int, offset: int) -> bool:
    """Whether a cell of ``variant`` has a neighbour at ``offset``."""
    return not (variant == FIRST and offset < 0) and not (variant == LAST and offset > 0)


def _before_convolution(kernel: Tensor, weight: Tensor) -> Tensor:
    """Compose a convolution (m, c, k, k) with a kernel (o, m, s, s) after it.

    Returns (o, c, SIDE, SIDE).
    """
    side, k = kernel.shape[-1], weight.shape[-1]
    margin = (SIDE - (side + k - 1)) // 2
    products = torch.einsum("omyx,mcuv->yxocuv", kernel, weight)
    composed = kernel.new_zeros(kernel.shape[0], weight.shape[1], SIDE, SIDE)
    for y in range(side):
        for x in range(side):
            composed[:, :, margin + y : margin + y + k, margin + x : margin + x + k] += products[
                y, x
            ]
    return composed
