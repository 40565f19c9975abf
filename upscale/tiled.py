"""Upscales planes in overlapping tiles, within the free memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from functools import partial

import torch
from spandrel import ImageModelDescriptor, ModelTiling
from torch import Tensor

from ..common.tiling import TileGrid, plan_grid, round_up
from .blending import Canvas, axis_weights
from .channels import ChannelPass, Mark
from .memory import OutOfMemoryError, first_line
from .pipeline import HostWork
from .runner import Runner, TileTraits

logger = logging.getLogger(__name__)

LARGEST_DEFAULT_TILE = 512
MASKED_TILE = 256
"""Default tile with a mask: smaller tiles leave more of the image out."""

SMALLEST_TILE = 32
PIXELS_PER_BATCH = {"cpu": 128**2, "other": 512**2}
LARGEST_BATCH = 16
Place = tuple[slice, slice]


class TileSettings:
    """Tile size, overlap and batch for images up to one size.

    They are as asked for, else chosen for the model; `fit` makes them smaller if memory is short.

    Args:
        runner: runs the model.
        height, width: size of the image, in pixels.
        tile, overlap, batch: as asked for; None: automatic.
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
        self.tile = tile or max(self._default_tile(runner.original), 2 * (overlap or 0))
        self.tile = max(self.tile, traits.minimum, 2 * traits.alignment)
        default = min(traits.overlap, self.tile // 4)
        self.overlap = default if overlap is None else overlap
        self.overlap_given = overlap is not None
        self.floor = max(self.floor, 2 * (overlap or 0))
        self.batch = batch or self._default_batch()

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

    def _default_tile(self, model: ImageModelDescriptor) -> int:
        """The whole image for models whose result depends on all of it, else a moderate size."""
        if self.masked:
            return MASKED_TILE
        return self.longest if model.tiling is ModelTiling.DISCOURAGED else LARGEST_DEFAULT_TILE

    def _default_batch(self) -> int:
        kind = "cpu" if self.runner.placement.device.type == "cpu" else "other"
        return min(max(PIXELS_PER_BATCH[kind] // self.tile**2, 1), LARGEST_BATCH)

    def fit(self) -> None:
        """Load the model, then shrink what was not asked for until a batch fits in free memory."""
        while True:
            grid = self.grid(*self.size)
            batch = min(self.batch, len(grid))
            self.runner.prepare(batch, grid.rows.size, grid.columns.size)
            needed = self.runner.memory_required(batch, grid.rows.size, grid.columns.size)
            free = self.runner.placement.available()
            if needed <= free:
                return
            if batch > 1 and not self.batch_given:
                self.batch = batch // 2
            elif not self.tile_given and self.tile > self.floor:
                side = int(max(grid.rows.size, grid.columns.size) * math.sqrt(free / needed))
                self.tile = max(min(side, self.tile - self.traits.alignment), self.floor)
                if not self.overlap_given:
                    self.overlap = min(self.overlap, self.tile // 4)
            else:
                return  # try as asked for; `TiledUpscaler` handles running out of memory


class TiledUpscaler:
    """Runs tiles and remembers how much fits in memory.

    After running out of memory, batches and then tiles are halved, for all that follows.
    """

    def __init__(
        self,
        runner: Runner,
        settings: TileSettings,
        tick: Callable[[int], None],
        work: HostWork,
    ) -> None:
        self.runner = runner
        self.work = work
        self.settings = settings
        self.tick = tick
        self.batch, self.largest = settings.batch, settings.tile

    def prepare(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Load the model and fix the size of tiles; it is the same for all ``sizes``."""
        self.settings.fit()
        self.batch, self.largest = self.settings.batch, self.settings.tile

    def steps(self, height: int, width: int, touched: Tensor | None) -> int:
        """Ticks of one pass over an image of this size."""
        return len(self.settings.tiles(height, width, touched)[1])

    def run(
        self,
        plane: Tensor,
        into: Tensor,
        one: ChannelPass,
        touched: Tensor | None = None,
        mark: Mark | None = None,
    ) -> None:
        """Upscale ``plane`` (Cin, H, W) into ``into`` (H * scale, W * scale, channels of the pass).

        Tiles without a pixel of ``touched`` (H, W) bool are left out. Where a pixel's tiles are not
        all computed, ``into`` holds 0 or only a part of the weighted sum.
        """
        scale = self.runner.original.scale
        grid, waiting = self.settings.tiles(plane.shape[-2], plane.shape[-1], touched)
        canvas = Canvas(into, grid, scale, one, complete=len(waiting) == len(grid))
        self.work.do(canvas.begin)
        position = 0
        while position < len(waiting):
            batch = 1 if max(grid.rows.size, grid.columns.size) > self.largest else self.batch
            numbers = waiting[position : position + batch]
            tiles = self._cut(plane, [grid.window(number) for number in numbers])
            results = self._attempt(tiles)
            if results is None:
                if len(numbers) > 1:  # the batch was too large and has been halved: try again
                    continue
                results = self._split(tiles[0])[None]
            add = partial(self._add, canvas, numbers, results, [])
            self.work.do(add, partial(self._added, mark), piece=True)
            position += len(numbers)

    @staticmethod
    def _cut(plane: Tensor, places: list[tuple[slice, slice]]) -> Tensor:
        """Tiles (B, Cin, h, w), contiguous; a single one that is the whole plane is no copy."""
        tiles = [plane[:, rows, columns] for rows, columns in places]
        return tiles[0][None].contiguous() if len(tiles) == 1 else torch.stack(tiles)

    def _add(
        self, canvas: Canvas, numbers: list[int], results: Tensor, places: list[Place]
    ) -> list[Place]:
        """Bring a batch of results home; where they lie in the picture.

        ``places`` are those of the tiles that an earlier attempt has added.
        """
        tiles = results.to("cpu")
        for position in range(len(places), len(numbers)):
            places.append(canvas.add(numbers[position], tiles[position]))
        return places

    def _added(self, mark: Mark | None, places: list[Place]) -> None:
        for place in places if mark else ():
            mark(*place)
        self.tick(len(places))

    def _attempt(self, tiles: Tensor) -> Tensor | None:
        """The result, or None after running out of memory.

        In that case the batch or the largest tile to try next has been made smaller.
        """
        if max(tiles.shape[-2:]) > self.largest:
            return None
        try:
            return self.runner(tiles)
        except Exception as error:
            if not self.runner.placement.is_out_of_memory(error):
                raise
            reason = first_line(error)
        # not within the except block, where the traceback still holds the tensors
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
        return None

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
            part = self._attempt(tile[None, :, rows, columns])
            part = self._split(tile[:, rows, columns]) if part is None else part[0].cpu()
            part = part.clamp(0, 1)
            result[(slice(None), *grid.window(number, scale))] += part * (
                row_weights[row][:, None] * column_weights[column]
            )
        return result
