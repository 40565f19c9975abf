"""The command line's side of videos, one file at a time. PyAV is imported when it
is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .console import Tell, printable

if TYPE_CHECKING:
    from ..picture.files import Job
    from ..upscale import Target
    from ..video import VideoJob
    from ..video.job import Elsewhere as Encoded
    from .model import Upscaler


Elsewhere = Callable[["VideoJob", "Target | None"], "Encoded"]
"""``elsewhere(job, target)`` are a video's segments that other processes make."""


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """How results of videos are written: the values of `common.encoding` by name, and whether to go
    on with what an interrupted run left."""

    encoding: dict[str, Any]
    resume: bool


def upscale_video_file(
    job: Job,
    upscaler: Upscaler,
    options: VideoOptions,
    progress: Callable[[int, int], None],
    tell: Tell,
    *,
    overwrite: bool,
    max_pixels: int,
    elsewhere: Elsewhere | None = None,
) -> tuple[str, bool]:
    """Upscale one video; the line that says what was done, and whether all of it was there.

    ``elsewhere`` gives its segments where this process does not make them.
    After an exception what there is of the result is shown and kept.
    """
    from ..video import Encoding, UnsupportedStreamError, VideoFile, VideoJob, result_size

    with VideoFile(job.source, max_pixels=max_pixels) as source:
        size, target = result_size(source, upscaler.target, upscaler.descriptor.scale)
        settings = settings_of(upscaler)
        new_job = partial(
            VideoJob,
            source,
            size=size,
            encoding=Encoding(**options.encoding),
            settings=settings,
            context=upscaler.context,
            resume=options.resume,
            overwrite=overwrite,
        )
        try:
            work = new_job(job.target)
        except UnsupportedStreamError:
            if job.instead is None:
                raise
            work = new_job(job.instead)
        try:
            if elsewhere:
                work.run_elsewhere(elsewhere(work, target), progress)
            else:
                work.run(partial(upscaler.frames, target=target), progress)
        except BaseException:
            if work.frames:
                kept = f"{work.partial} holds the first {work.frames} frames; --resume goes on from there"
                tell("kept", kept)
            raise
    (height, width), (new_height, new_width) = source.size, work.size
    how = f"{work.frames} frames, {work.encoding.codec} {work.encoding.pixel_format}"
    how += ", of a damaged video" if work.damage else ""
    line = f"{job.source} -> {work.target} ({width}x{height} -> {new_width}x{new_height}, {how})"
    return printable(line), not work.damage


def settings_of(upscaler: Upscaler) -> dict[str, Any]:
    """What frames depend on, as `video.VideoJob` wants it: the checkpoint and the options; tensors
    become digests."""
    settings: dict[str, Any] = {"model": upscaler.digest}
    for name, value in upscaler.frame_options.items():
        plain = value is None or isinstance(value, str | int | float)
        settings[name] = value if plain else hashlib.sha256(_content(value)).hexdigest()
    return settings


def _content(value: Any) -> bytes:
    return value.numpy().tobytes() if hasattr(value, "numpy") else repr(value).encode()
