"""Tiles of a picture that is read in parts, blended in the memory of one row of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...common.tiling import TileGrid
from ..blending import Canvas
from ..channels import ChannelPass, Tick
from ..clip import ClipTraits
from ..tiled import TiledUpscaler
from .finish import Finisher
from .source import Continued, PassRows


class Window:
    """The rows of the result in which the tiles of one row lie; it moves down.

    Args:
        grid: the tiles, in input pixels.
        scale: of the model.
        channels: of the picture.
        finisher: gets the rows that the window leaves behind.
    """

    def __init__(
        self,
        grid: TileGrid,
        scale: int,
        channels: int,
        passes: Sequence[ChannelPass],
        finisher: Finisher,
    ) -> None:
        self.grid, self.scale, self.finisher = grid, scale, finisher
        height = grid.rows.size * scale
        self.memory = torch.empty(height, grid.columns.length * scale, channels)
        self.canvases = [
            Canvas(self.memory[..., one.written], grid, scale, complete=True) for one in passes
        ]
        self.top: int | None = None

    def move(self, row: int) -> None:
        """To the tiles of this row. What lies above is finished."""
        top = self.grid.rows.starts[row] * self.scale
        if self.top is None:
            kept = 0
        else:
            self._hand_on(top - self.top)
            kept = len(self.memory) - (top - self.top)
            for done in range(0, kept, step := max(top - self.top, 1)):  # parts that don't overlap
                part = slice(done, min(done + step, kept))
                moved = slice(part.start + top - self.top, part.stop + top - self.top)
                self.memory[part] = self.memory[moved]
        self.top = top
        for canvas in self.canvases:
            canvas.top = top
            if canvas.sums:
                canvas.into[kept:] = 0

    def end(self) -> None:
        """All tiles have been added."""
        self._hand_on(len(self.memory))

    def _hand_on(self, rows: int) -> None:
        assert self.top is not None
        self.finisher.take(self.top, self.memory[:rows])


class TileRows(TiledUpscaler):
    """Runs the tiles of a picture that is read in parts."""

    def begin(self, first: int, height: int, width: int) -> int:
        """The row of tiles with which to begin, for results from row ``first`` on.

        Batches are made of the same tiles as in a run from the top.
        """
        grid, scale = self.settings.grid(height, width), self.runner.original.scale
        across, rows = len(grid.columns.starts), grid.rows
        row = sum((start + rows.size) * scale <= first for start in rows.starts[:-1])
        while (row * across) % self.settings.batch:
            row -= 1
        return row

    def stream(
        self,
        picture: Continued,
        passes: Sequence[ChannelPass],
        finisher: Finisher,
        tick: Tick,
    ) -> None:
        """Run all passes, each row of tiles by one after the other."""
        size = picture.height, picture.width
        grid, scale = self.settings.grid(*size), self.runner.original.scale
        across, down = len(grid.columns.starts), len(grid.rows.starts)
        window = Window(grid, scale, picture.channels, passes, finisher)
        planes = [PassRows(picture, one) for one in passes]
        begin = self.begin(finisher.done + finisher.margin, *size)
        # a single pass is not cut where a row ends, so that batches are those of `TiledUpscaler`
        rows_at_once = down if len(passes) == 1 else 1
        for row in range(begin, down, rows_at_once):
            stop = min(row + rows_at_once, down)
            for index, (one, source) in enumerate(zip(passes, planes)):
                places = [(0, number) for number in range(row * across, stop * across)]
                canvas = Moving(window, index)
                self._through(source, grid, places, [canvas], one, tick, planar=False)
        self.work.do(window.end)
        self.work.drain()

    def _part(self, planes: Any, frame: int, rows: slice, columns: slice) -> Tensor:
        part = planes.cut(rows, columns)
        frames = ClipTraits.of(self.runner.original).frames
        return part if frames == 1 else part.repeat(frames, 1, 1)  # of a video; here there is one


class Moving:
    """The canvas of one pass, which moves its window when the tiles of the next row come."""

    def __init__(self, window: Window, index: int) -> None:
        self.window, self.canvas = window, window.canvases[index]

    def add(self, number: int, tile: Tensor) -> tuple[slice, slice]:
        """As `Canvas.add`."""
        row, _ = self.window.grid.index(number)
        if self.window.top != self.window.grid.rows.starts[row] * self.window.scale:
            self.window.move(row)
        return self.canvas.add(number, tile)
