"""The blocks of an FDAT, each swept over the whole image in bands of rows before the next one begins.

    trunk <- first(image)
    for each group:   branch <- blocks(trunk);   trunk <- trunk + conv(branch)
    features <- after(trunk) + first(image)

Trunk and branch are the only full-size maps. A sweep reads each row once and writes it once; the branch is updated in
place. The statistic over the whole image that a block needs is taken by the sweep before it, from the rows it writes.

In a block's sweep, band [a, b) of the source is read with one row above and below. The attention half gives y for
[a, b). The feed-forward half has a 3x3 depthwise convolution of its own, so it lags one row: it writes [a - 1, b - 1).
That is why row a - 1 still holds the block's input when the next band asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .fdat_maps import FeatureMap, HostMap
from .fdat_plan import attention_tile, split_rows
from .fdat_rows import (
    add_windows_,
    convolve_band,
    gelu_depthwise_band,
    gelu_linear,
    linear,
    room_below,
    to_windows,
)
from .fdat_statistics import ChannelMap, SpatialMap, Statistic, statistic_of
from .fdat_weights import ChannelWeights, Convolution, SpatialWeights, Weights, residual_dtype


def window_attention(block: SpatialWeights, folded: SpatialMap, windows: Tensor) -> Tensor:
    """Gated and projected attention in normalised windows (windows, window**2, C), same shape."""
    qkv = linear(windows, block.qkv).unflatten(-1, (3, block.heads, -1))  # (windows, s*s, 3, heads, c)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (windows, heads, s*s, c)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=block.position_bias, scale=block.scale)
    del qkv, q, k, v
    return linear(attended.transpose(1, 2).flatten(2), folded.weight, folded.bias)


def attend(
    block: SpatialWeights | ChannelWeights,
    folded: SpatialMap | ChannelMap,
    rows: Tensor,
    normed: Tensor,
    mixed: Tensor,
    kept: Tensor | None,
) -> Tensor:
    """x + AIM(attention(n), gelu(depthwise(n))) for rows x, n = ``normed``, ``mixed`` = gelu(...), each (h, W, C).

    The result has the rows ``kept`` of the band above before its own.
    """
    result, y = room_below(kept, rows.shape[0], rows)
    if isinstance(folded, ChannelMap):
        gate = torch.sigmoid(F.linear(normed, folded.gate_weight, folded.gate_bias))  # (h, W, 1)
        torch.add(rows, mixed.mul_(gate), out=y)
        y += linear(normed, folded.weight, folded.bias)
        return result
    assert isinstance(block, SpatialWeights), "its map is of its kind"
    torch.add(rows, mixed, out=y)
    size, (height, width, _) = block.window, y.shape
    down, across = attention_tile(height, width, size, y.device)
    for row in range(0, height, down):
        for column in range(0, width, across):
            place = slice(row, row + down), slice(column, column + across)
            attended = window_attention(block, folded, to_windows(normed[place], size))
            add_windows_(y[place], attended.to(y.dtype), size)
    return result


class Sweeps:
    """The passes over one image; ``tick`` is called after every band of every pass."""

    def __init__(
        self,
        weights: Weights,
        trunk: FeatureMap | HostMap,
        branch: FeatureMap | HostMap,
        height: int,
        band: int,
        tick: Callable[[], None],
    ) -> None:
        self.weights = weights
        self.trunk, self.branch = trunk, branch
        self.height = height
        self.bands = split_rows(height, band)
        self.with_halo = [(max(0, start - 1), min(height, stop + 1)) for start, stop in self.bands]
        self.residual = residual_dtype(weights.dtype)
        self.tick = tick

    def run(self, image: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Image (C, H, W), unshuffled and on the device -> ``(start, rows)`` of the upsampler's features."""
        groups = self.weights.groups
        opening = [blocks[0] for blocks, _ in groups]  # the block whose statistic a group's convolution takes
        statistic = statistic_of(opening[0])
        self.shallow(image, statistic)
        for (blocks, convolution), next_group in zip(groups, [*opening[1:], None]):
            source = self.trunk
            for block, next_block in zip(blocks, [*blocks[1:], None]):
                folded, statistic = statistic.result(), statistic_of(next_block)
                self.block(block, folded, source, statistic)
                source = self.branch
            statistic = statistic_of(next_group)
            self.close_group(convolution, statistic)
        yield from self.deep_features(image)

    def first_rows(self, image: Tensor, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of conv_first(image), in the residual's precision."""
        above, below = max(0, start - 1), min(self.height, stop + 1)
        rows = image[:, above:below].permute(1, 2, 0).contiguous()
        return self._convolve(self.weights.first, rows, start, stop)

    def _convolve(self, convolution: Convolution, rows: Tensor, start: int, stop: int) -> Tensor:
        rows = convolution(rows.to(self.weights.dtype), start == 0, stop == self.height)
        return rows.to(self.residual)

    def shallow(self, image: Tensor, statistic: Statistic) -> None:
        """trunk <- first(image)"""
        for start, stop in self.bands:
            output, own = self.trunk.room(start, stop - start, self.residual)
            own.copy_(self.first_rows(image, start, stop))
            self.trunk.write(start, own)
            statistic.feed(output, start == 0, stop == self.height)
            self.tick()

    def block(
        self,
        block: SpatialWeights | ChannelWeights,
        folded: SpatialMap | ChannelMap,
        source: FeatureMap | HostMap,
        statistic: Statistic,
    ) -> None:
        """branch <- block(source)"""
        kept: Tensor | None = None  # the last two rows of y: the halo of the feed-forward half of the next band
        for (start, stop), rows in zip(self.bands, source.read(self.with_halo, self.residual)):
            top, last = start == 0, stop == self.height
            normed = block.norm1(rows)
            mixed = gelu_depthwise_band(normed, top, last, block.depthwise)
            own = slice(int(not top), int(not top) + stop - start)
            y = attend(block, folded, rows[own], normed[own], mixed, kept)
            del normed, mixed
            kept = y[-2:].clone()

            hidden = gelu_linear(block.norm2(y), block.expand)
            hidden = convolve_band(hidden, top, last, block.mix, groups=block.mix.shape[0])
            hidden = linear(hidden, block.contract)  # rows [start - 1, stop - 1), from 0 if top, to the end if last
            first = start - int(not top)
            output, own = self.branch.room(first, hidden.shape[0], self.residual)
            torch.add(y[start - first :][: hidden.shape[0]], hidden, out=own)
            del y, hidden
            self.branch.write(first, own)
            statistic.feed(output, top, last)
            del output, own  # not while the next band is computed
            self.tick()

    def close_group(self, convolution: Convolution, statistic: Statistic) -> None:
        """trunk <- trunk + conv(branch)"""
        branch = self.branch.read(self.with_halo, self.residual)
        trunk = self.trunk.read(self.bands, self.residual)
        for (start, stop), rows, skip in zip(self.bands, branch, trunk):
            output, own = self.trunk.room(start, stop - start, self.residual)
            torch.add(skip, self._convolve(convolution, rows, start, stop), out=own)
            self.trunk.write(start, own)
            statistic.feed(output, start == 0, stop == self.height)
            self.tick()

    def deep_features(self, image: Tensor) -> Iterator[tuple[int, Tensor]]:
        """after(trunk) + first(image)"""
        for (start, stop), rows in zip(self.bands, self.trunk.read(self.with_halo, self.residual)):
            features = self._convolve(self.weights.after, rows, start, stop).add_(self.first_rows(image, start, stop))
            yield start, features
            self.tick()
