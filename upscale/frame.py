"""Upscales one frame, with everything that was asked for:

- the frame is continued beyond its seams;
- for each member of the ensemble: turned, passed through the model once or more, turned back;
- the mean of the members; then colour fix, mask and transparency;
- cropped, and resampled to the target's size.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from .channels import ChannelPass, PlaneUpscaler, channel_passes, premultiply, unpremultiply_
from .colour import fix_colour_
from .ensemble import members
from .mask import Region, blend_
from .options import Options
from .pipeline import HostWork
from .preview import Growth, Monitor
from .resize import enlarged_bands, resize
from .seamless import Margins


def is_opaque(frame: Tensor) -> bool:
    """Whether no pixel of (H, W, C) is transparent."""
    return frame.shape[-1] != 4 or bool((frame[..., 3] == 1).all())


class FrameUpscaler:
    """Upscales frames of one size by one model.

    Args:
        scale, model_channels: scale and channels of the model.
        height, width: size of the frames.
        margins: by how much a frame is continued at its seams.
    """

    def __init__(
        self,
        options: Options,
        scale: int,
        model_channels: int,
        height: int,
        width: int,
        margins: Margins,
    ) -> None:
        self.options = options
        self.scale = scale
        self.model_channels = model_channels
        self.margins = margins
        self.height, self.width = height + 2 * margins.rows, width + 2 * margins.columns
        self.scaled = height * scale, width * scale
        self.size = options.target.size(height, width) if options.target else self.scaled
        self.members = members(options.ensemble)
        self._buffers: dict[str, Tensor] = {}

    def in_place(self, dtype: torch.dtype, device: torch.device) -> bool:
        """Whether such a result is computed in place, so that no buffer is needed."""
        same_size = self.size == self.scaled == (self.height * self.scale, self.width * self.scale)
        return same_size and dtype == torch.float32 and device.type == "cpu"

    def working_bytes(self, channels: int, dtype: torch.dtype, device: torch.device) -> int:
        """Bytes of main memory that the buffers take beside such a result."""
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

    def steps(self, engine: PlaneUpscaler | None, frame: Tensor, region: Region | None) -> int:
        """Steps of progress that the work on a frame takes."""
        if engine is None or (region and region.empty):
            return 1
        steps = 0
        for member in self.members:
            height, width = (
                (self.width, self.height) if member.transposed else (self.height, self.width)
            )
            steps += engine.steps(height, width, member.apply(region.touched) if region else None)
        return steps * len(self._passes(frame.shape[-1], not is_opaque(frame)))

    def run(
        self,
        engine: PlaneUpscaler | None,
        frame: Tensor,
        region: Region | None,
        into: Tensor,
        monitor: Monitor,
        work: HostWork,
    ) -> None:
        """Upscale a frame (H, W, C) into ``into`` (*size, C) of any dtype on any device.

        ``engine``: None where the region of every frame is empty. When this returns, the last of the
        work in main memory may still wait in ``work``.
        """
        frame = frame.to("cpu", torch.float32)
        channels = frame.shape[-1]
        colours = slice(0, min(channels, 3))
        transparent = not is_opaque(frame)
        premultiplied = transparent and self.options.alpha == "model"
        modelled = slice(0, channels) if premultiplied else colours
        source = self.margins.add(premultiply(frame) if premultiplied else frame)
        in_place = self.in_place(into.dtype, into.device)
        canvas = into if in_place else self._buffer("canvas", self.height, self.width, channels)

        if engine is None or (region and region.empty):
            work.do(partial(self._enlarge, source, canvas, modelled), lambda _: monitor.tick(1))
            monitor.growth = None
            upscaled = False
        else:
            if monitor.preview:
                canvas.zero_()
                monitor.growth = Growth(
                    canvas, source, self.margins, region.touched if region else None
                )
            passes = self._passes(channels, transparent)
            self._model(engine, source, region, canvas, passes, monitor.growth, work)
            upscaled = True
        finish = partial(self._finish, frame, source, canvas, region if upscaled else None, into)
        work.do(partial(finish, premultiplied=premultiplied, corrected=upscaled))

    def _finish(
        self,
        frame: Tensor,
        source: Tensor,
        canvas: Tensor,
        region: Region | None,
        into: Tensor,
        *,
        premultiplied: bool,
        corrected: bool,
    ) -> None:
        """From the model's result in ``canvas`` to the frame's in ``into``."""
        channels = frame.shape[-1]
        colours = slice(0, min(channels, 3))
        modelled = slice(0, channels) if premultiplied else colours
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
            blend_(canvas[..., modelled], source[..., modelled], region.weights)
        if premultiplied:
            unpremultiply_(canvas)
        elif not is_opaque(frame):
            self._enlarge(source, canvas, slice(3, 4))
        elif channels == 4:
            canvas[..., 3] = 1
        if canvas.data_ptr() != into.data_ptr():
            into.copy_(resize(self.margins.crop(canvas, self.scale), self.size, self.margins.wrap))

    def _model(
        self,
        engine: PlaneUpscaler,
        source: Tensor,
        region: Region | None,
        canvas: Tensor,
        passes: list[ChannelPass],
        growth: Growth | None,
        work: HostWork,
    ) -> None:
        """Write the mean of the ensemble's results for ``source`` (H, W, C) to ``canvas``."""
        for number, member in enumerate(self.members):
            turned = member.apply(source)
            touched = member.apply(region.touched) if region else None
            result = canvas if number == 0 else self._buffer("member", *turned.shape)
            for one in passes:
                mark = None
                if growth and number == 0:
                    mark = partial(growth.mark, channels=one.written)
                engine.run(one.select(turned), result[..., one.written], one, touched, mark)
                if number > 0:
                    add = partial(member.add_to, canvas[..., one.written], result[..., one.written])
                    work.do(add)
        if len(self.members) > 1:
            for one in passes:
                work.do(partial(canvas[..., one.written].div_, len(self.members)))

    def _enlarge(self, source: Tensor, canvas: Tensor, channels: slice) -> None:
        """Write some channels of ``source`` (H, W, C), resampled, to ``canvas``."""
        for band, enlarged in enlarged_bands(source[..., channels].permute(2, 0, 1), self.scale):
            canvas[band][..., channels] = enlarged.clamp(0, 1)

    def _buffer(self, name: str, height: int, width: int, channels: int) -> Tensor:
        """Memory for one enlarged frame; it is used again for every frame."""
        shape = height * self.scale, width * self.scale, channels
        if name not in self._buffers:
            self._buffers[name] = torch.empty(math.prod(shape), dtype=torch.float32)
        return self._buffers[name].view(shape)
