"""Upscales one frame, with everything that was asked for:

- the frame is continued beyond its seams;
- for each member of the ensemble: turned, passed through the model once or more, turned back;
- the mean of the members; then colour fix, mask and transparency;
- cropped, and resampled to the target's size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch import Tensor

from .channels import (
    ChannelPass,
    PlaneUpscaler,
    Tick,
    channel_passes,
    premultiply,
    unpremultiply_,
)
from .clip import Clip, Seen
from .colour import fix_colour_
from .ensemble import members
from .mask import Region, blend_
from .options import Options
from .pipeline import Pipeline
from .preview import Growth, Monitor
from .recall import Given, Shown
from .resize import enlarged_bands, resize
from .seamless import Margins


def is_opaque(frame: Tensor) -> bool:
    """Whether no pixel of (H, W, C) is transparent."""
    return frame.shape[-1] != 4 or bool((frame[..., 3] >= 1).all())


def _side_by_side(planes: list[Tensor]) -> Tensor:
    """The planes (C, H, W) of several frames, one after the other."""
    return planes[0] if len(planes) == 1 else torch.cat(planes)


@dataclass(frozen=True)
class PreparedFrame:
    """A frame, ready for the model.

    Attributes:
        frame: (H, W, C) float32 in main memory.
        source: the same with margins and, if ``premultiplied``, colours times alpha.
        passes: what the model has to run.
        planes: for each pass the input (frames * Cin, H, W), for the first member of the ensemble.
            It is taken from here when it is used.
        premultiplied: the model computes alpha, too.
        around: ``source`` of every frame that the model sees, in their order.
        given: what tells them from each other.
    """

    frame: Tensor
    source: Tensor
    passes: list[ChannelPass]
    planes: list[Tensor]
    premultiplied: bool
    around: list[Tensor]
    given: tuple[Given, ...]

    @property
    def modelled(self) -> slice:
        """The channels that the model computes."""
        channels = self.frame.shape[-1]
        return slice(0, channels if self.premultiplied else min(channels, 3))


class FrameUpscaler:
    """Upscales frames of one size by one model.

    Args:
        work: what is done in main memory is handed over to it.
        scale, model_channels: scale and channels of the model.
        height, width: size of the frames.
        margins: by how much a frame is continued at its seams.
    """

    def __init__(
        self,
        options: Options,
        work: Pipeline,
        scale: int,
        model_channels: int,
        height: int,
        width: int,
        margins: Margins,
    ) -> None:
        self.options = options
        self.work = work
        self.scale = scale
        self.model_channels = model_channels
        self.margins = margins
        self.height, self.width = height + 2 * margins.rows, width + 2 * margins.columns
        self.scaled = height * scale, width * scale
        self.size = options.target.size(height, width) if options.target else self.scaled
        self.members = members(options.ensemble)
        self._buffers: dict[str, Tensor] = {}
        self._known: dict[Given, tuple[Tensor, list[Tensor]]] = {}

    def in_place(self, dtype: torch.dtype, device: torch.device) -> bool:
        """Whether such a result is computed in place, so that no buffer is needed."""
        same_size = self.size == self.scaled == (self.height * self.scale, self.width * self.scale)
        return same_size and dtype == torch.float32 and device.type == "cpu"

    def working_bytes(self, channels: int, dtype: torch.dtype, device: torch.device) -> int:
        """Bytes of main memory that the buffers for a frame take beside such a result."""
        frames = (0 if self.in_place(dtype, device) else 1) + (1 if len(self.members) > 1 else 0)
        return 4 * channels * self.height * self.width * self.scale**2 * frames

    def _passes(self, channels: int, transparent: bool) -> list[ChannelPass]:
        """The passes of the model over a frame; every member of the ensemble needs all of them."""
        with_alpha = transparent and self.options.alpha == "model"
        return channel_passes(channels, self.model_channels, with_alpha=with_alpha)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Heights and widths of the model's inputs: the frame's, and if needed the transposed."""
        sides = self.height, self.width
        turned = any(member.transposed for member in self.members)
        return list(dict.fromkeys([sides, sides[::-1]] if turned else [sides]))

    def steps(
        self, engine: PlaneUpscaler | None, region: Region | None, channels: int, transparent: bool
    ) -> int:
        """Steps of progress that the work on a frame with so many channels takes."""
        if engine is None or (region and region.empty):
            return 1
        steps = 0
        for member in self.members:
            height, width = (
                (self.width, self.height) if member.transposed else (self.height, self.width)
            )
            steps += engine.steps(height, width, member.apply(region.touched) if region else None)
        return steps * len(self._passes(channels, transparent))

    def prepared(self, clip: Clip) -> PreparedFrame:
        """What the model gets of a frame and of those around it. Each of them is prepared once."""
        frame = clip.middle.frame.within.to("cpu", torch.float32)
        transparent = not is_opaque(frame)
        premultiplied = transparent and self.options.alpha == "model"
        passes = self._passes(frame.shape[-1], transparent)
        known, self._known = self._known, {}
        keys = tuple((seen.number, premultiplied) for seen in clip.frames)
        for key, seen in zip(keys, clip.frames):
            if key not in self._known:
                given = frame if seen is clip.middle else None
                new = partial(self._source, seen, given, passes, premultiplied)
                self._known[key] = known.get(key) or new()
        found = [self._known[key] for key in keys]
        if len(clip.frames) == 1:  # nobody will ask for it again
            self._known = {}
        planes = [_side_by_side([planes[n] for _, planes in found]) for n in range(len(passes))]
        sources = [source for source, _ in found]
        return PreparedFrame(
            frame, sources[clip.before], passes, planes, premultiplied, sources, keys
        )

    def _source(
        self, seen: Seen, frame: Tensor | None, passes: list[ChannelPass], premultiplied: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """A frame as ``PreparedFrame.source``, and its part of the ``planes``.

        ``frame``: the same within [0, 1] in main memory, where that is at hand.
        """
        if frame is None:
            frame = seen.frame.within.to("cpu", torch.float32)
        source = self.margins.add(premultiply(frame) if premultiplied else frame)
        turned = self.members[0].apply(source)
        return source, [one.select(turned) for one in passes]

    def resample(self, frame: PreparedFrame, into: Tensor, monitor: Monitor) -> None:
        """Only enlarge a frame into ``into``, without the model."""
        canvas = self._canvas(into, 0)
        enlarge = partial(self._enlarge, frame.source, canvas, frame.modelled)
        self.work.do(enlarge, lambda _: monitor.tick(1))
        self.work.do(partial(self._finish, frame, canvas, None, into, corrected=False))

    def run(
        self,
        engine: PlaneUpscaler,
        frames: Sequence[PreparedFrame],
        region: Region | None,
        into: Sequence[Tensor],
        monitor: Monitor,
    ) -> None:
        """Upscale frames into as many pictures (*size, C) of any dtype on any device.

        Args:
            frames: one, or some with the same passes.
            region: where a single frame is computed; None: everywhere.

        When this returns, the last of the work in main memory may still wait in the pipeline.
        """
        canvases = [self._canvas(picture, number) for number, picture in enumerate(into)]
        growth = None
        if monitor.preview and len(frames) == 1:
            self.work.do(canvases[0].zero_)
            touched = region.touched if region else None
            growth = Growth(canvases[0], frames[0].source, self.margins, touched)
        tick = partial(monitor.tick, growth=growth)
        for number in range(len(self.members)):
            self._member(engine, number, frames, region, canvases, tick, growth)
            if growth and number == 0:  # looked at before anything else is done with it
                self.work.drain()
        if len(self.members) > 1:
            for canvas, one in product(canvases, frames[0].passes):
                self.work.do(partial(canvas[..., one.written].div_, len(self.members)))
        for frame, canvas, picture in zip(frames, canvases, into):
            self.work.do(partial(self._finish, frame, canvas, region, picture, corrected=True))

    def _member(
        self,
        engine: PlaneUpscaler,
        number: int,
        frames: Sequence[PreparedFrame],
        region: Region | None,
        canvases: Sequence[Tensor],
        tick: Tick,
        growth: Growth | None,
    ) -> None:
        """Write one member of the ensemble to ``canvases``, or add it to what is there."""
        member = self.members[number]
        touched = member.apply(region.touched) if region else None
        turned, results = [], canvases
        if number > 0:
            turned = [[member.apply(source) for source in frame.around] for frame in frames]
            results = [self._buffer(f"member {n}", *t[0].shape) for n, t in enumerate(turned)]
        shown = Shown(number, [frame.given for frame in frames])
        for one in frames[0].passes:
            if number > 0:
                planes = [_side_by_side([one.select(s) for s in sources]) for sources in turned]
            else:  # from here on nobody else needs them
                planes = [frame.planes.pop(0) for frame in frames]
            planes = planes[0][None] if len(planes) == 1 else torch.stack(planes)
            into = [result[..., one.written] for result in results]
            mark = partial(growth.mark, channels=one.written) if growth and number == 0 else None
            engine.run(planes, into, one, tick, touched, mark, shown)
            del planes
            for canvas, result in zip(canvases, into) if number > 0 else ():
                self.work.do(partial(member.add_to, canvas[..., one.written], result))

    def _finish(
        self,
        prepared: PreparedFrame,
        canvas: Tensor,
        region: Region | None,
        into: Tensor,
        *,
        corrected: bool,
    ) -> None:
        """From the model's result in ``canvas`` to the frame's in ``into``."""
        frame, source = prepared.frame, prepared.source
        channels = frame.shape[-1]
        colours = slice(0, min(channels, 3))
        if corrected and self.options.colour_fix != "none":
            known = region.weights > 0 if region else None
            fix_colour_(
                canvas[..., colours],
                source[..., colours],
                self.options.colour_fix,
                known,
                self.margins,
            )
        if region:
            modelled = prepared.modelled
            blend_(canvas[..., modelled], source[..., modelled], region.weights)
        if prepared.premultiplied:
            unpremultiply_(canvas)
        elif not is_opaque(frame):
            self._enlarge(source, canvas, slice(3, 4))
        elif channels == 4:
            canvas[..., 3] = 1
        if canvas.data_ptr() != into.data_ptr():
            into.copy_(resize(self.margins.crop(canvas, self.scale), self.size, self.margins.wrap))

    def _enlarge(self, source: Tensor, canvas: Tensor, channels: slice) -> None:
        """Write some channels of ``source`` (H, W, C), resampled, to ``canvas``."""
        for band, enlarged in enlarged_bands(source[..., channels].permute(2, 0, 1), self.scale):
            canvas[band][..., channels] = enlarged.clamp(0, 1)

    def _canvas(self, into: Tensor, number: int) -> Tensor:
        """Where the model's result for the frame of this number goes."""
        if self.in_place(into.dtype, into.device):
            return into
        return self._buffer(f"canvas {number}", self.height, self.width, into.shape[-1])

    def _buffer(self, name: str, height: int, width: int, channels: int) -> Tensor:
        """Memory for one enlarged frame; it is used again for every frame."""
        shape = height * self.scale, width * self.scale, channels
        if name not in self._buffers:
            self._buffers[name] = torch.empty(math.prod(shape), dtype=torch.float32)
        return self._buffers[name].view(shape)
