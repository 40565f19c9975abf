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
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .fdat_maps import FeatureMap, HostMap
from .fdat_rows import Halo, add_windows_, convolve, convolve_band, linear, to_windows
from .fdat_statistics import ChannelMap, SpatialMap, statistic_of
from .fdat_weights import BlockWeights, ChannelWeights, Convolution, SpatialWeights, Weights, residual_dtype


class Statistic(Protocol):
    def feed(self, rows: Tensor, last: bool) -> None: ...

    def result(self) -> SpatialMap | ChannelMap: ...


def split_rows(height: int, band: int) -> list[tuple[int, int]]:
    """Bands [start, stop) of ``band`` rows, the last one with what is left."""
    return [(start, min(start + band, height)) for start in range(0, height, band)]


def window_attention(block: SpatialWeights, folded: SpatialMap, normed: Tensor) -> Tensor:
    """Normalised rows (h, W, C) -> gated and projected attention, by window (windows, window**2, C)."""
    windows = to_windows(normed, block.window)
    qkv = linear(windows, block.qkv).unflatten(-1, (3, block.heads, -1))  # (windows, s*s, 3, heads, c)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (windows, heads, s*s, c)
    del windows, qkv
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=block.position_bias)
    del q, k, v
    return linear(attended.transpose(1, 2).flatten(2), folded.weight, folded.bias)


def attend(block: BlockWeights, folded: SpatialMap | ChannelMap, rows: Tensor, normed: Tensor, mixed: Tensor) -> Tensor:
    """x + AIM(attention(n), gelu(depthwise(n))) for rows x, n = ``normed``, ``mixed`` = gelu(...), each (h, W, C)."""
    if isinstance(folded, SpatialMap):
        y = mixed.to(rows.dtype).add_(rows)
        add_windows_(y, window_attention(block, folded, normed).to(rows.dtype), block.window)
        return y
    gate = torch.sigmoid(F.linear(normed, folded.gate_weight, folded.gate_bias))  # (h, W, 1)
    y = mixed.mul_(gate).to(rows.dtype).add_(rows)
    return y.add_(linear(normed, folded.weight, folded.bias))


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
        """Image (C, H, W), already unshuffled -> ``(start, rows)`` of the features that the upsampler takes."""
        statistic = self.shallow(image)
        groups = self.weights.groups
        for index, (blocks, convolution) in enumerate(groups):
            source = self.trunk
            for block, following in zip(blocks, [*blocks[1:], None]):
                statistic = self.block(block, statistic.result(), source, statistic_of(following) if following else None)
                source = self.branch
            following = groups[index + 1][0][0] if index + 1 < len(groups) else None
            statistic = self.close_group(convolution, statistic_of(following) if following else None)
        yield from self.deep_features(image)

    def first_rows(self, image: Tensor, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of conv_first(image), in the residual's precision."""
        above, below = max(0, start - 1), min(self.height, stop + 1)
        rows = image[:, above:below].to(self.weights.device, self.weights.dtype).permute(1, 2, 0).contiguous()
        return self._convolve(self.weights.first, rows, start, stop)

    def _convolve(self, convolution: Convolution, rows: Tensor, start: int, stop: int) -> Tensor:
        rows = rows.to(self.weights.dtype)
        rows = convolve_band(rows, start == 0, stop == self.height, convolution.weight, convolution.bias)
        return rows.to(self.residual)

    def shallow(self, image: Tensor) -> Statistic:
        """trunk <- first(image)"""
        statistic = statistic_of(self.weights.groups[0][0][0])
        for start, stop in self.bands:
            rows = self.first_rows(image, start, stop)
            self.trunk.write(start, rows)
            statistic.feed(rows, stop == self.height)
            self.tick()
        return statistic

    def block(
        self,
        block: SpatialWeights | ChannelWeights,
        folded: SpatialMap | ChannelMap,
        source: FeatureMap | HostMap,
        statistic: Statistic | None,
    ) -> Statistic | None:
        """branch <- block(source)"""
        halo = Halo()
        pending: Tensor | None = None  # the last row of y, whose feed-forward half waits for the row below
        for (start, stop), rows in zip(self.bands, source.read(self.with_halo, self.residual)):
            top, last = start == 0, stop == self.height
            normed = block.norm1(rows)
            mixed = F.gelu(convolve_band(normed, top, last, block.depthwise, groups=block.dim))
            own = slice(int(not top), int(not top) + stop - start)
            y = attend(block, folded, rows[own], normed[own], mixed)
            del normed, mixed

            hidden = halo.extend(linear(block.norm2(y), block.expand), last, F.gelu)
            hidden = convolve(hidden, block.mix, groups=block.mix.shape[0])
            output = linear(hidden, block.contract).to(self.residual)  # rows [start - 1, stop - 1), to the end if last
            del hidden
            if pending is None:
                output += y[: output.shape[0]]
            else:
                output[0] += pending
                output[1:] += y[: output.shape[0] - 1]
            pending = y[-1].clone()
            if output.shape[0]:
                self.branch.write(start - int(not top), output)
                if statistic is not None:
                    statistic.feed(output, last)
            del y, output  # not while the next band is computed
            self.tick()
        return statistic

    def close_group(self, convolution: Convolution, statistic: Statistic | None) -> Statistic | None:
        """trunk <- trunk + conv(branch)"""
        branch = self.branch.read(self.with_halo, self.residual)
        trunk = self.trunk.read(self.bands, self.residual)
        for (start, stop), rows, skip in zip(self.bands, branch, trunk):
            output = self._convolve(convolution, rows, start, stop).add_(skip)
            self.trunk.write(start, output)
            if statistic is not None:
                statistic.feed(output, stop == self.height)
            self.tick()
        return statistic

    def deep_features(self, image: Tensor) -> Iterator[tuple[int, Tensor]]:
        """after(trunk) + first(image)"""
        for (start, stop), rows in zip(self.bands, self.trunk.read(self.with_halo, self.residual)):
            features = self._convolve(self.weights.after, rows, start, stop).add_(self.first_rows(image, start, stop))
            yield start, features
            self.tick()
