"""The two statistics that FDAT takes over the whole image, and the matrices made from them.

With n the normalised tokens (N, C) of a block:

Channel attention. Its logits are q^T k, normalised by the column norms of q = n Wq^T and k = n
Wk^T. There is no bias, so with the token Gram matrix S = n^T n (C, C)

    q^T k = Wq S Wk^T        |q_i|^2 = (Wq S Wq^T)_ii        |k_j|^2 = (Wk S Wk^T)_jj

and attention, values and projection are one linear map of the tokens: proj(A v) = n (Wp A Wv)^T +
bp. A block costs a Gram matrix and one C x C product per token; q, k and v are never computed.

S can't be summed in float32 directly: where the tokens share a large offset (mean / deviation =
100), rounding loses the deviation. So a pilot p, the mean of the first band, is subtracted from the
tokens before they are summed; folding.py makes the matrices of the sums.

AIM's channel gate. It is a function of the mean of gelu(depthwise(n)) over all tokens. It scales
the rows of the window attention's projection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from ...kernels.products import AddedProduct, Product
from .folding import channel_matrix, gated_projection
from .rows import Seam, gelu_depthwise_band
from .weights import ChannelWeights, SpatialWeights, residual_dtype


@dataclass(frozen=True)
class SpatialMap:
    """Window attention's projection with AIM's channel gate folded in, for one image."""

    projection: Product  # (C, P)


@dataclass(frozen=True)
class ChannelMap:
    """Channel attention of one image as a linear map of its tokens, and AIM's spatial gate.

    The gate is computed from the same tokens, as the sigmoid of another linear map.
    """

    attention: AddedProduct  # (C, C)
    gate_weight: Tensor  # (1, C)
    gate_bias: Tensor  # (1,)

    @classmethod
    def of(cls, matrix: Tensor, bias: Tensor) -> ChannelMap:
        """From both maps (C + 1, C) and their biases (C + 1,), the gate's below."""
        return cls(AddedProduct.of(matrix[:-1], bias[:-1]), matrix[-1:], bias[-1:])


class Statistic(ABC):
    """What a block needs to know of the whole image.

    The sweep over the block before collects it from the rows that it writes.
    """

    @abstractmethod
    def feed(self, rows: Tensor, last: bool) -> None:
        """Take the next rows (h, W, C) of the feature map."""

    @abstractmethod
    def result(self) -> SpatialMap | ChannelMap:
        """The small matrices of the block, once all rows have been fed."""


class GateStatistic(Statistic):
    """Sums gelu(depthwise(n)) over the image; gives a spatial block's `SpatialMap`."""

    def __init__(self, block: SpatialWeights) -> None:
        self.block = block
        self.seam = Seam()
        self.count = 0
        self.total = torch.zeros_like(block.projection_bias)  # (C,)

    def feed(self, rows: Tensor, last: bool) -> None:
        self.count += rows.shape[0] * rows.shape[1]
        for piece in self.seam.pieces(self.block.norm1(rows), last):
            mixed = gelu_depthwise_band(*piece, self.block.depthwise)
            self.total += mixed.sum((0, 1), dtype=residual_dtype(mixed.dtype))

    def result(self) -> SpatialMap:
        block, mean = self.block, self.total / self.count
        weight, bias = (
            block.rounded(gated_projection(mean, block.gate_down, block.gate_up, t))
            for t in (block.projection, block.projection_bias)
        )
        return SpatialMap(Product.of(weight, bias))


class GramStatistic(Statistic):
    """Sums n^T n over the image, less a pilot; gives a channel block's `ChannelMap`."""

    def __init__(self, block: ChannelWeights) -> None:
        self.block = block
        self.count = 0
        self.pilot: Tensor | None = None  # (C,): p, the mean of the first rows
        self.total = torch.zeros_like(block.query[0])  # (C,): 1^T d
        self.gram = torch.zeros_like(block.query)  # (C, C): d^T d

    def feed(self, rows: Tensor, last: bool) -> None:
        norm = self.block.norm1
        if self.pilot is None:
            self.pilot = norm.less(None)(rows).mean((0, 1))
        tokens = norm.less(self.pilot)(rows).flatten(0, 1)  # (N, C): d, in the residual's precision
        self.gram += tokens.T @ tokens
        self.total += tokens.sum(0)
        self.count += tokens.shape[0]

    def result(self) -> ChannelMap:
        block = self.block
        assert self.pilot is not None, "rows come before the result"
        matrix = channel_matrix(
            torch.cat([self.gram, self.total[None]]),
            self.pilot.to(self.gram.dtype),
            self.count,
            *(block.query, block.key, block.value, block.temperature, block.outputs),
        )
        return ChannelMap.of(block.rounded(matrix), block.outputs_bias)


class NoStatistic(Statistic):
    """For sweeps that no block follows but a convolution, which needs no statistic."""

    def feed(self, rows: Tensor, last: bool) -> None: ...

    def result(self) -> NoReturn:
        raise AssertionError("no block follows")


def statistic_of(block: SpatialWeights | ChannelWeights | None) -> Statistic:
    """A new statistic for a block; for None, where no block follows, one that does nothing."""
    if block is None:
        return NoStatistic()
    return GateStatistic(block) if isinstance(block, SpatialWeights) else GramStatistic(block)
