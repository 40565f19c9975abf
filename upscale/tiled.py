"""Upscales planes in overlapping tiles, within the free memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..common.tiling import TileGrid, plan_grid, round_up
from .blending import Canvas, axis_weights
from .channels import ChannelPass, Mark, Tick, is_planar
from .clip import ClipTraits
from .memory import OutOfMemoryError, first_line
from .pipeline import Pipeline
from .protocol import Recall
from .recall import SHARE, Memory, Shown
from .runner import Result, Runner, TileTraits, not_finite, usual_batch
from .transfer import Arrival

logger = logging.getLogger(__name__)

LARGEST_DEFAULT_TILE = 512
MASKED_TILE = 256
"""Default tile with a mask: smaller tiles leave more of the image out."""

SMALLEST_TILE = 32
Place = tuple[slice, slice]


class TileSettings:
    """Tile size, overlap and batch for images up to one size.

    They are as asked for, else chosen for the model; `fit` makes them smaller if memory is short.

    Args:
        runner: runs the model.
        height, width: size of the image, in pixels.
        tile, overlap, batch: as asked for; None: automatic.
        frames: how many images there are at most; tiles of several may go through the model together.
        masked: only a part of the image will be computed.
    """

    def __init__(
        self,
        runner: Runner,
        height: int,
        width: int,
        tile: int | None,
        overlap: int | None,
        batch: int | None,
        *,
        frames: int = 1,
        masked: bool = False,
    ) -> None:
        self.runner = runner
        self.masked = masked
        self.traits = traits = TileTraits.of(runner.original)
        self.floor = round_up(
            max(SMALLEST_TILE, traits.minimum, 2 * traits.alignment), traits.alignment
        )
        self.longest = max(height, width)
        self.size = height, width
        self.tile_given, self.batch_given = tile is not None, batch is not None
        self.tile = tile or max(self._default_tile(), 2 * (overlap or 0))
        self.tile = max(self.tile, traits.minimum, 2 * traits.alignment)
        default = min(traits.overlap, self.tile // 4)
        self.overlap = default if overlap is None else overlap
        self.overlap_given = overlap is not None
        self.floor = max(self.floor, 2 * (overlap or 0))
        self.frames = frames
        grid = self.grid(height, width)
        pixels = grid.rows.size * grid.columns.size
        self.batch = batch or usual_batch(runner.placement.device, pixels)

    def grid(self, height: int, width: int) -> TileGrid:
        """The tiles of an image of this size, in input pixels."""
        return plan_grid(height, width, self.tile, self.overlap, self.traits.alignment)

    def tiles(self, height: int, width: int, touched: Tensor | None) -> tuple[TileGrid, list[int]]:
        """The grid of an image of this size, and the numbers of the tiles to compute.

        These are the tiles that hold a pixel of ``touched`` (H, W) bool.
        """
        grid = self.grid(height, width)
        numbers = range(len(grid))
        return grid, [n for n in numbers if touched is None or bool(touched[grid.window(n)].any())]

    def _default_tile(self) -> int:
        """The whole image for models whose result depends on all of it, else a moderate size."""
        if self.masked:
            return MASKED_TILE
        if self.longest > LARGEST_DEFAULT_TILE and self.runner.looks_at_whole():
            return self.longest
        return LARGEST_DEFAULT_TILE

    def fit(self) -> tuple[int, int]:
        """Load the model, then shrink what was not asked for until a batch fits in free memory.

        The bytes that a batch needs, and those that are free.
        """
        while True:
            grid = self.grid(*self.size)
            batch = min(self.batch, len(grid) * self.frames)
            self.runner.prepare(batch, grid.rows.size, grid.columns.size)
            needed = self.runner.memory_required(batch, grid.rows.size, grid.columns.size)
            free = self.runner.placement.available()
            if needed <= free:
                return needed, free
            if batch > 1 and not self.batch_given:
                self.batch = batch // 2
            elif not self.tile_given and self.tile > self.floor:
                side = int(max(grid.rows.size, grid.columns.size) * math.sqrt(free / needed))
                self.tile = max(min(side, self.tile - self.traits.alignment), self.floor)
                if not self.overlap_given:
                    self.overlap = min(self.overlap, self.tile // 4)
            else:
                return needed, free  # try as asked for; `TiledUpscaler` handles shortages


@dataclass(frozen=True)
class Piece:
    """Some tiles that went through the network together.

    Attributes:
        places: for each tile, the frame and the number of the tile in it.
        tiles: what went in, (B, Cin, h, w) float32.
        values: what came out, (B, h * scale, w * scale, channels of the pass).
        finite: () bool, whether that is free of NaN and infinity.
        dtype: the precision of the network.
    """

    places: list[tuple[int, int]]
    tiles: Tensor
    values: Arrival
    finite: Arrival
    dtype: torch.dtype


class TiledUpscaler:
    """Runs tiles and remembers how much fits in memory.

    After running out of memory, batches and then tiles are halved, for all that follows.
    """

    def __init__(self, runner: Runner, settings: TileSettings, work: Pipeline) -> None:
        self.runner = runner
        self.work = work
        self.settings = settings
        self.batch, self.largest = settings.batch, settings.tile
        self._distrusted: torch.dtype | None = None
        self._memory: Memory | None = None

    def prepare(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Load the model and fix the size of tiles; it is the same for all ``sizes``."""
        needed, free = self.settings.fit()
        self.batch, self.largest = self.settings.batch, self.settings.tile
        grid = self.settings.grid(*self.settings.size)
        if len(grid) > 1:
            self.runner.tell_tiles(grid.rows.size, grid.columns.size)
        if ClipTraits.of(self.runner.original).recalling:
            self._memory = Memory(int(max(free - needed, 0) * SHARE))

    def together(self, height: int, width: int) -> int:
        """As many frames as make a batch, where a frame is less than that."""
        return max(self.settings.batch // len(self.settings.grid(height, width)), 1)

    def steps(self, height: int, width: int, touched: Tensor | None) -> int:
        """Ticks of one pass over an image of this size."""
        return len(self.settings.tiles(height, width, touched)[1])

    def run(
        self,
        planes: Tensor,
        into: Sequence[Tensor],
        one: ChannelPass,
        tick: Tick,
        touched: Tensor | None = None,
        mark: Mark | None = None,
        shown: Shown | None = None,
    ) -> None:
        """Upscale ``planes`` (B, Cin, H, W), as `channels.PlaneUpscaler` says.

        Tiles without a pixel of ``touched`` (H, W) bool are left out. Where a pixel's tiles are not
        all computed, ``into`` holds 0 or only a part of the weighted sum.
        """
        scale = self.runner.original.scale
        grid, numbers = self.settings.tiles(planes.shape[-2], planes.shape[-1], touched)
        complete = len(numbers) == len(grid)
        canvases = [Canvas(picture, grid, scale, complete=complete) for picture in into]
        for canvas in canvases:
            self.work.do(canvas.begin)
        places = [(frame, number) for frame in range(len(planes)) for number in numbers]
        planar = is_planar(into[0])
        self._through(planes, grid, places, canvases, one, tick, mark, shown, planar=planar)

    def _through(
        self,
        planes: Any,
        grid: TileGrid,
        places: list[tuple[int, int]],
        canvases: Sequence[Canvas],
        one: ChannelPass,
        tick: Tick,
        mark: Mark | None = None,
        shown: Shown | None = None,
        *,
        planar: bool,
    ) -> None:
        """Run tiles, each by its frame and its number in the grid, and add them to the canvases."""
        size = self.batch
        batches = (places[at : at + size] for at in range(0, len(places), size))
        cuts = (partial(self._cut, planes, grid, batch) for batch in batches)
        for batch, tiles in self.work.ahead(cuts, single=len(places) <= size):
            while batch:  # it may have become too large since it was cut
                count = 1 if max(tiles.shape[-2:]) > self.largest else min(self.batch, len(batch))
                recalls = self._recalls(grid, batch[:count], one, shown)
                piece = self._compute(batch[:count], tiles[:count], recalls, one, planar)
                if piece is None:
                    continue
                add = partial(self._add, canvases, piece, one, [])
                self.work.do(add, partial(self._added, tick, mark), piece=True)
                del piece, add  # the thread frees them, which takes a while
                batch, tiles = batch[count:], tiles[count:]

    def _cut(
        self, planes: Any, grid: TileGrid, batch: list[tuple[int, int]]
    ) -> tuple[list[tuple[int, int]], Tensor]:
        """The batch, and its tiles (B, Cin, h, w) in main memory."""
        windows = [(frame, *grid.window(number)) for frame, number in batch]
        tiles = [self._part(planes, *window) for window in windows]
        return batch, self.runner.copies.staged(tiles)

    def _recalls(
        self, grid: TileGrid, batch: list[tuple[int, int]], one: ChannelPass, shown: Shown | None
    ) -> list[Recall]:
        """What the tiles of a batch may recall of those before them at the same places."""
        if self._memory is None or shown is None:
            return []
        return [
            self._memory.at(
                (shown.member, one, str(grid.window(number)), self.runner.dtype),
                shown.clips[frame],
            )
            for frame, number in batch
        ]

    def _part(self, planes: Any, frame: int, rows: slice, columns: slice) -> Tensor:
        """A tile (Cin, h, w) of ``planes``."""
        return planes[frame, :, rows, columns]

    def _compute(
        self,
        places: list[tuple[int, int]],
        tiles: Tensor,
        recalls: list[Recall],
        one: ChannelPass,
        planar: bool,
    ) -> Piece | None:
        """Start the network and send its result on its way.

        None after running out of memory with a batch, which has been halved then.
        """
        result = self._attempt(tiles, recalls)
        if result is None:
            if len(places) > 1:
                return None
            values = self._split(tiles[0])[None]
            finite = torch.ones((), dtype=torch.bool)
            result = Result(values, finite, self.runner.dtype, fresh=True)
        copies = self.runner.copies
        collected = one.collect(result.values, planar=planar)
        values = copies.download(collected, fresh=result.fresh)
        finite = copies.download(result.finite, fresh=True)
        return Piece(places, tiles, values, finite, result.dtype)

    def _add(
        self, canvases: Sequence[Canvas], piece: Piece, one: ChannelPass, done: list[Place]
    ) -> list[Place]:
        """Put a piece that has arrived in its places; where they lie in the pictures.

        ``done`` are those of the tiles that an earlier attempt has added.
        """
        values, finite = piece.values.wait(), bool(piece.finite.wait())
        if not finite or piece.dtype == self._distrusted:
            values = self.work.ask(partial(self._again, piece, one))
        for (frame, number), tile in list(zip(piece.places, values))[len(done) :]:
            done.append(canvases[frame].add(number, tile))
        piece.values.release()
        return done

    def _again(self, piece: Piece, one: ChannelPass) -> Tensor:
        """The values of a piece in float32, and from there on those of all that follow.

        What has gone through the network meanwhile is computed again as well, so that it does not
        depend on the moment where float32 begins.
        """
        runner = self.runner
        if piece.dtype == torch.float32:
            raise not_finite(runner.original)
        self._distrusted = piece.dtype
        if self._memory:
            self._memory.forget()
        if runner.dtype != torch.float32:
            runner.fall_back("made NaN or infinite values", piece.tiles)
        return torch.stack([one.collect(self._settled(tile)) for tile in piece.tiles])

    def _added(self, tick: Tick, mark: Mark | None, places: list[Place]) -> None:
        for place in places if mark else ():
            mark(*place)
        tick(len(places))

    def _attempt(self, tiles: Tensor, recalls: list[Recall] | None = None) -> Result | None:
        """The result, or None after running out of memory.

        In that case the batch or the largest tile to try next has been made smaller.
        """
        if max(tiles.shape[-2:]) > self.largest:
            return None
        try:
            return self.runner(tiles, recalls or ())
        except Exception as error:
            if not self.runner.placement.is_out_of_memory(error):
                raise
            reason = first_line(error)
        # not within the except block, where the traceback still holds the tensors
        kept, self._memory = self._memory, None
        if kept and kept.held:
            logger.warning("out of memory (%s): nothing is kept for the next clips", reason)
            kept.forget()
            if recalls:
                recalls.clear()
            self.runner.placement.release_cache()
            return self._attempt(tiles)
        self.runner.placement.release_cache()
        if len(tiles) > 1:
            self.batch = len(tiles) // 2
            logger.warning("out of memory (%s): going on with batches of %d", reason, self.batch)
            return None
        side, floor = max(tiles.shape[-2:]), self.settings.floor
        if side <= floor:
            raise OutOfMemoryError(
                f"out of memory with a single tile of {tiles.shape[-1]}x{tiles.shape[-2]} pixels ({reason}); close "
                "other programs, unload other models, choose precision 'fp16' or 'bf16', or use a smaller model"
            )
        self.largest = max(side // 2, floor)
        logger.warning("out of memory (%s): going on with tiles of %d pixels", reason, self.largest)
        self.runner.tell_tiles(self.largest, self.largest)
        return None

    def _settled(self, tile: Tensor) -> Tensor:
        """What a tile (Cin, h, w) becomes: finite, (Cout, h * scale, w * scale) on the CPU.

        It waits for the device, so it is for what happens rarely.
        """
        result = self._attempt(tile[None])
        if result is None:
            return self._split(tile)
        if not result.finite:
            if result.dtype == torch.float32:
                raise not_finite(self.runner.original)
            self.runner.fall_back("made NaN or infinite values", tile[None])
            return self._settled(tile)
        return result.values[0].to("cpu")

    def _split(self, tile: Tensor) -> Tensor:
        """Compute one tile in smaller ones, and these in smaller ones if needed.

        (Cin, h, w) -> (Cout, h * scale, w * scale) on the CPU
        """
        model = self.runner.original
        scale, alignment = model.scale, self.settings.traits.alignment
        height, width = tile.shape[-2:]
        grid = plan_grid(
            height, width, self.largest, min(self.settings.overlap, self.largest // 4), alignment
        )
        row_weights, column_weights = (
            axis_weights(grid.rows, scale),
            axis_weights(grid.columns, scale),
        )
        result = torch.zeros(
            model.output_channels, height * scale, width * scale, dtype=torch.float32
        )
        for number in range(len(grid)):
            rows, columns = grid.window(number)
            row, column = grid.index(number)
            values = self._settled(tile[:, rows, columns]).clamp(0, 1).float()
            result[(slice(None), *grid.window(number, scale))] += values * (
                row_weights[row][:, None] * column_weights[column]
            )
        return result
