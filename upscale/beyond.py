"""Values outside of [0, 1], which networks have not learnt: highlights of HDR pictures, mostly.

The model gets them clipped. What lies beyond is resampled on its own and added to the result, so
that highlights survive where the result can hold them; clipped, the result is that of the clipped
picture, beside a soft edge around the highlights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from .resize import resize

logger = logging.getLogger(__name__)

LEAST = 1 / 510
"""What is beyond by less, half a level of 8 bit, is rounding, and only clipped."""


def frames_beyond(image: Tensor) -> list[int]:
    """Which frames of (B, H, W, C) have colours outside of [0, 1] that count; the log says so."""
    found = [index for index, frame in enumerate(image) if _is_beyond(frame[..., :3])]
    if found:
        share = sum(float((one != one.clamp(0, 1)).float().mean()) for one in image) / len(image)
        logger.warning(
            "%.2f %% of the values lie outside of [0, 1], from %.4g to %.4g: the model gets them "
            "clipped, and what lies beyond is resampled and added to its result",
            100 * share,
            float(image.min()),
            float(image.max()),
        )
    return found


def _is_beyond(colours: Tensor) -> bool:
    low, high = colours.aminmax()
    return bool(low < -LEAST) or bool(high > 1 + LEAST)


def within(frame: Tensor) -> Tensor:
    """The frame (H, W, C) as the model gets it; the same tensor where nothing is clipped."""
    low, high = frame.aminmax()
    return frame if low >= 0 and high <= 1 else frame.clamp(0, 1)


class Highlights:
    """What lies outside of [0, 1] in frames that come one after the other; the log says so once.

    ``wrap``: as for `add_beyond_`.
    """

    def __init__(self, wrap: tuple[bool, bool]) -> None:
        self._wrap = wrap
        self._told = False

    def added(self, frame: Tensor, deliver: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
        """``deliver``, to be called with the result of this frame (H, W, C), which gets what lies
        beyond before."""
        if not _is_beyond(frame[..., :3]):
            return deliver
        if not self._told:
            frames_beyond(frame[None])
        self._told = True

        def add(picture: Tensor) -> None:
            add_beyond_(picture, frame, self._wrap)
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
