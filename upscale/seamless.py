"""Seamless textures: what lies beyond one border is what lies inside the opposite one.

The frame is continued periodically before the model sees it, and the result is cropped. So at the
seam the model sees the same surroundings as anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_MARGIN = 32
"""Input pixels of context beyond a seam."""


def extend(x: Tensor, dim: int, margin: int, periodic: bool) -> Tensor:
    """Continue ``x`` by ``margin`` elements at both ends of ``dim``.

    Periodically, or else by repeating the outermost element.
    """
    length = x.shape[dim]
    index = torch.arange(-margin, length + margin, device=x.device)
    return x.index_select(dim, index % length if periodic else index.clamp(0, length - 1))


@dataclass(frozen=True)
class Margins:
    """Input pixels by which a frame is continued: at top and bottom, and at left and right."""

    rows: int
    columns: int

    @classmethod
    def of(cls, seamless: str, margin: int) -> Margins:
        """``margin`` pixels in the directions that ``seamless`` names."""
        return cls(
            margin if seamless in ("vertical", "both") else 0,
            margin if seamless in ("horizontal", "both") else 0,
        )

    @property
    def wrap(self) -> tuple[bool, bool]:
        """Whether the frame tiles vertically and horizontally."""
        return self.rows > 0, self.columns > 0

    def add(self, x: Tensor) -> Tensor:
        """(H, W, ...) -> (H + 2 * rows, W + 2 * columns, ...), continued periodically."""
        for dim, margin in enumerate((self.rows, self.columns)):
            if margin:
                x = extend(x, dim, margin, True)
        return x

    def crop(self, x: Tensor, scale: int = 1) -> Tensor:
        """Undo `add` on a frame that has been enlarged ``scale`` times; returns a view."""
        top, left = self.rows * scale, self.columns * scale
        return x[top : x.shape[0] - top, left : x.shape[1] - left]
