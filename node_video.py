"""What a graph connects as VIDEO, as a source that `video` reads: a file, an edited one, pictures."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError
from comfy_api.latest import InputImpl

from . import host
from .video import PictureVideo, VideoFile

logger = logging.getLogger(__name__)

# the host's names of colour spaces: primaries and transfer as code points of H.273
_COLOUR_SPACES = {"sRGB": (1, 13), "HDR": (9, 18), "HDR PQ": (9, 16)}


@contextmanager
def source_of(video: Any) -> Iterator[VideoFile | PictureVideo]:
    """Open what a graph connected as VIDEO, with its edits.

    Pictures in memory are taken as they are, without a copy. A file is read where it lies, unless
    the video is cropped or scaled (hosts from 0.34 on do so when it is read): no public method says
    how, so the host writes the edited video to a file that lives as long as this does.
    """
    if isinstance(video, InputImpl.VideoFromComponents):
        with _pictures(video) as source:
            yield source
        return
    if not _is_edited(video):
        start, duration = getattr(video, "get_active_trim_window", lambda: (0, 0))()
        with VideoFile(video.get_stream_source(), start=start, duration=duration) as source:
            yield source
        return
    written = host.temporary_path(".mp4")
    try:
        _write(video, written)
        with VideoFile(str(written)) as source:
            yield source
    finally:
        written.unlink(missing_ok=True)


def _pictures(video: Any) -> PictureVideo:
    """The pictures of CreateVideo, with the depth and the colours that were chosen there."""
    parts = video.get_components()
    audio = parts.audio and (parts.audio["waveform"][0], int(parts.audio["sample_rate"]))
    space = getattr(video, "get_color_space", lambda: None)()  # hosts before 0.33 have one only
    primaries, transfer = _COLOUR_SPACES.get(space, (1, 1))
    return PictureVideo(
        parts.images,
        Fraction(parts.frame_rate),
        audio,
        bits=getattr(video, "get_bit_depth", lambda: 8)(),
        primaries=primaries,
        transfer=transfer,
        alpha=getattr(parts, "alpha", None),
    )


def _is_edited(video: Any) -> bool:
    """Whether the video's pictures are other ones than those of its stream.

    The first hosts that crop have no method that says so, but give the size of what is left.
    """
    if getattr(video, "has_pending_frame_edits", lambda: False)():
        return True
    sizes = [size for _, _, size in _streams(video) if size]
    size = tuple(video.get_dimensions()) if sizes else None
    return bool(sizes) and size not in sizes and size[::-1] not in sizes  # as stored or as turned


def _streams(video: Any) -> list[tuple[str, str, tuple[int, int] | None]]:
    """Kind, codec and size of those of the file that a video is made of.

    None of what is no video: `VideoFile` says so.
    """
    try:
        with av.open(video.get_stream_source()) as container:
            return [
                (
                    one.type,
                    one.codec_context.codec.canonical_name if one.codec_context else "",
                    (one.width, one.height) if one.type == "video" else None,  # type: ignore[attr-defined]
                )
                for one in container.streams
            ]
    except (OSError, FFmpegError):
        return []


def _write(video: Any, path: Path) -> None:
    """Let the host write the video with its edits, in 8 bits without any loss (H.264)."""
    known = inspect.signature(video.save_to).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in known.values())
    wanted = {"crf": 0, "preset": "ultrafast"}  # the latter takes disk space, and little time
    video.save_to(
        str(path), **{name: value for name, value in wanted.items() if name in known or takes_any}
    )
    with av.open(str(path)) as container:
        size = container.streams.video[0].width, container.streams.video[0].height
    shown = tuple(video.get_dimensions())
    if shown != size:
        logger.warning(
            "ComfyUI writes the edited video with %dx%d pixels, where it has %dx%d", *size, *shown
        )
    kinds = [(kind, codec) for kind, codec, _ in _streams(video) if kind != "video"]
    if kinds not in ([], [("audio", "aac")]):
        logger.warning(
            "the video is cropped or scaled: ComfyUI writes that first, and keeps one sound track of it, as "
            "AAC, and no subtitles"
        )
