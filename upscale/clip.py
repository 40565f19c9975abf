"""Networks that take several successive frames: which ones they see for each one that they give.

Beyond the ends of a video its frames are mirrored (2 1 0 1 2), as the inference code of TSCUNet's
author does it (aaf6aa/SCUNet, test_vsr.py); traiNNer-redux has none, and trains on whole clips.
What lies beyond a cut is another scene: the nearest frame of the own scene stands for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from spandrel import ImageModelDescriptor
from torch import Tensor

from .beyond import InputFrame

LEAST_CHANGE = 0.06
"""By how much the thumbnails of two frames differ at a cut, at least: the mean over their pixels
and colours."""

SUDDEN = 2.5
"""At a cut they differ so many times as much as before and after it: quick motion goes on."""

THUMBNAIL = 32
"""Largest side of the thumbnails by which frames are compared: what moves a little changes little."""


@dataclass(frozen=True)
class ClipTraits:
    """How many frames a network takes, by its `protocol.ClipContract`; one, where it has none.

    Attributes:
        before, after: frames before and after the one that it gives.
        recalling: the network on one tile with a `protocol.Recall`; None: it has nothing to recall.
    """

    before: int = 0
    after: int = 0
    recalling: Callable[..., Tensor] | None = None

    @classmethod
    def of(cls, model: ImageModelDescriptor) -> ClipTraits:
        """What the model's `clip_contract` says."""
        contract = getattr(model.model, "clip_contract", None)
        if contract is None:
            return cls()
        return cls(contract.before, contract.after, getattr(contract, "recalling", None))

    @property
    def frames(self) -> int:
        """How many the network takes."""
        return self.before + 1 + self.after

    @property
    def reach(self) -> int:
        """How far it sees; also to both sides of what is mirrored."""
        return max(self.before, self.after)


def neighbours(model: ImageModelDescriptor, cuts: str = "auto") -> tuple[int, int]:
    """How many frames before and after a segment of a video the model needs to see.

    With so many as ``lead`` and ``trail`` of `upscale_frames` the segment becomes what it becomes
    within the whole video. Where the video begins or ends sooner, all there are are enough.

    Args:
        cuts: as for `upscale_frames`; whether something is a cut depends on one frame more.
    """
    reach = ClipTraits.of(model).reach
    needed = reach + (1 if reach and cuts == "auto" else 0)
    return needed, needed


@dataclass(frozen=True, eq=False)
class Seen:
    """A frame that networks see.

    Attributes:
        number: another one for each frame that differs from the one before.
        frame: the frame.
    """

    number: int
    frame: InputFrame


@dataclass(frozen=True, eq=False)
class Clip:
    """The frames that a network sees for one that it gives.

    Attributes:
        frames: in their order; the same one may stand there several times.
        before: how many of them come before the one that is given.
        repeats: they are those of the clip before, so that the result is the same, too.
    """

    frames: tuple[Seen, ...]
    before: int
    repeats: bool

    @property
    def middle(self) -> Seen:
        """The frame that is given."""
        return self.frames[self.before]


def clips(
    frames: Iterable[InputFrame | None],
    traits: ClipTraits,
    *,
    cuts: str = "auto",
    lead: int = 0,
    trail: int = 0,
) -> Iterator[Clip]:
    """The clip of every frame but the first ``lead`` and last ``trail`` ones, in their order.

    Only as many frames are held as clips reach back and forth.

    Args:
        frames: None: the same as the one before.
        cuts: "auto": clips end where a scene does; "none": at the video's ends alone.
    """
    reach = traits.reach
    finds_cuts = reach > 0 and cuts == "auto"
    ahead = max(reach + finds_cuts, trail)
    held: dict[int, Seen] = {}
    changes: dict[int, float] = {}
    thumbnail: Tensor | None = None
    given: tuple[Seen, ...] | None = None
    count = 0

    def clip(middle: int, last: int | None) -> Clip:
        nonlocal given
        lowest, highest = middle, middle
        while lowest > max(middle - reach, 0) and not is_cut(changes, lowest):
            lowest -= 1
        while highest < min(middle + reach, count - 1) and not is_cut(changes, highest + 1):
            highest += 1
        places = range(middle - traits.before, middle + traits.after + 1)
        found = (min(max(mirrored(place, last), lowest), highest) for place in places)
        before, given = given, tuple(held[place] for place in found)
        return Clip(given, traits.before, repeats=before == given)

    for frame in frames:
        held[count] = held[count - 1] if frame is None else Seen(count, frame)
        if finds_cuts:
            old = thumbnail
            thumbnail = old if frame is None else thumbnail_of(frame.within)
            changes[count] = 0 if old is thumbnail or old is None else difference(old, thumbnail)
        count += 1
        middle = count - 1 - ahead
        if middle >= lead:
            yield clip(middle, None)
        for past in (held, changes):  # the next clip and its first cut still need the others
            past.pop(middle - reach - 1, None)
    for middle in range(max(lead, count - ahead, 0), count - trail):
        yield clip(middle, count - 1)


def mirrored(place: int, last: int | None) -> int:
    """The frame that stands at a place, which may lie before the first one or behind the ``last``
    one. None: the last one is not near.

    >>> [mirrored(place, 3) for place in range(-2, 6)], mirrored(2, 0)
    ([2, 1, 0, 1, 2, 3, 2, 1], 0)
    """
    if last is None:
        return abs(place)
    if last == 0:
        return 0
    place %= 2 * last
    return min(place, 2 * last - place)


def is_cut(changes: dict[int, float], number: int) -> bool:
    """Whether a scene begins with the frame of this number, by how much each has changed."""
    around = max(changes.get(number - 1, 0), changes.get(number + 1, 0))
    return changes.get(number, 0) >= max(LEAST_CHANGE, SUDDEN * around)


def thumbnail_of(frame: Tensor) -> Tensor:
    """The colours of a frame (H, W, C) in [0, 1] in means over as many parts: (C, h, w), at most 32
    a side."""
    height, width, channels = frame.shape
    colours = frame[..., : min(channels, 3)].to("cpu", torch.float32).permute(2, 0, 1)
    return F.adaptive_avg_pool2d(colours[None], (min(height, THUMBNAIL), min(width, THUMBNAIL)))[0]


def difference(one: Tensor, other: Tensor) -> float:
    """By how much two thumbnails differ on average."""
    return float((one - other).abs().mean())
