"""A picture that is read in parts, and what the model gets of it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..channels import ChannelPass, premultiply
from ..seamless import Margins


class PictureRows(Protocol):
    """A picture that is read in parts, in any order; called from several threads.

    Attributes:
        height, width: in pixels.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        opaque: whether no pixel is transparent.
    """

    height: int
    width: int
    channels: int
    opaque: bool

    def read(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        """These rows and columns: (bottom - top, right - left, C) float32 in [0, 1]."""
        ...


class Continued:
    """A picture with margins (`seamless.Margins`), read in parts.

    Args:
        source: the picture.
        margins: by how much it is continued.
        premultiplied: colours are multiplied by alpha.
    """

    def __init__(self, source: PictureRows, margins: Margins, *, premultiplied: bool) -> None:
        self.source, self.margins, self.premultiplied = source, margins, premultiplied
        self.height = source.height + 2 * margins.rows
        self.width = source.width + 2 * margins.columns
        self.channels = source.channels

    def read(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        """As `PictureRows.read`, of the continued picture."""
        source, margins = self.source, self.margins
        rows = _positions(top, bottom, source.height, margins.rows, margins.periodic[0])
        columns = _positions(left, right, source.width, margins.columns, margins.periodic[1])
        frame = torch.cat(
            [
                torch.cat([self._part(down, across) for across in _runs(columns)], 1)
                for down in _runs(rows)
            ]
        )
        return premultiply(frame) if self.premultiplied else frame

    def _part(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Rows and columns that lie beside each other, perhaps in another order."""
        (top, bottom), (left, right) = (
            (int(positions.min()), int(positions.max()) + 1) for positions in (rows, columns)
        )
        frame = self.source.read(top, bottom, left, right)
        for dim, positions, first in ((0, rows, top), (1, columns, left)):
            if int(positions[0]) != first or len(positions) != frame.shape[dim]:
                frame = frame.index_select(dim, positions - first)
        return frame


def _positions(start: int, stop: int, length: int, margin: int, periodic: bool) -> Tensor:
    """Where elements [start, stop) of a continued axis lie in the axis, as `seamless.extend`."""
    index = torch.arange(start - margin, stop - margin)
    if periodic:
        return index % length
    index = index % (2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


def _runs(positions: Tensor) -> list[Tensor]:
    """Positions cut where they jump, as from the last one to the first one."""
    jumps = ((positions[1:] - positions[:-1]).abs() > 1).nonzero().flatten() + 1
    return list(positions.tensor_split(jumps))


class PassRows:
    """What the model gets of a picture in one pass: a batch of one, (1, Cin, H, W).

    It can be used as `common.rows.Rows`, and cut like a tensor's tiles.
    """

    def __init__(self, picture: Continued, one: ChannelPass) -> None:
        self.picture, self.one = picture, one
        self.shape = 1, len(one.source), picture.height, picture.width

    def __len__(self) -> int:
        return 1

    def rows(self, top: int, bottom: int) -> Tensor:
        """Rows [top, bottom): (1, Cin, bottom - top, W)."""
        return self.cut(slice(top, bottom), slice(0, self.shape[3]))[None]

    def cut(self, rows: slice, columns: slice) -> Tensor:
        """A tile (Cin, h, w)."""
        part = self.picture.read(rows.start, rows.stop, columns.start, columns.stop)
        return self.one.select(part)
