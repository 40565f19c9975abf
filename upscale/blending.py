"""Weights that blend overlapping tiles into one picture: a partition of unity of 1D ramps."""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.ramps import ramp
from ..common.tiling import AxisPlan


def axis_weights(plan: AxisPlan, scale: int = 1) -> Tensor:
    """Weights (tiles, size * scale) float32 along one axis, which sum to 1 at every pixel.

    A tile's weight rises linearly over the overlap with the tile before and falls over that with
    the next. At the image's own borders there is no ramp. All weights are divided by their sum,
    which differs from 1 only where more than two tiles overlap.
    """
    size = plan.size * scale
    weights = torch.ones(len(plan.starts), size, dtype=torch.float64)
    for index, overlap in enumerate(plan.overlaps):
        width = overlap * scale
        rise = ramp(width, "linear")
        weights[index, size - width :] *= rise.flip(0)
        weights[index + 1, :width] *= rise
    total = torch.zeros(plan.length * scale, dtype=torch.float64)
    starts = [start * scale for start in plan.starts]
    for start, weight in zip(starts, weights):
        total[start : start + size] += weight
    for start, weight in zip(starts, weights):
        weight /= total[start : start + size]
    return weights.float()
