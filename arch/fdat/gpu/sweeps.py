"""The blocks of an FDAT by fused operators, each swept over the whole image in bands.

As in engine/sweeps.py a sweep reads and writes each row of the map once and takes the next block's
statistic from the rows it writes. What differs is what a band is made of. Its attention half turns
rows of the source into y, in memory of the band's own (in float32 where the map is in bfloat16:
there rounding costs most, and only a band is held); the feed-forward half, one row behind, writes
the map:

    band [a, b):   y[a, b) <- attention half of x[a - 1, b + 1)
                   x[a - 1, b - 1) <- feed-forward half of y[a - 2, b)

Row a - 1 of the source is still x when band [a, b) reads it, because the feed-forward half has
written only up to a - 2 by then. So the map is updated in place and no normalised row is kept; of
y two rows stay for the next band.

In bfloat16 runs the maps are in float16 as long as that provably holds them (engine/bounds.py). Then
a pass may read a map in one type and write it in the other, which takes as many bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..engine.image import ImageRows
from ..engine.maps import AnyMap, FeatureMap
from ..engine.passes import Passes
from ..engine.statistics import ChannelMap, SpatialMap
from ..engine.weights import (
    ChannelWeights,
    Convolution,
    SpatialWeights,
    output_dtype,
)
from . import operators
from .statistics import GateSum, GramSum, NoSum, sum_for


class Rows:
    """Memory for the rows of a band, and the two rows above it as the band before left them."""

    def __init__(
        self, band: int, width: int, dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        size = band + 3, width, dim  # the first band may have one row more below
        self.memory = torch.empty(size, dtype=dtype, device=device)
        self.first = self.stop = 0

    def room(self, stop: int) -> Tensor:
        """Memory for the rows up to ``stop``, with the two above them: rows [self.first, stop)."""
        kept = min(2, self.stop - self.first)
        if kept:
            self.memory[:kept] = self.memory[self.stop - self.first - kept : self.stop - self.first]
        self.first, self.stop = self.stop - kept, stop
        return self.memory[: self.stop - self.first]


class MapRows:
    """`Rows` of a map in ``dtype``: where it has that type and is on the device, its own memory."""

    def __init__(self, target: AnyMap, band: int, dtype: torch.dtype, device: torch.device) -> None:
        self.target, self.rows = target, None
        if not isinstance(target, FeatureMap) or target.dtype != dtype:
            self.rows = Rows(band, *target.shape[1:], dtype, device)
        self.start = self.first = 0

    def room(self, start: int, stop: int) -> Tensor:
        """Memory for rows [start, stop), with the two above them: rows [self.first, stop)."""
        self.start = start
        if self.rows is not None:
            room = self.rows.room(stop)
            self.first = self.rows.first
            return room
        assert isinstance(self.target, FeatureMap)
        self.first = max(0, start - 2)
        return self.target.tensor[self.first : stop]

    def finish(self, room: Tensor) -> None:
        """The rows from ``start`` on are written; they go to the map if they are not there."""
        if self.rows is not None:
            self.target.write(self.start, room[self.start - self.first :].clone())


class FusedSweeps(Passes):
    """The passes over one image by fused operators."""

    collector = staticmethod(sum_for)

    @property
    def converted(self) -> bool:
        """Whether the maps are in another precision than the run's because the plan wants it."""
        return self.trunk.dtype.itemsize != self.weights.dtype.itemsize

    def read(self, source: AnyMap, ranges: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
        """Rows of a map, as they are there if they are in the run's precision."""
        return source.read(ranges, self.weights.dtype if self.converted else source.dtype)

    def written(self, target: AnyMap, dtype: torch.dtype | None) -> tuple[AnyMap, MapRows]:
        """A map whose values are in ``dtype`` from now on, and its rows to compute in."""
        assert dtype is not None, "weights of fused runs say it"
        target = target if self.converted else target.seen_as(dtype)
        return target, MapRows(target, self.band, dtype, self.weights.device)

    @staticmethod
    def convolve(
        convolution: Convolution, rows: Tensor, out: Tensor, above: int, skip: Tensor | None = None
    ) -> None:
        """out <- skip + convolution(rows), where ``rows`` have a halo."""
        below = rows.shape[0] - out.shape[0] - above
        weight, bias = convolution.weight, convolution.bias
        operators.convolve(rows, out, above, below, weight, bias, skip, 1, 1.0, 1)

    def shallow(self, image: ImageRows, statistic: GateSum | GramSum | NoSum) -> None:
        """trunk <- first(image)"""
        self.trunk, trunk = self.written(self.trunk, self.weights.first.map_dtype)
        for (start, stop), (above, below) in zip(self.bands, self.with_halo):
            room = trunk.room(start, stop)
            target = room[start - trunk.first :]
            rows = image.rows(above, below)
            self.convolve(self.weights.first, rows, target, start - above)
            self._finish(trunk, room, start, stop, statistic)

    def block(
        self,
        block: SpatialWeights | ChannelWeights,
        folded: SpatialMap | ChannelMap,
        source: AnyMap,
        statistic: GateSum | GramSum | NoSum,
    ) -> None:
        """branch <- block(source)"""
        read = self.read(source, self.with_halo)
        self.branch, branch = self.written(self.branch, block.map_dtype)
        dtype, device = output_dtype(block.map_dtype), self.weights.device
        halfway = Rows(self.band, *self.branch.shape[1:], dtype, device)
        norm = block.norm2
        for (start, stop), rows in zip(self.bands, read):
            y = halfway.room(stop)
            self.attend(block, folded, rows, y[start - halfway.first :], start > 0)
            # finished are rows [begin, end): all but the last, which lacks its lower neighbour
            begin, end = max(0, start - 1), stop if stop == self.height else stop - 1
            room, above = branch.room(begin, end), int(begin > 0)
            operators.feed_forward(
                y[begin - above - halfway.first :],
                room[begin - branch.first :],
                *(above, stop - end, norm.weight, norm.bias, norm.eps),
                *(block.expand.weight, block.mix, block.contract.product.weight),
            )
            del rows
            self._finish(branch, room, begin, end, statistic)

    def attend(
        self,
        block: SpatialWeights | ChannelWeights,
        folded: SpatialMap | ChannelMap,
        rows: Tensor,
        y: Tensor,
        above: bool,
    ) -> None:
        """y <- x + AIM(attention(n), gelu(depthwise(n))); ``rows`` are x with a halo."""
        norm = block.norm1
        shared = (norm.weight, norm.bias, norm.eps, block.depthwise)
        place = (rows, y, int(above), rows.shape[0] - y.shape[0] - int(above))
        if isinstance(folded, ChannelMap):
            product = folded.attention.product
            gate = folded.gate_weight, folded.gate_bias
            operators.channel_half(*place, *shared, product.weight, product.bias, *gate)
            return
        assert isinstance(block, SpatialWeights), "its map is of its kind"
        operators.window_half(
            *place,
            *shared,
            *(block.qkv.weight, block.position_bias[0]),
            *(folded.projection.weight, folded.projection.bias),
            *(block.window, block.scale),
        )

    def close_group(
        self, source: AnyMap, convolution: Convolution, statistic: GateSum | GramSum | NoSum
    ) -> None:
        """trunk <- trunk + conv(branch)"""
        branch, skips = self.read(self.branch, self.with_halo), self.read(source, self.bands)
        self.trunk, trunk = self.written(self.trunk, convolution.map_dtype)
        for (start, stop), rows, skip in zip(self.bands, branch, skips):
            room = trunk.room(start, stop)
            self.convolve(convolution, rows, room[start - trunk.first :], int(start > 0), skip)
            del rows, skip
            self._finish(trunk, room, start, stop, statistic)

    def _finish(
        self,
        target: MapRows,
        room: Tensor,
        start: int,
        stop: int,
        statistic: GateSum | GramSum | NoSum,
    ) -> None:
        """Rows [start, stop) are in ``room``: the statistic and the map take them."""
        statistic.take(room, target.first, start, stop, stop == self.height)
        target.finish(room)
        self.tick()

    def deep_features(self, image: ImageRows) -> Iterator[tuple[int, Tensor]]:
        """after(trunk) + first(image)"""
        dtype = self.weights.dtype
        if not self.converted:  # the tail reads them as the run's
            self.branch = self.branch.seen_as(dtype)
        for (start, stop), (above, below), rows in zip(
            self.bands, self.with_halo, self.read(self.trunk, self.with_halo)
        ):
            features = rows.new_empty(stop - start, *rows.shape[1:], dtype=output_dtype(dtype))
            first = image.rows(above, below)
            self.convolve(self.weights.first, first, features, start - above)
            self.convolve(self.weights.after, rows, features, start - above, features)
            yield start, features
            self.tick()
