"""Parts of a video for several workers: where they begin, their frames, and segments made of them.

Single frames are found by the times of packets, which cost no decoding. What is decoded is compared
with them, since only decoding says which frames a file really has; where the two differ, frames are
counted from the beginning instead, as a single process does.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import av
import numpy as np

from .colour import VideoError, plane_arrays
from .drawing import check_picture, pictures_of
from .form import ResultForm
from .source import Orientation, SourceFrame

Samples = tuple[int, list[np.ndarray]]
"""The range of a frame's samples, as FFmpeg numbers it, and its planes (rows, samples)."""


class TimesDifferError(VideoError):
    """Decoding gives other frames than the packets told."""


@dataclass(frozen=True)
class Times:
    """When the frames of a video are shown, by its packets.

    Attributes:
        shown: pts of all frames, growing.
        keys: for each key frame its number and when it is decoded.
    """

    shown: list[int]
    keys: list[tuple[int, int]]

    def key_before(self, number: int) -> tuple[int, int]:
        """The last key frame that is shown at or before the frame of this number."""
        return self.keys[max(bisect_right(self.keys, (number, 2**62)) - 1, 0)]


def times_of(packets: Iterable[Any], ticks: int, shift: int) -> Times | None:
    """The times of packets in units of ``ticks``; None where a packet does not tell them."""
    shown, keys = [], []
    for packet in packets:
        if packet.dts is None and not packet.size:
            continue  # the end
        if packet.pts is None or packet.dts is None or packet.is_corrupt or not packet.size:
            return None
        if packet.is_discard:
            continue
        pts = packet.pts * ticks - shift
        shown.append(pts)
        if packet.is_keyframe:
            keys.append((pts, packet.dts * ticks - shift))
    shown.sort()
    if not keys or len(set(shown)) < len(shown):
        return None
    numbers = {pts: number for number, pts in enumerate(shown)}
    return Times(shown, sorted((numbers[pts], decoded) for pts, decoded in keys))


class Seekable(Protocol):
    """What is needed of `read.VideoFile`."""

    @property
    def flawed(self) -> bool:
        """Whether something could not be decoded well."""
        ...

    def frames_from(self, decoded: int | None, *, whole: bool) -> Iterator[SourceFrame]:
        """Frames from a key frame on, or from the current position."""
        ...


class PartReader:
    """Reads parts of a video by the numbers of their frames, forwards or with ``times`` anywhere."""

    def __init__(self, source: Seekable, times: Times | None) -> None:
        self._source, self._times = source, times
        self._frames = source.frames_from(None, whole=times is None)
        self._position = 0

    def reaches(self, first: int) -> bool:
        """Whether a part that begins there can be read without opening the file again."""
        return self._times is not None or first >= self._position

    def read(self, first: int, count: int) -> Iterator[SourceFrame]:
        """At most so many frames from that number on; fewer at the end of the video.

        Raises TimesDifferError where they are not those of ``times``.
        """
        expected = None
        times = self._times
        if times is None:
            while self._position < first:
                self._position += 1  # also beyond the end, from where there is no way back
                next(self._frames, None)
        else:
            expected = times.shown[first : first + count]
            key, decoded = times.key_before(first)
            if not self._position <= first or key > self._position:
                self._frames = self._source.frames_from(decoded, whole=False)
        self._position = first
        read = 0
        for frame in self._frames:
            if expected and read == 0 and frame.pts < expected[0]:
                continue
            if expected is not None and (
                self._source.flawed or read == len(expected) or frame.pts != expected[read]
            ):
                self._position = 2**62
                raise TimesDifferError("it has other frames than its packets tell")
            read += 1
            self._position += 1
            yield frame
            if read == count and (times is None or first + count < len(times.shown)):
                return  # what comes after the last part is looked at
        if expected is not None and (read < len(expected) or self._source.flawed):
            raise TimesDifferError("it has fewer frames than its packets tell")


def upscaled_part(
    frames: Iterable[SourceFrame],
    form: ResultForm,
    orientation: Orientation,
    upscale: Callable[..., None],
    size: tuple[int, int],
    add: Callable[[av.VideoFrame], None],
    *,
    lead: int,
    count: int,
) -> list[tuple[int, int]]:
    """Upscale frames to ``size`` and pass each on as a frame of the result; their pts and durations.

    Args:
        lead, count: the first ``lead`` frames, and those after ``count`` others, are there to be
            looked at alone, by networks that take several.
        upscale: `job.Upscale`.
        add: may keep the frame; one that is the same as the one before comes again.
    """
    times: list[tuple[int, int]] = []
    last: Any = None
    delivered = 0
    made: av.VideoFrame | None = None

    def noted() -> Iterator[SourceFrame]:
        for frame in frames:
            times.append((frame.pts, frame.duration))
            yield frame

    def deliver(picture: Any) -> None:
        nonlocal last, made, delivered
        if picture is not last:
            check_picture(picture, size)
            made = form.make_frame(orientation.stored(picture))
        last = picture
        assert made is not None
        if delivered < count:
            add(made)
        delivered += 1

    looked_at = {"lead": lead} if lead else {}
    upscale(pictures_of(noted()), deliver, progress=lambda done, total: None, **looked_at)
    return times[lead : lead + count]


def samples_of(frame: av.VideoFrame) -> Samples:
    """The samples of a frame, copied without padding."""
    planes = zip(plane_arrays(frame), frame.planes)
    return int(frame.color_range), [array[:, : plane.width].copy() for array, plane in planes]


def frame_of(samples: Samples, pixel_format: str) -> av.VideoFrame:
    """The frame that has these samples."""
    colour_range, planes = samples
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pixel_format)
    for into, plane in zip(plane_arrays(frame), planes):
        into[:, : plane.shape[1]] = plane
    frame.color_range = colour_range
    return frame
