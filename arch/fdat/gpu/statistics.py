"""The whole-image statistics of engine/statistics.py, summed by the fused operators.

Here rows come with those before them, because they lie in a map: nothing is kept in between.
"""

from __future__ import annotations

from torch import Tensor

from ...kernels.products import Product
from ..engine.statistics import GateStatistic, GramStatistic, NoStatistic, SpatialMap
from ..engine.weights import ChannelWeights, SpatialWeights
from . import operators

PILOT_STRIDE = 16
"""The pilot is the mean of every so manieth token of the first rows; it only has to be near."""


class GateSum(GateStatistic):
    """Sums gelu(depthwise(n)) over the image; gives a spatial block's `SpatialMap`."""

    def take(self, rows: Tensor, first: int, start: int, stop: int, last: bool) -> None:
        """Take rows [start, stop) of the map; ``rows`` are [first, stop).

        The last row waits for the one below it. ``first`` is at most start - 2, or 0.
        """
        start, end = max(0, start - 1), stop if last else stop - 1
        if start == end:
            return
        above, norm = int(start > 0), self.block.norm1
        summed = operators.gate_sum(
            rows[start - above - first :],
            above,
            stop - end,
            *(norm.weight, norm.bias, norm.eps, self.block.depthwise),
        )
        self.count += (end - start) * rows.shape[1]
        self.total += summed.to(self.total.device)

    def result(self) -> SpatialMap:
        """As `GateStatistic.result`, with a weight whose rows lie one after the other."""
        folded = super().result().projection
        return SpatialMap(Product.of(folded.weight.contiguous(), folded.bias))


class GramSum(GramStatistic):
    """Sums n^T n over the image, less a pilot; gives a channel block's `ChannelMap`."""

    def take(self, rows: Tensor, first: int, start: int, stop: int, last: bool) -> None:
        """Take rows [start, stop) of the map; ``rows`` are [first, stop)."""
        norm, rows = self.block.norm1, rows[start - first :]
        if self.pilot is None:
            few = rows.flatten(0, 1)[::PILOT_STRIDE].to(norm.weight.dtype)
            self.pilot = norm.less(None)(few).mean(0)
            self.shifted = norm.less(self.pilot)
        summed = operators.gram(rows, self.shifted.weight, self.shifted.bias, norm.eps)
        summed = summed.to(self.gram.device)
        self.gram += summed[:-1]
        self.total += summed[-1]
        self.count += rows.shape[0] * rows.shape[1]


class NoSum(NoStatistic):
    """For sweeps that no block follows but a convolution, which needs no statistic."""

    def take(self, rows: Tensor, first: int, start: int, stop: int, last: bool) -> None:
        """Take nothing."""


def sum_for(block: SpatialWeights | ChannelWeights | None) -> GateSum | GramSum | NoSum:
    """A new statistic for a block; for None, where no block follows, one that does nothing."""
    if block is None:
        return NoSum()
    return GateSum(block) if isinstance(block, SpatialWeights) else GramSum(block)
