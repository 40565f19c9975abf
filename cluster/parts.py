"""What a worker does of a video: upscales and encodes some of its frames."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

UNSEEN = "unseen"
"""The answer of a worker that does not see the file at its path: it needs the content."""

Stamp = tuple[int, int]


def stamp_of(path: Path) -> Stamp | None:
    """By what a worker knows that it sees the same file: size and time of change; None where it
    cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


class Frames(Protocol):
    """What upscales frames.

    context: how many frames before a frame it looks at, and as many after.
    frames: as `video.job.Upscale`, with ``target``, the size that is wanted.
    """

    context: int
    frames: Callable[..., None]


class PartWorker:
    """Does parts of videos; of several videos one after the other.

    ``upscaler`` is set by those who derive from it.
    """

    upscaler: Frames
    aliases: dict[str, str]
    _video: Any = None

    def __init__(self) -> None:
        self.aliases = {}

    def part(
        self, video: dict[str, Any], content: bytes | None, first: int, count: int, whole: bool
    ) -> tuple[Any, Any]:
        """Upscale some frames of a video.

        Args:
            video: see `segments.Segments`.
            first, count: which frames.
            whole: encode them as a segment, which is the payload; else it is their samples.

        The value is pts and duration of the frames, fewer than ``count`` at the end, and what of
        the video is damaged, where it was read to its end.
        """
        from ..video.parts import samples_of, upscaled_part

        lead = min(self.upscaler.context, first)
        begin = first - lead
        reading = self._reading(video, content, begin)
        if reading is None:
            return UNSEEN, None
        encoder, samples = reading.form.encoder, []
        upscale = partial(self.upscaler.frames, target=video["target"])
        add = encoder.add if whole else lambda frame: samples.append(samples_of(frame))
        try:
            times = upscaled_part(
                reading.parts.read(begin, lead + count + self.upscaler.context),
                reading.form,
                reading.source.orientation,
                upscale,
                video["size"],
                add,
                lead=lead,
                count=count,
            )
        except BaseException:
            self._close()
            raise
        payload: Any = samples
        if whole:
            payload = encoder.close() if times else b""
        return (times, reading.source.damage), payload

    def encode(
        self, video: dict[str, Any], content: bytes | None, *parts: Any
    ) -> tuple[Any, bytes]:
        """Encode the samples of the frames of a segment."""
        from ..video.parts import frame_of

        reading = self._reading(video, content, None)
        if reading is None:
            return UNSEEN, b""
        for samples in (one for part in parts for one in part):
            reading.form.encoder.add(frame_of(samples, video["encoding"]["pixel_format"]))
        return None, reading.form.encoder.close()

    def _reading(self, video: dict[str, Any], content: bytes | None, first: int | None) -> Any:
        """The video, opened; None where this machine does not see it."""
        if self._video and self._video.key == video["key"]:
            if first is None or self._video.parts.reaches(first):
                return self._video
            content = content or self._video.content
        self._close()
        path = Path(video["source"])
        if content is None and stamp_of(path) != video["stamp"]:
            return None
        self._video = _Reading(path, content, video)
        return self._video

    def _close(self) -> None:
        if self._video:
            self._video.close()
            self._video = None


class _Reading:
    """A video that is read in parts, and what its result is like."""

    def __init__(self, path: Path, content: bytes | None, video: dict[str, Any]) -> None:
        from ..video import Encoding, VideoFile
        from ..video.form import ResultForm
        from ..video.parts import PartReader, Times

        self.key, self.content = video["key"], content
        file = path if content is None else io.BytesIO(content)
        start, duration = video["selected"]
        self.source = VideoFile(
            file,
            start=start,
            duration=duration,
            max_pixels=video["max_pixels"],
            name=video["source"],
        )
        self.form = ResultForm(self.source, Encoding(**video["encoding"]), video["size"])
        times = video["times"]
        self.parts = PartReader(self.source, times and Times(*times))

    def close(self) -> None:
        self.source.__exit__(None, None, None)
