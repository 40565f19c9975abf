"""Runs any image (grey, RGB, RGBA) through any image model (1, 3, 4 channels) in some passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .recall import Shown

OPAQUE = -1
"""Stands for a source of ones, for a model's alpha channel where the image has none."""

SMALLEST_ALPHA = 1 / 512
"""Pixels whose alpha is below this, half a level of 8 bit, have no colour."""


@dataclass(frozen=True)
class ChannelPass:
    """One run of the model over the image.

    Attributes:
        source: for each input channel of the model, the image channel that feeds it.
        target: the image channels that this run produces.
        average: the model's first three outputs are copies of one grey picture; their mean is
            taken.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    average: bool = False

    @property
    def written(self) -> slice:
        """The image channels that this run produces."""
        return slice(self.target[0], self.target[-1] + 1)

    def select(self, frame: Tensor) -> Tensor:
        """Image (H, W, C) -> model input (Cin, H, W), contiguous."""
        if self.source == tuple(range(frame.shape[-1])):
            return frame.movedim(-1, 0).contiguous()
        planes = [
            torch.ones_like(frame[..., 0]) if s == OPAQUE else frame[..., s] for s in self.source
        ]
        return torch.stack(planes)

    def collect(self, output: Tensor, *, planar: bool = False) -> Tensor:
        """Model output (..., Cout, h, w), not clamped -> (..., h, w, len(target)) in [0, 1].

        On a device that is all that is left to do for a result, so what leaves it is ready to be
        written, and lies in memory as it will then: ``planar`` or pixel by pixel. On a CPU it stays
        a view, not yet clamped: whoever writes it clamps it in passing.
        """
        if self.average:
            output = output[..., :3, :, :].float().clamp(0, 1).mean(-3, keepdim=True)
        output = output[..., : len(self.target), :, :].movedim(-3, -1)
        if output.device.type == "cpu":
            return output
        return output.clamp(0, 1) if planar else output.clamp(0, 1).contiguous()


def is_planar(picture: Tensor) -> bool:
    """Whether (H, W, C) lies plane by plane in memory."""
    return picture.stride(1) == 1


Mark = Callable[[slice, slice], None]
"""``mark(rows, columns)``, called in the caller's thread after these pixels have been written."""
Tick = Callable[[int], None]
"""``tick(steps)``, called in the caller's thread when so many more steps are done."""


class PlaneUpscaler(Protocol):
    """Runs passes: in tiles (`tiled.TiledUpscaler`) or exactly (`exact.ExactUpscaler`)."""

    def prepare(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Load the model, with memory for images of these (height, width); called first of all."""
        ...

    def together(self, height: int, width: int) -> int:
        """How many frames of this size should be passed to `run` at a time."""
        ...

    def steps(self, height: int, width: int, touched: Tensor | None) -> int:
        """Steps of progress that one pass over an image of this size takes."""
        ...

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
        """Upscale ``planes`` (B, Cin, H, W), frames in main memory, into as many pictures.

        For networks of several frames (`protocol.ClipContract`) they are clips, which ``shown``
        tells from each other.

        Those are (H * scale, W * scale, channels of the pass). When this returns, the last of the
        work may still wait in the `pipeline.Pipeline`. Where ``touched`` (H, W) bool is False, they
        may hold anything finite afterwards. ``mark`` is for a single frame.
        """
        ...


def channel_passes(
    image_channels: int, model_channels: int, *, with_alpha: bool
) -> list[ChannelPass]:
    """The passes of a model of ``model_channels`` for an image of ``image_channels`` (1, 3, 4).

    ``with_alpha``: the model upscales the alpha channel too; else the passes leave channel 3 out.
    """
    if model_channels == 4 and image_channels == 4 and with_alpha:
        return [ChannelPass((0, 1, 2, 3), (0, 1, 2, 3))]
    colours = (0,) if image_channels == 1 else (0, 1, 2)
    alpha = (3,) if image_channels == 4 and with_alpha else ()
    if model_channels == 1:
        return [ChannelPass((c,), (c,)) for c in colours + alpha]
    rest = (OPAQUE,) * (model_channels - 3)
    grey = [ChannelPass((c, c, c, *rest), (c,), average=True) for c in alpha]
    if image_channels == 1:
        return [ChannelPass((0, 0, 0, *rest), (0,), average=True)]
    return [ChannelPass((0, 1, 2, *rest), (0, 1, 2)), *grey]


def premultiply(frame: Tensor) -> Tensor:
    """RGBA (H, W, 4) with its colours multiplied by alpha, so that filtering makes no fringes."""
    return torch.cat([frame[..., :3] * frame[..., 3:], frame[..., 3:]], -1)


def unpremultiply_(frame: Tensor, rows: int = 256) -> None:
    """Undo `premultiply` in place, in bands of ``rows`` rows; invisible pixels become black."""
    for band in frame.split(rows):
        alpha = band[..., 3:]
        band[..., :3] = torch.where(
            alpha >= SMALLEST_ALPHA, band[..., :3] / alpha.clamp_min(SMALLEST_ALPHA), 0
        ).clamp_(0, 1)
