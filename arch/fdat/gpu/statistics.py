"""The whole-image statistics of engine/statistics.py, summed and folded by the fused operators.

Here rows come with those before them, because they lie in a map: nothing is kept in between. Sums
of all bands gather in parts, one per program of a kernel, which are added up when they are folded.
"""

from __future__ import annotations

from torch import Tensor

from ...kernels.products import Product
from ..engine.statistics import ChannelMap, NoStatistic, SpatialMap
from ..engine.weights import ChannelWeights, SpatialWeights
from . import operators
from .launch import parts_of


class GateSum:
    """Sums gelu(depthwise(n)) over the image; gives a spatial block's `SpatialMap`."""

    def __init__(self, block: SpatialWeights) -> None:
        self.block = block
        self.count = 0
        self.parts: Tensor | None = None

    def take(self, rows: Tensor, first: int, start: int, stop: int, last: bool) -> None:
        """Take rows [start, stop) of the map; ``rows`` are [first, stop).

        The last row waits for the one below it. ``first`` is at most start - 2, or 0.
        """
        start, end = max(0, start - 1), stop if last else stop - 1
        if start == end:
            return
        above, norm, parts = int(start > 0), self.block.norm1, self.parts
        if parts is None:
            self.parts = norm.weight.new_empty(parts_of("gate_sum", rows), rows.shape[-1])
        operators.gate_sum(
            rows[start - above - first :],
            *(self.parts, parts is None, above, stop - end),
            *(norm.weight, norm.bias, norm.eps, self.block.depthwise),
        )
        self.count += (end - start) * rows.shape[1]

    def result(self) -> SpatialMap:
        """The block's matrices, once all rows have been taken."""
        block, projection = self.block, self.block.projection
        assert self.parts is not None, "rows come before the result"
        folded = operators.fold_gate(
            *(self.parts, self.count, block.gate_down, block.gate_up),
            *(projection, block.projection_bias, block.dtype),
        )
        weight, bias = folded.split([projection.numel(), projection.shape[0]])
        return SpatialMap(Product.of(weight.view_as(projection), bias))


class GramSum:
    """Sums n^T n over the image, less a pilot; gives a channel block's `ChannelMap`."""

    def __init__(self, block: ChannelWeights) -> None:
        self.block = block
        self.count = 0
        self.parts: Tensor | None = None
        self.pilot: Tensor | None = None

    def take(self, rows: Tensor, first: int, start: int, stop: int, last: bool) -> None:
        """Take rows [start, stop) of the map; ``rows`` are [first, stop)."""
        norm, parts, rows = self.block.norm1, self.parts, rows[start - first :]
        if parts is None:
            dim = rows.shape[-1]
            self.parts = norm.weight.new_empty(parts_of("gram", rows), dim + 1, dim)
            self.pilot = norm.weight.new_empty(dim)
        begins = parts is None
        operators.gram(rows, self.parts, self.pilot, begins, norm.weight, norm.bias, norm.eps)
        self.count += rows.shape[0] * rows.shape[1]

    def result(self) -> ChannelMap:
        """The block's matrices, once all rows have been taken."""
        block = self.block
        assert self.parts is not None and self.pilot is not None, "rows come before the result"
        matrix = operators.fold_channel(
            *(self.parts, self.pilot, self.count),
            *(block.query, block.key, block.value, block.temperature, block.outputs, block.dtype),
        )
        return ChannelMap.of(matrix, block.outputs_bias)


class NoSum(NoStatistic):
    """For sweeps that no block follows but a convolution, which needs no statistic."""

    def take(self, rows: Tensor, first: int, start: int, stop: int, last: bool) -> None:
        """Take nothing."""


def sum_for(block: SpatialWeights | ChannelWeights | None) -> GateSum | GramSum | NoSum:
    """A new statistic for a block; for None, where no block follows, one that does nothing."""
    if block is None:
        return NoSum()
    return GateSum(block) if isinstance(block, SpatialWeights) else GramSum(block)
