"""Pictures of which rows are read when they are needed, for those that are larger than memory."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Rows(Protocol):
    """A batch of pictures that is read in bands, in any order, some rows more than once.

    Attributes:
        shape: (B, C, H, W).
    """

    shape: tuple[int, int, int, int]

    def rows(self, top: int, bottom: int) -> Tensor:
        """Rows [top, bottom): (B, C, bottom - top, W), floating point."""
        ...


class RowsOn:
    """The rows of ``source`` on a device, in a precision."""

    def __init__(self, source: Rows, device: torch.device, dtype: torch.dtype) -> None:
        self.source, self.device, self.dtype = source, device, dtype
        self.shape = source.shape

    def rows(self, top: int, bottom: int) -> Tensor:
        """As `Rows.rows`."""
        return self.source.rows(top, bottom).to(self.device, self.dtype)


class TensorRows:
    """The rows of a tensor (B, C, H, W)."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.device, self.dtype = tensor, tensor.device, tensor.dtype
        self.shape = tuple(tensor.shape)

    def rows(self, top: int, bottom: int) -> Tensor:
        """As `Rows.rows`; a view."""
        return self.tensor[:, :, top:bottom]


def rows_on(image: Tensor | Rows, device: torch.device, dtype: torch.dtype) -> TensorRows | RowsOn:
    """``image`` on a device: a tensor as a whole and at once, `Rows` when they are read."""
    if isinstance(image, Tensor):
        return TensorRows(image.to(device, dtype))
    return RowsOn(image, device, dtype)
