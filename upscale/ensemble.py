"""Self-ensemble ("test-time augmentation"): the mean of results for flipped and turned inputs.

The "geometric self-ensemble" of EDSR (Lim et al., 2017, https://arxiv.org/abs/1707.02921,
section 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Member:
    """One of the eight symmetries of a rectangle's pixels: flips, then a transposition."""

    rows: bool = False
    columns: bool = False
    transposed: bool = False

    @property
    def dims(self) -> list[int]:
        """Dimensions of (H, W) that are flipped."""
        return [dim for dim, flipped in enumerate((self.rows, self.columns)) if flipped]

    def apply(self, x: Tensor) -> Tensor:
        """(H, W, ...) -> the same or (W, H, ...), contiguous."""
        x = x.flip(self.dims) if self.dims else x
        return x.transpose(0, 1).contiguous() if self.transposed else x

    def add_to(self, total: Tensor, result: Tensor, rows: int = 256) -> None:
        """Undo the symmetry of ``result`` and add it to ``total`` (H, W, C), in bands of rows."""
        result = result.transpose(0, 1) if self.transposed else result
        height = total.shape[0]
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            part = result[height - bottom : height - top] if self.rows else result[top:bottom]
            total[top:bottom] += part.flip(self.dims) if self.dims else part


def members(count: int) -> list[Member]:
    """The symmetries for an ensemble of ``count``.

    1: the input alone; 2: also its mirror image; 4: all flips; 8: also their transpositions, which
    includes all quarter turns.
    """
    flips = [Member(), Member(columns=True), Member(rows=True), Member(rows=True, columns=True)]
    turns = [Member(flip.rows, flip.columns, transposed=True) for flip in flips]
    return (flips + turns)[:count]
