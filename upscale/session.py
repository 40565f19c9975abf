"""One run of a model over frames of one size: what `upscale_image` and `upscale_frames` share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from spandrel import ImageModelDescriptor
from torch import Tensor

from ..common.defaults import cpu_by_default
from ..common.threads import half_of_the_cores
from ..common.tiling import round_up
from .channels import PlaneUpscaler
from .clip import Clip, ClipTraits
from .exact import ExactUpscaler
from .frame import FrameUpscaler, PreparedFrame, is_opaque
from .mask import Masks, Region
from .options import Options
from .pipeline import Pipeline
from .placement import DirectPlacement, training_mode_kept
from .precision import resolve_precision
from .preview import Monitor
from .protocol import Placement
from .runner import Runner, TileTraits
from .seamless import LEAST_MARGIN, Margins
from .tiled import TiledUpscaler, TileSettings

logger = logging.getLogger(__name__)

MOST_FRAMES = 2**31
"""Stands for a number of frames that is not known."""


@dataclass(frozen=True)
class Job:
    """A frame to upscale.

    Attributes:
        clip: the frame, and those around it that the model sees; None: the same as before.
        region: where; None: everywhere.
        into: gives the picture (*size, C) to write to, when it is needed. None, for a frame that is
            the same as the one before: its picture is the same, too.
        done: called when it is written, with the picture, in the thread of `Session.run`.
    """

    clip: Clip | None
    region: Region | None
    into: Callable[[], Tensor] | None
    done: Callable[[Tensor], None] | None = None


class Session:
    """A model and what is asked of it, for frames of one size.

    Args:
        model: comes back as it was.
        height, width: size of the frames.
        frames: how many there will be at most.
        mask: as for `upscale_image`.

    Raises:
        ValueError: the model does not offer the mode, or something is wrong with the mask.
    """

    def __init__(
        self,
        model: ImageModelDescriptor,
        options: Options,
        height: int,
        width: int,
        *,
        frames: int = MOST_FRAMES,
        mask: Tensor | None = None,
        monitor: Monitor,
    ) -> None:
        self.model, self.options, self.frames, self.monitor = model, options, frames, monitor
        self.offers_exact = getattr(model.model, "exact_engine", None) is not None
        if options.mode == "exact" and not self.offers_exact:
            raise ValueError(
                f"{model.architecture.name} offers no exact mode; use mode 'auto' or 'tile'"
            )
        self.traits = traits = TileTraits.of(model)
        self.clip = ClipTraits.of(model)
        if self.clip.frames > 1 and frames == 1:
            logger.warning(
                "%s takes %d successive frames; a single picture is repeated, so it learns nothing "
                "from its neighbours: give it a video, or the frames as one batch",
                *(model.architecture.name, self.clip.frames),
            )
        context = round_up(max(LEAST_MARGIN, options.overlap or traits.overlap), traits.alignment)
        mirrored = traits.mirrored(options.border, options.mode)
        margins = Margins.of(options.seamless, context, mirrored)
        masks = None if mask is None else Masks(mask, frames, height, width, margins)
        if masks and masks.empty:  # what no model sees needs no border
            margins = masks.margins = Margins.of(options.seamless, context)
        self.masks = None if masks and masks.full else masks
        self.work = Pipeline()
        self.upscaler = FrameUpscaler(
            options, self.work, model.scale, model.input_channels, height, width, margins
        )
        self.engine: PlaneUpscaler | None = None

    @contextmanager
    def opened(
        self, device: torch.device | str | None, placement: Placement | None
    ) -> Iterator[None]:
        """A context in which the model is on the device and `run` can be called."""
        owned = DirectPlacement(self.model, device) if placement is None else nullcontext(placement)
        with (
            torch.inference_mode(),
            cpu_by_default(),
            training_mode_kept(self.model),
            owned as where,
            ExitStack() as cleanup,
        ):
            if where.device.type != "cpu":
                self.work.cores = half_of_the_cores()
            elif self.frames == 1:  # setting another number takes longer than a small picture saves
                self.work.cores = torch.get_num_threads()
            auto = where.auto_dtype(self.model)
            dtype = resolve_precision(self.options.precision, self.model, auto)
            self.engine = self._engine(Runner(self.model, dtype, where))
            if isinstance(self.engine, ExactUpscaler):
                cleanup.callback(self.engine.release)
            cleanup.enter_context(self.work)
            if self.engine:
                self.engine.prepare(self.upscaler.sizes)
            yield

    def _engine(self, runner: Runner) -> PlaneUpscaler | None:
        """What runs the model; None where the mask leaves nothing to compute."""
        mode, masked = self.options.mode, self.masks is not None
        if self.masks and self.masks.empty:
            logger.warning(
                "the mask is empty (0 everywhere), so the pictures are only resampled, without the model; LoadImage "
                "gives such a mask for a picture without transparency: connect none to use the model everywhere"
            )
            return None
        exact = mode == "exact" or (mode == "auto" and not masked)
        if self.offers_exact and (exact or self.traits.window):
            return ExactUpscaler(runner, self.frames, self.work)
        sides = self.upscaler.height, self.upscaler.width
        tile = max(sides) if mode == "whole" else self.options.tile
        overlap, batch = self.options.overlap, self.options.batch
        settings = TileSettings(
            runner, *sides, tile, overlap, batch, frames=self.frames, masked=masked
        )
        return TiledUpscaler(runner, settings, self.work)

    def region(self, index: int) -> Region | None:
        """Where the frame of this number is computed; None: everywhere."""
        return self.masks.region(index) if self.masks else None

    def steps(self, frame: Tensor, region: Region | None) -> int:
        """Steps of progress that a frame (H, W, C) takes."""
        return self.upscaler.steps(self.engine, region, frame.shape[-1], not is_opaque(frame))

    def most_steps(self, channels: int, region: Region | None) -> int:
        """Steps of progress that any frame with so many channels takes at most."""
        return self.upscaler.steps(self.engine, region, channels, transparent=channels == 4)

    def run(self, jobs: Iterator[Job]) -> None:
        """Upscale frames in their order; the last of the work may still wait afterwards.

        They are drawn from ``jobs`` and prepared in a thread, at most `pipeline.AHEAD` before.
        """
        together: list[tuple[Job, PreparedFrame]] = []
        last: Tensor | None = None
        draw = (partial(self._prepared, job) for job in jobs)
        prepared = self.work.ahead(draw, single=self.frames == 1)
        while True:
            try:
                job, frame = next(prepared, (None, None))
            except BaseException:  # what was drawn before is not lost, also of an interrupt
                if together:
                    self._upscale(together)
                raise
            if together and (job is None or not self._fits(together, frame)):
                last = self._upscale(together)
                together = []
            if job is None:
                return
            if frame is None:
                assert last is not None
                last = self._repeat(job, last)
                continue
            together.append((job, frame))
            if len(together) >= self._most_together():
                last = self._upscale(together)
                together = []

    def _repeat(self, job: Job, last: Tensor) -> Tensor:
        """The picture of a frame that is the same as the one before."""
        if job.into is not None:
            picture = job.into()
            self.work.do(partial(picture.copy_, last))
            last = picture
        self._finished(job, last)
        if job.into is None:  # of frames whose number is not known, all count
            self.work.after(partial(self.monitor.tick, self.monitor.total))
        return last

    def _prepared(self, job: Job) -> tuple[Job, PreparedFrame | None]:
        return job, None if job.clip is None else self.upscaler.prepared(job.clip)

    def _most_together(self) -> int:
        """How many frames should go through the model together."""
        if self.engine is None or self.masks or self.monitor.preview:
            return 1
        return self.engine.together(self.upscaler.height, self.upscaler.width)

    @staticmethod
    def _fits(together: list[tuple[Job, PreparedFrame]], frame: PreparedFrame | None) -> bool:
        """Whether a frame can go through the model with those before it."""
        return frame is not None and frame.passes == together[0][1].passes

    def _upscale(self, together: list[tuple[Job, PreparedFrame]]) -> Tensor:
        """Upscale some frames; the last one's picture, which may still be in the making."""
        region = together[0][0].region
        frames = [frame for _, frame in together]
        pictures = [job.into() for job, _ in together]
        if self.engine is None or (region and region.empty):
            self.upscaler.resample(frames[0], pictures[0], self.monitor)
        else:
            self.upscaler.run(self.engine, frames, region, pictures, self.monitor)
        for (job, frame), picture in zip(together, pictures):
            self._finished(job, picture)
            left = self.monitor.total - self.steps(frame.frame, region)
            if self.frames == MOST_FRAMES and left:  # all count the same, also opaque ones
                self.work.after(partial(self.monitor.tick, left))
        return pictures[-1]

    def _finished(self, job: Job, picture: Tensor) -> None:
        if job.done:
            self.work.after(partial(job.done, picture), delivers=True)
