"""The blocks of an FDAT, each swept over the whole image in bands before the next one begins.

    trunk <- first(image)
    for each group:   branch <- blocks(trunk);   trunk <- trunk + conv(branch)
    features <- after(trunk) + first(image)

Trunk and branch are the only full-size maps. A sweep reads each row once and writes it once; the
branch is updated in place. The statistic over the whole image that a block needs is taken by the
sweep before it, from the rows it writes.

In a block's sweep, the attention half turns band [a, b) of the source into y, which is stored in
the rows of the branch. The feed-forward half has a 3x3 depthwise convolution, so it lags one row
behind and finishes rows [a - 1, b - 1) in place; row b - 1 stays y until the next band. A band
reads rows [a, b + 1) of the source. The attention half's depthwise convolution also needs the rows
above, which have been overwritten by then; a `Seam` keeps them, normalised.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.attention import attend
from .bands import attention_tile
from .image import ImageRows
from .maps import AnyMap
from .passes import Passes
from .rows import Seam, add_windows_, convolve_band, gelu_depthwise_band, to_windows
from .statistics import ChannelMap, SpatialMap, Statistic, statistic_of
from .weights import ChannelWeights, Convolution, SpatialWeights, residual_dtype


def window_attention(
    block: SpatialWeights, folded: SpatialMap, bias: Tensor, windows: Tensor
) -> Tensor:
    """Gated and projected attention in normalised windows (windows, window**2, C), same shape.

    ``bias`` is `SpatialWeights.bias_of_windows`, for as many windows or more.
    """
    attended = attend(
        block.qkv(windows).unflatten(-1, (3, block.heads, -1)),  # (windows, s*s, 3, heads, c)
        block.scale,
        bias,
        products=bias.ndim == 3,
    )
    return folded.projection(attended)


def add_window_attention_(
    y: Tensor, block: SpatialWeights, folded: SpatialMap, normed: Tensor
) -> None:
    """y (h, W, C) += attention(``normed``), of the same shape, some windows at a time."""
    size, (height, width, _) = block.window, y.shape
    down, across = attention_tile(height, width, size, normed.dtype, y.device)
    bias = block.bias_of_windows(-(-down // size) * -(-across // size))
    for row in range(0, height, down):
        for column in range(0, width, across):
            place = slice(row, row + down), slice(column, column + across)
            attended = window_attention(block, folded, bias, to_windows(normed[place], size))
            add_windows_(y[place], attended.to(y.dtype), size)


class Sweeps(Passes):
    """The passes over one image by plain operators."""

    collector = staticmethod(statistic_of)

    @property
    def residual(self) -> torch.dtype:
        """The precision in which x is added up."""
        return residual_dtype(self.weights.dtype)

    def first_rows(self, image: ImageRows, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of conv_first(image), in the residual's precision."""
        above, below = max(0, start - 1), min(self.height, stop + 1)
        return self._convolve(self.weights.first, image.rows(above, below), start, stop)

    def _convolve(self, convolution: Convolution, rows: Tensor, start: int, stop: int) -> Tensor:
        rows = convolution(rows.to(convolution.weight.dtype), start == 0, stop == self.height)
        return rows.to(self.residual)

    def shallow(self, image: ImageRows, statistic: Statistic) -> None:
        """trunk <- first(image)"""
        for start, stop in self.bands:
            output = self.trunk.room(start, stop, self.residual)[start - stop :]
            output.copy_(self.first_rows(image, start, stop))
            self.trunk.write(start, output)
            statistic.feed(output, stop == self.height)
            self.tick()

    def block(
        self,
        block: SpatialWeights | ChannelWeights,
        folded: SpatialMap | ChannelMap,
        source: AnyMap,
        statistic: Statistic,
    ) -> None:
        """branch <- block(source)"""
        before, behind = Seam(), Seam()
        with_row_below = [(start, min(self.height, stop + 1)) for start, stop in self.bands]
        for (start, stop), rows in zip(self.bands, source.read(with_row_below, self.residual)):
            top, last = start == 0, stop == self.height
            room = self.branch.room(start, stop, self.residual)
            y = room[start - stop :]
            self.attend(block, folded, rows, y, before, top, last)
            del rows
            hidden = block.expand.gelu(block.norm2(y))
            pieces, finished = behind.pieces(hidden, last), 0
            del hidden
            while pieces:
                mixed = convolve_band(*pieces.pop(0), block.mix, groups=block.mix.shape[0])
                block.contract(room[finished : finished + mixed.shape[0]], mixed)
                finished += mixed.shape[0]
                del mixed
            # finished are rows [start - 1, stop - 1): from row 0 if top, to the end if last
            output = room[:finished]
            self.branch.write(start - int(not top), output)
            statistic.feed(output, last)
            del output, room, y  # free them before the next band is computed
            self.tick()

    @staticmethod
    def attend(
        block: SpatialWeights | ChannelWeights,
        folded: SpatialMap | ChannelMap,
        rows: Tensor,
        y: Tensor,
        seam: Seam,
        top: bool,
        last: bool,
    ) -> None:
        """y <- x + AIM(attention(n), gelu(depthwise(n))), where n = norm(x).

        ``rows`` are x with one more row below; ``y`` may share memory with them.
        """
        normed, done = block.norm1(rows), 0
        own = normed[: y.shape[0]]
        gate = None
        if isinstance(folded, ChannelMap):
            gate = torch.sigmoid(F.linear(own, folded.gate_weight, folded.gate_bias))  # (h, W, 1)
        for piece in seam.pieces(normed if top else normed[1:], last):
            mixed = gelu_depthwise_band(*piece, block.depthwise)
            place = slice(done, done + mixed.shape[0])
            if gate is None:
                torch.add(rows[place], mixed, out=y[place])
            else:
                torch.addcmul(rows[place], mixed, gate[place], out=y[place])
            done = place.stop
            del mixed, piece
        if isinstance(folded, ChannelMap):
            folded.attention(y, own)
        else:
            assert isinstance(block, SpatialWeights), "its map is of its kind"
            add_window_attention_(y, block, folded, own)

    def close_group(self, source: AnyMap, convolution: Convolution, statistic: Statistic) -> None:
        """trunk <- trunk + conv(branch)"""
        branch = self.branch.read(self.with_halo, self.residual)
        trunk = source.read(self.bands, self.residual)
        for (start, stop), rows, skip in zip(self.bands, branch, trunk):
            output = self.trunk.room(start, stop, self.residual)[start - stop :]
            torch.add(skip, self._convolve(convolution, rows, start, stop), out=output)
            self.trunk.write(start, output)
            statistic.feed(output, stop == self.height)
            self.tick()

    def again(self, written: AnyMap, statistic: Statistic, *, lagging: bool) -> None:
        """Feed the statistic as the pass did that wrote the map: blocks lag one row behind."""
        ranges = [
            (max(0, start - lagging), stop if stop == self.height else stop - lagging)
            for start, stop in self.bands
        ]
        for (_, stop), rows in zip(ranges, written.read(ranges, self.residual)):
            statistic.feed(rows, stop == self.height)

    def deep_features(self, image: ImageRows) -> Iterator[tuple[int, Tensor]]:
        """after(trunk) + first(image)"""
        for (start, stop), rows in zip(self.bands, self.trunk.read(self.with_halo, self.residual)):
            features = self._convolve(self.weights.after, rows, start, stop).add_(
                self.first_rows(image, start, stop)
            )
            yield start, features
            self.tick()
