r"""Where windows lie along one axis, and the weight of each of them at every pixel of the result.

All windows have the same size, and the last is shifted back to fit. Where two neighbours overlap, a
cosine ramp blends from the first to the second, so the weights sum to one by construction:

    window 0   1 1 1 1 \ . . .
    window 1         . / 1 1 \ . . .
    window 2               . / 1 1 1 1

There is no ramp at the borders of the image, and nothing has to be divided by a sum of weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...common.ramps import ramp
from ...common.tiling import plan_axis


@dataclass(frozen=True)
class Window:
    """One window along one axis.

    Attributes:
        start: first pixel of the window in the image (padded to at least one window).
        kept: output pixels of the window that enter the result: the first, and one past the last.
        target: position of the first kept pixel in the result.
        weights: (kept[1] - kept[0],) float64, from 0 to 1.
    """

    start: int
    kept: tuple[int, int]
    target: int
    weights: Tensor


def plan_windows(length: int, size: int, overlap: int, scale: int) -> list[Window]:
    """Windows along one axis of an image of ``length`` pixels, with weights for output pixels.

    Windows lie at a stride of ``size - overlap`` pixels. So a tile of the image that starts at a
    multiple of the stride has its windows where the whole image has them.

    The ramp between two neighbours lies in the middle of their overlap and takes half of
    ``overlap``: the outer quarter on either side, where a window sees least of its surroundings, is
    not used. Of a window larger than the image only the image is kept.
    """
    if length <= size:
        begin = (size - length) // 2 * scale
        weights = torch.ones(length * scale, dtype=torch.float64)
        return [Window(0, (begin, begin + length * scale), 0, weights)]
    starts = plan_axis(length, size, overlap, fixed=True).starts
    rise = ramp(overlap * scale // 2, "cosine")
    width = len(rise)
    windows = []
    for index, start in enumerate(starts):
        weights = torch.ones(size * scale, dtype=torch.float64)
        begin, end = 0, size * scale
        if index > 0:
            begin = _handover(starts[index - 1], start, size, scale, width) - start * scale
            weights[begin : begin + width] = rise
        if index + 1 < len(starts):
            end = _handover(start, starts[index + 1], size, scale, width) + width - start * scale
            weights[end - width : end] = 1 - rise
        windows.append(Window(start, (begin, end), start * scale + begin, weights[begin:end]))
    return windows


def _handover(start: int, following: int, size: int, scale: int, width: int) -> int:
    """First output pixel of the ramp between two neighbours, in the middle of their overlap."""
    return ((following + start + size) * scale - width) // 2
