"""What the model sees beyond a border: the frame is continued, and the result is cropped.

Seamless textures are continued periodically: beyond one border lies what is inside the opposite
one, and at the seam the model sees the same surroundings as anywhere else. Other pictures can be
mirrored, for networks whose zero padding darkens the border.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_MARGIN = 32
"""Input pixels of context beyond a seam."""

MIRRORED = 8
"""Input pixels that are mirrored beyond a border. More changes the outermost rows of the bundled
models by less than half a level of 8 bit."""


def extend(x: Tensor, dim: int, margin: int, periodic: bool) -> Tensor:
    """Continue ``x`` by ``margin`` elements at both ends of ``dim``.

    Periodically, or else mirrored: the outermost element comes first (c b a | a b c | c b a). Without
    it, or by repeating it alone, the bundled models lose up to 3 dB at the border
    (`benchmarks.borders`).
    """
    length = x.shape[dim]
    index = torch.arange(-margin, length + margin, device=x.device)
    if periodic:
        return x.index_select(dim, index % length)
    index = index % (2 * length)
    return x.index_select(dim, torch.minimum(index, 2 * length - 1 - index))


@dataclass(frozen=True)
class Margins:
    """Input pixels by which a frame is continued: at top and bottom, and at left and right.

    ``periodic``: whether it is the frame's other end that follows, vertically and horizontally, or
    else its mirror image.
    """

    rows: int
    columns: int
    periodic: tuple[bool, bool] = (True, True)

    @classmethod
    def of(cls, seamless: str, margin: int, mirrored: int = 0) -> Margins:
        """``margin`` pixels in the directions that ``seamless`` names, ``mirrored`` ones in the
        others."""
        rows, columns = (seamless in (name, "both") for name in ("vertical", "horizontal"))
        return cls(margin if rows else mirrored, margin if columns else mirrored, (rows, columns))

    @property
    def wrap(self) -> tuple[bool, bool]:
        """Whether the frame tiles vertically and horizontally."""
        return self.rows > 0 and self.periodic[0], self.columns > 0 and self.periodic[1]

    def add(self, x: Tensor) -> Tensor:
        """(H, W, ...) -> (H + 2 * rows, W + 2 * columns, ...), continued."""
        for dim, margin in enumerate((self.rows, self.columns)):
            if margin:
                x = extend(x, dim, margin, self.periodic[dim])
        return x

    def crop(self, x: Tensor, scale: int = 1) -> Tensor:
        """Undo `add` on a frame that has been enlarged ``scale`` times; returns a view."""
        top, left = self.rows * scale, self.columns * scale
        return x[top : x.shape[0] - top, left : x.shape[1] - left]
