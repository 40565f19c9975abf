"""Runs a network with a fixed input size on any image, by overlapping windows that are blended.

Finished rows are handed out band by band.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.reflection import reflect
from ...common.rows import RowsOn, TensorRows
from .geometry import Window, plan_windows

Place = tuple[tuple[int, int], tuple[int, int]]
"""Output pixels of a window: rows and columns, each as the first one and one past the last."""


def cut_places(windows: Tensor, places: Sequence[Place]) -> list[Tensor]:
    """Cut from each window the pixels of its place: (N, C, h, w) -> N of (C, rows, columns)."""
    return [
        y[:, slice(*rows), slice(*columns)]
        for y, (rows, columns) in zip(windows, places, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class Windowing:
    """A network and the windows that it is run in.

    Attributes:
        network: (N, C, window, window) -> (N, C, window * scale, window * scale). If it has a
            method ``parts(x, places)``, that is called instead and computes only the output pixels
            that are kept: N of (C, rows, columns).
        window: side of the network's input, in pixels.
        scale: output size / input size.
        overlap: least overlap of neighbouring windows, in input pixels, up to half a window.
    """

    network: nn.Module
    window: int
    scale: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= self.window // 2:
            raise ValueError(
                f"overlap is from 0 to half of the window's {self.window} pixels, not {self.overlap}"
            )

    def axes(self, height: int, width: int) -> tuple[list[Window], list[Window]]:
        """The windows of an image of this size, from top to bottom and from left to right."""
        rows, columns = (
            plan_windows(length, self.window, self.overlap, self.scale)
            for length in (height, width)
        )
        return rows, columns

    def _axes_on(
        self, device: torch.device, height: int, width: int
    ) -> tuple[list[Window], list[Window]]:
        """As `axes`, with the weights on the device, in one copy instead of one for each window."""
        axes = self.axes(height, width)
        windows = [window for axis in axes for window in axis]
        weights = torch.cat([window.weights for window in windows])
        # few other devices have float64
        dtype = torch.float64 if device.type in ("cpu", "cuda") else torch.float32
        weights = weights.to(device, dtype)
        parts = iter(weights.split([len(window.weights) for window in windows]))
        vertical, horizontal = (
            [replace(window, weights=next(parts)) for window in axis] for axis in axes
        )
        return vertical, horizontal

    def bands(
        self,
        x: Tensor,
        batch: int,
        tick: Callable[[], None] = lambda: None,
        touched: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Finished rows of the result, from top to bottom: (B, C, h, W * scale), at least float32.

        Args:
            x: (B, C, H, W). Images smaller than a window are padded by reflection on all sides.
            batch: windows per call of the network.
            tick: called once for every window, after its batch.
            touched: (H, W) bool, the wanted pixels; windows without any of them are not computed
                but count as zeros.

        Raises:
            ValueError: ``x`` is not a batch of images, or has an empty side.
        """
        if x.ndim != 4 or 0 in x.shape:
            raise ValueError(
                f"expected an image batch (B, C, H, W) without empty sides, found {tuple(x.shape)}"
            )
        return self.bands_of(TensorRows(x), batch, tick, touched)

    def bands_of(
        self,
        x: TensorRows | RowsOn,
        batch: int,
        tick: Callable[[], None] = lambda: None,
        touched: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """As `bands`, of images of which the rows of one row of windows are read at a time."""
        images, channels, height, width = x.shape
        vertical, horizontal = self._axes_on(x.device, height, width)
        if height < self.window:
            missing = self.window - height
            whole = reflect(x.rows(0, height), 2, missing // 2, missing - missing // 2)
            x = TensorRows(whole)
        missing = max(self.window - width, 0)
        dtype = torch.promote_types(x.dtype, torch.float32)
        # Windows in one column keep the same output pixels. They are neighbours in this list, so
        # that the network can compute them together.
        places = [(image, column) for column in horizontal for image in range(images)]
        shape = images, channels, 0, width * self.scale
        top, unfinished = 0, torch.zeros(shape, dtype=dtype, device=x.device)
        for row, following in zip_longest(vertical, vertical[1:]):
            new = row.target + len(row.weights) - top - unfinished.shape[2]
            unfinished = F.pad(unfinished, (0, 0, 0, new))
            wanted = [place for place in places if self._is_touched(touched, row, place[1])]
            strip = None
            if wanted:
                strip = x.rows(row.start, row.start + self.window)
                strip = reflect(strip, 3, missing // 2, missing - missing // 2)
            for first in range(0, len(wanted), batch):
                chosen = wanted[first : first + batch]
                self._add_windows(unfinished, strip, row, row.target - top, chosen)
                for _ in chosen:
                    tick()
            for _ in range(len(places) - len(wanted)):
                tick()
            finished = following.target - top if following else unfinished.shape[2]
            yield unfinished[:, :, :finished]
            top, unfinished = top + finished, unfinished[:, :, finished:]

    def _is_touched(self, touched: Tensor | None, row: Window, column: Window) -> bool:
        if touched is None:
            return True
        rows = slice(row.start, row.start + self.window)
        return bool(touched[rows, column.start : column.start + self.window].any())

    def _add_windows(
        self, rows: Tensor, strip: Tensor, row: Window, top: int, places: list[tuple[int, Window]]
    ) -> None:
        """Add the weighted results of one row of windows to ``rows`` from its row ``top`` on.

        ``strip`` are the rows of the images in which these windows lie.
        """
        windows = [strip[i, :, :, c.start : c.start + self.window] for i, c in places]
        kept = [(row.kept, column.kept) for _, column in places]
        for (i, column), result in zip(places, self._parts(torch.stack(windows), kept)):
            weights = (row.weights[:, None] * column.weights).to(rows.dtype)
            bottom, right = top + len(row.weights), column.target + len(column.weights)
            rows[i, :, top:bottom, column.target : right] += result * weights

    def _parts(self, windows: Tensor, kept: Sequence[Place]) -> Sequence[Tensor]:
        """The kept output pixels of each window."""
        parts = getattr(self.network, "parts", None)
        return cut_places(self.network(windows), kept) if parts is None else parts(windows, kept)
