"""Ramps that blend overlapping tiles: the weight that one tile gains the other loses."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def ramp(width: int, shape: str) -> Tensor:
    """A rising ramp (width,) float64 between 0 and 1, sampled at the centres of ``width`` pixels.

    The ramp and its mirror image sum to one at every pixel, so two tiles that share it make a
    partition of unity.

    Args:
        width: pixels, at least 0.
        shape: "linear", or "cosine" (half a period), which has no kinks at its ends.
    """
    position = (torch.arange(width, dtype=torch.float64, device="cpu") + 0.5) / max(width, 1)
    if shape == "cosine":
        return 0.5 - 0.5 * torch.cos(math.pi * position)
    return position
