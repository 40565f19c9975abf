"""Operators on consecutive rows of an image: tensors (h, W, C), channels last, one image at a time.

A 3x3 operator needs the row above and the row below. Where rows arrive in bands, `Seam` (or `Halo`)
keeps the last two of them, so that the operator's output lags one row behind its input and nothing
is computed twice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.onednn import convolve_gelu


def as_image(rows: Tensor) -> Tensor:
    """Rows (h, W, C) seen as an image (1, C, h, W) in channels-last memory, for convolutions."""
    # The batch dimension is added before the permutation; added after it, it would have a stride
    # by which operators don't recognise channels-last memory.
    return rows[None].permute(0, 3, 1, 2)


def as_rows(image: Tensor) -> Tensor:
    """The opposite of `as_image`."""
    return image.permute(0, 2, 3, 1)[0]


def convolve(
    rows: Tensor, weight: Tensor, bias: Tensor | None = None, *, groups: int = 1
) -> Tensor:
    """3x3 convolution of rows with one halo row above and below, zero-padded left and right.

    (h + 2, W, C) -> (h, W, O)
    """
    if rows.shape[0] < 3:
        return rows.new_empty(0, rows.shape[1], weight.shape[0])
    return as_rows(F.conv2d(as_image(rows), weight, bias, padding=(0, 1), groups=groups))


def convolve_band(
    rows: Tensor,
    top: bool,
    bottom: bool,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    groups: int = 1,
) -> Tensor:
    """3x3 convolution of a band with halo rows; beyond the image they are zero and left out.

    (h + 2, W, C) -> (h, W, O). At the image's ``top`` and at its ``bottom`` the input has one row
    less, because it lacks that halo row.
    """
    if not (top or bottom):
        return convolve(rows, weight, bias, groups=groups)
    y = as_rows(F.conv2d(as_image(rows), weight, bias, padding=1, groups=groups))
    return y[int(not top) : y.shape[0] - int(not bottom)]


def gelu_depthwise_band(rows: Tensor, top: bool, bottom: bool, weight: Tensor) -> Tensor:
    """gelu(`convolve_band`) with a kernel (C, 1, 3, 3)."""
    edge = top or bottom
    y = as_rows(convolve_gelu(as_image(rows), weight, None, (int(edge), 1), weight.shape[0]))
    return y[int(not top) : y.shape[0] - int(not bottom)] if edge else y


class Seam:
    """Cuts rows that arrive in bands into pieces for a 3x3 operator, copying at most four rows.

    The first band is one piece. Every later band gives two: the seam, which is the last two rows
    of the band before and the first two of this one, and the band itself. Together the operator's
    outputs for all pieces have no gap.
    """

    def __init__(self) -> None:
        self.kept: Tensor | None = None  # the last two rows so far, or the only one

    def pieces(self, rows: Tensor, last: bool) -> list[tuple[Tensor, bool, bool]]:
        """Take the next rows (h, W, C), possibly none; return pieces for `convolve_band`.

        Each piece is ``(rows, top, bottom)``.
        """
        above = self.kept
        if above is None:
            self.kept = rows[-2:].clone()
            return [(rows, True, last)]
        seam, top = torch.cat([above, rows[:2]]), above.shape[0] == 1
        if rows.shape[0] < 2:
            self.kept = seam[-2:].clone()
            return [(seam, top, last)] if seam.shape[0] + top + last > 2 else []
        self.kept = rows[-2:].clone()
        return (
            [(seam, top, False), (rows, False, last)]
            if rows.shape[0] > 2 or last
            else [(seam, top, False)]
        )


class Halo:
    """Turns bands of rows into bands with halo rows, as a 3x3 operator needs them.

    A row is held back until the row below it has arrived.
    """

    def __init__(self) -> None:
        # the last two rows so far, or the padding row above the image and the only row
        self.kept: Tensor | None = None

    def extend(self, rows: Tensor, last: bool) -> Tensor:
        """Take the next rows (h, W, C); return them below the rows kept from the band before.

        Rows of zeros pad the image's top and bottom. The first band gives h + 1 rows, later bands
        h + 2, and the last one (even if it is the first) one more.
        """
        above = 1 if self.kept is None else 2
        below = above + rows.shape[0]
        extended = rows.new_empty(below + int(last), *rows.shape[1:])
        extended[:above] = 0 if self.kept is None else self.kept
        extended[above:below] = rows
        extended[below:] = 0
        self.kept = None if last else extended[-2:].clone()
        return extended


def to_windows(rows: Tensor, size: int) -> Tensor:
    """(h, W, C) -> (windows, size * size, C); windows that cross the edge are padded with zeros."""
    height, width, dim = rows.shape
    if width % size or height % size:
        rows = F.pad(rows, (0, 0, 0, -width % size, 0, -height % size))
    windows = (
        rows.unflatten(1, (-1, size)).unflatten(0, (-1, size)).transpose(1, 2)
    )  # (down, across, size, size, C)
    return windows.reshape(-1, size * size, dim)


def add_windows_(rows: Tensor, windows: Tensor, size: int) -> None:
    """rows (h, W, C) += windows (windows, size * size, C), except what lies outside the rows."""
    height, width, dim = rows.shape
    down, across = -(-height // size), -(-width // size)
    windows = windows.view(down, across, size, size, dim).transpose(
        1, 2
    )  # (down, size, across, size, C)
    if (down * size, across * size) == (height, width):
        rows.unflatten(1, (across, size)).unflatten(0, (down, size)).add_(windows)
    else:
        rows.add_(windows.reshape(down * size, across * size, dim)[:height, :width])


def shuffle_rows(rows: Tensor, scale: int) -> Tensor:
    """Pixel shuffle: (h, W, C * scale**2) -> (h * scale, W * scale, C)."""
    height, width, channels = rows.shape
    rows = rows.view(height, width, channels // scale**2, scale, scale)
    return rows.permute(0, 3, 1, 4, 2).reshape(height * scale, width * scale, -1)


def repeat_rows(rows: Tensor, scale: int) -> Tensor:
    """Nearest-neighbour enlargement: (h, W, C) -> (h * scale, W * scale, C)."""
    height, width, channels = rows.shape
    rows = rows[:, None, :, None].expand(height, scale, width, scale, channels)
    return rows.reshape(height * scale, width * scale, channels)
