"""Values outside of [0, 1], which networks have not learnt: highlights of HDR pictures, mostly.

The model gets them clipped. What lies beyond is resampled on its own and added to the result, so
that highlights survive where the result can hold them; clipped, the result is that of the clipped
picture, beside a soft edge around the highlights.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .resize import resize

logger = logging.getLogger(__name__)

LEAST = 1 / 510
"""What is beyond by less, half a level of 8 bit, is rounding, and only clipped."""


@dataclass(frozen=True, eq=False)
class InputFrame:
    """A frame as it was given, looked through once.

    Attributes:
        pixels: (H, W, C) floating point.
        low, high: the least and the largest of its values.
    """

    pixels: Tensor
    low: float
    high: float

    @classmethod
    def of(cls, pixels: Tensor) -> InputFrame:
        """Look through a frame. Raises ValueError where values are NaN or infinite."""
        low, high = (float(value) for value in pixels.aminmax())  # NaN spreads to both
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(
                "the image holds NaN or infinite values; look at the node or program that made it"
            )
        return cls(pixels, low, high)

    @property
    def within(self) -> Tensor:
        """The frame as the model gets it; the same tensor where nothing is clipped."""
        return self.pixels if self.low >= 0 and self.high <= 1 else self.pixels.clamp(0, 1)

    @property
    def is_beyond(self) -> bool:
        """Whether colours lie outside of [0, 1] by so much that it counts."""
        if self.low >= -LEAST and self.high <= 1 + LEAST:
            return False
        if self.pixels.shape[-1] < 4:
            return True
        low, high = self.pixels[..., :3].aminmax()  # it may be the transparency alone
        return bool(low < -LEAST) or bool(high > 1 + LEAST)


def tell_of_beyond(frames: Sequence[InputFrame]) -> None:
    """Say what of these frames, some of which are beyond, lies outside of [0, 1]."""
    shares = ((one.pixels != one.within).float().mean() for one in frames)
    logger.warning(
        "%.2f %% of the values lie outside of [0, 1], from %.4g to %.4g: the model gets them "
        "clipped, and what lies beyond is resampled and added to its result",
        100 * sum(map(float, shares)) / len(frames),
        min(one.low for one in frames),
        max(one.high for one in frames),
    )


class Highlights:
    """What lies outside of [0, 1] in frames that come one after the other; the log says so once.

    ``wrap``: as for `add_beyond_`.
    """

    def __init__(self, wrap: tuple[bool, bool]) -> None:
        self._wrap = wrap
        self._told = False

    def added(
        self, frame: InputFrame, deliver: Callable[[Tensor], None]
    ) -> Callable[[Tensor], None]:
        """``deliver``, to be called with the result of this frame, which gets what lies beyond
        before."""
        if not frame.is_beyond:
            return deliver
        if not self._told:
            tell_of_beyond([frame])
        self._told = True

        def add(picture: Tensor) -> None:
            add_beyond_(picture, frame.pixels, self._wrap)
            deliver(picture)

        return add


@torch.no_grad()
def add_beyond_(result: Tensor, frame: Tensor, wrap: tuple[bool, bool]) -> None:
    """Add to ``result`` (H', W', C) what of ``frame`` (H, W, C) lies outside of [0, 1].

    Transparency has no beyond. ``wrap``: as for `resize`, which rounds nothing off here: what it
    makes of the highlights is between 0 and the highest of them.
    """
    most = torch.finfo(torch.float32).max / 2  # float64 goes further
    colours = frame[..., :3].to("cpu", torch.float32).clamp(-most, most)
    size = result.shape[0], result.shape[1]
    for sign in (1, -1):
        beyond = ((colours - 1) if sign > 0 else -colours).clamp_min(0)
        highest = float(beyond.max())
        if highest > 0:
            added = resize(beyond / highest, size, wrap).mul_(highest)
            added.clamp_(max=torch.finfo(result.dtype).max - 1)  # of float16 65504
            result[..., :3] += added.mul_(sign).to(result)
