"""`upscale_rows`: `upscale_image` for one picture that is larger than memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from spandrel import ImageModelDescriptor

from ..channels import channel_passes
from ..image import check_model
from ..memory import OutOfMemoryError
from ..options import Options
from ..preview import Monitor
from ..protocol import Placement, Progress
from ..runner import Runner
from ..session import Session
from ..tiled import TileSettings
from .exact import ExactRows
from .finish import Finisher, Sink
from .source import Continued, PictureRows
from .tiles import TileRows


@dataclass(frozen=True)
class RowsPlan:
    """What a run will need beside the picture and the result.

    Attributes:
        disk: bytes of files while it runs.
        half: the feature maps are in half precision, because the disk has no room for more. The
            result then differs from the whole-image one by rounding.
        exact: the whole-image result; else tiles.
    """

    disk: int
    half: bool
    exact: bool


def upscale_rows(
    model: ImageModelDescriptor,
    picture: PictureRows,
    sink: Sink,
    *,
    folder: Path,
    disk: int | None = None,
    first: int = 0,
    resumable: bool = False,
    mode: str = "auto",
    tile: int | None = None,
    overlap: int | None = None,
    batch: int | None = None,
    precision: str = "auto",
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    alpha: str = "model",
    placement: Placement | None = None,
    seamless: str = "none",
    border: str = "auto",
) -> None:
    """Upscale a picture that is larger than memory, from the top to the bottom.

    The pixels are those of `upscale_image`, which explains the other arguments. In tiles, a row of
    them is in memory. In exact mode FDAT's feature maps are in files, in half precision if ``disk``
    is too little for float32; networks with windows of their own need no files.

    Args:
        picture: the input, read in parts.
        sink: called as ``sink(top, rows)`` with finished rows, in a thread of its own.
        folder: for the files, which are removed at the end. It exists, and belongs to this run.
        disk: bytes that they may take; None: as many as they need.
        first: the row of the result with which to begin. Modes with tiles compute none above but
            those that share a tile with it.
        resumable: after an exception the files stay, and what is there of an earlier run, of the
            same model, picture and arguments, is not computed again.

    What `upscale_image` offers beyond that needs the whole result: masks, an ensemble, another
    target than the model's scale, colour_fix.

    Raises:
        OSError: of the files, as where the disk is full.
        ValueError, OutOfMemoryError: as `upscale_image`.

    >>> upscale_rows(model, picture, lambda top, rows: file.write(rows), folder=Path("."))
    ... # doctest: +SKIP
    """
    options = Options(
        mode=mode,
        tile=tile,
        overlap=overlap,
        batch=batch,
        precision=precision,
        alpha=alpha,
        seamless=seamless,
        border=border,
    )
    monitor = Monitor(progress, None)
    session = RowsSession(model, options, picture, folder, disk, monitor, resumable=resumable)
    with session.opened(device, placement):
        session.stream(sink, first)


def plan_rows(
    model: ImageModelDescriptor,
    picture: PictureRows,
    *,
    folder: Path,
    disk: int | None = None,
    mode: str = "auto",
    tile: int | None = None,
    overlap: int | None = None,
    batch: int | None = None,
    precision: str = "auto",
    device: torch.device | str | None = None,
    alpha: str = "model",
    placement: Placement | None = None,
    seamless: str = "none",
    border: str = "auto",
) -> RowsPlan:
    """What `upscale_rows` would need with the same arguments."""
    options = Options(
        mode=mode,
        tile=tile,
        overlap=overlap,
        batch=batch,
        precision=precision,
        alpha=alpha,
        seamless=seamless,
        border=border,
    )
    session = RowsSession(model, options, picture, folder, disk, Monitor(None, None))
    with session.opened(device, placement):
        return session.plan()


class RowsSession(Session):
    """A `Session` for one picture that is read in parts."""

    def __init__(
        self,
        model: ImageModelDescriptor,
        options: Options,
        picture: PictureRows,
        folder: Path,
        disk: int | None,
        monitor: Monitor,
        *,
        resumable: bool = False,
    ) -> None:
        check_model(model)
        super().__init__(model, options, picture.height, picture.width, frames=1, monitor=monitor)
        self.folder, self.disk, self.resumable = folder, disk, resumable
        premultiplied = picture.channels == 4 and not picture.opaque and options.alpha == "model"
        self.picture = Continued(picture, self.upscaler.margins, premultiplied=premultiplied)
        channels = picture.channels
        self.passes = channel_passes(channels, model.input_channels, with_alpha=premultiplied)

    def _engine(self, runner: Runner) -> ExactRows | TileRows:
        exact = self.options.mode in ("exact", "auto")
        if self.offers_exact and (exact or self.traits.window):
            return ExactRows(runner, self.work, self.folder, self.disk, resumable=self.resumable)
        sides = self.upscaler.height, self.upscaler.width
        tile = max(sides) if self.options.mode == "whole" else self.options.tile
        overlap, batch = self.options.overlap, self.options.batch
        return TileRows(runner, TileSettings(runner, *sides, tile, overlap, batch), self.work)

    def plan(self) -> RowsPlan:
        """What a run will need."""
        if not isinstance(self.engine, ExactRows):
            return RowsPlan(0, half=False, exact=False)
        plan = self.engine.plan_of(self.picture.height, self.picture.width)
        free = self.engine.runner.placement.available()
        if plan.memory_required > free:
            raise OutOfMemoryError(
                f"exact mode needs {plan.memory_required / 2**30:.1f} GiB of memory for this picture and "
                f"{free / 2**30:.1f} GiB are free; use mode 'tile'"
            )
        scale = self.model.scale
        pixels = self.picture.height * self.picture.width * scale**2
        passed = sum(len(one.target) for one in self.passes[:-1])
        half = getattr(plan, "map_dtype", None) == torch.float16 != self.engine.runner.dtype
        return RowsPlan(plan.disk_required + 4 * pixels * passed, half=half, exact=True)

    def stream(self, sink: Sink, first: int) -> None:
        """Upscale the picture; called within `opened`."""
        engine = self.engine
        assert isinstance(engine, ExactRows | TileRows)
        size = self.picture.height, self.picture.width
        self.monitor.total = engine.steps(*size, None) * len(self.passes)
        finisher = Finisher(self.picture, self.model.scale, sink, first)
        if isinstance(engine, TileRows):
            row = engine.begin(first + finisher.margin, *size)
            passed = row * len(engine.settings.grid(*size).columns.starts)
            self.monitor.tick(passed * len(self.passes))
        engine.stream(self.picture, self.passes, finisher, self.monitor.tick)
