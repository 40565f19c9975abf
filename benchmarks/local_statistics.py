"""FDAT with local instead of global statistics, to measure which give better results.

Chu et al. ("Improving Image Restoration by Revisiting Global Information Aggregation", ECCV 2022)
replace statistics over the whole image by statistics over a window around every pixel, about as
large as the training patches. Here the windows overlap, each has its own statistics, and cosine
ramps blend from one to the next, so that there are no seams. All else (windows of the spatial
attention, convolutions) is computed on the whole image.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fdat_dense_iso.arch.fdat.network import AIM, FDAT, ChannelAttention, convolve_tokens


def starts(length: int, window: int) -> list[int]:
    """Where windows that overlap by at least a half begin; the last one ends at ``length``."""
    if length <= window:
        return [0]
    return [*range(0, length - window, window // 2), length - window]


def ramp(size: int) -> Tensor:
    """Weights (size,) that rise and fall as half a cosine wave and never vanish."""
    positions = (torch.arange(size) + 0.5) / size
    return 0.5 - 0.5 * torch.cos(2 * torch.pi * positions)


def blend_windows(x: Tensor, window: int, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply ``function`` to overlapping windows of ``x`` (B, H, W, C), and blend the results."""
    total, weights = torch.zeros_like(x), x.new_zeros(x.shape[1], x.shape[2], 1)
    for top in starts(x.shape[1], window):
        for left in starts(x.shape[2], window):
            rows, columns = slice(top, top + window), slice(left, left + window)
            part = x[:, rows, columns]
            weight = (ramp(part.shape[1])[:, None] * ramp(part.shape[2]))[..., None].to(x)
            total[:, rows, columns] += weight * function(part)
            weights[rows, columns] += weight
    return total / weights


class LocalChannelAttention(nn.Module):
    """`ChannelAttention` whose logits are sums over the tokens of a window.

    (B, H, W, C) -> (B, H, W, C)
    """

    def __init__(self, attention: ChannelAttention, window: int) -> None:
        super().__init__()
        self.attention, self.window = attention, window

    def forward(self, x: Tensor) -> Tensor:
        return blend_windows(x, self.window, self.attention)


class LocalAIM(nn.Module):
    """`AIM` whose channel gate takes the mean over a window."""

    def __init__(self, gates: AIM, window: int) -> None:
        super().__init__()
        self.gates, self.window = gates, window

    def forward(self, attention: Tensor, convolution: Tensor, kind: str) -> Tensor:
        if kind != "spatial":
            return self.gates(attention, convolution, kind)

        def gate(part: Tensor) -> Tensor:
            return convolve_tokens(self.gates.cg, part).expand_as(part)

        return attention * blend_windows(convolution, self.window, gate) + convolution


def with_local_statistics(model: FDAT, window: int) -> FDAT:
    """A copy of the network with statistics over ``window`` x ``window`` input pixels."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ChannelAttention):
                setattr(module, name, LocalChannelAttention(child, window))
            elif isinstance(child, AIM):
                setattr(module, name, LocalAIM(child, window))
    return model
