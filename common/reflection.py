"""Continuing an image beyond its borders by reflection, however small it is."""

from __future__ import annotations

import torch
from torch import Tensor


def reflect(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    """Continue ``x`` along ``dim`` by ``before`` and ``after`` elements; borders are not repeated.

    Where more is needed than ``x`` has, it is reflected back and forth. A single element is
    repeated.

    >>> reflect(torch.tensor([0, 1, 2]), 0, 1, 4).tolist()
    [1, 0, 1, 2, 1, 0, 1, 2]
    """
    if not before and not after:
        return x
    length = x.shape[dim]
    period = max(2 * (length - 1), 1)
    index = torch.arange(-before, length + after, device=x.device) % period
    return x.index_select(dim, torch.minimum(index, period - index) if length > 1 else index * 0)
