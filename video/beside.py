"""What a video file holds beside the pictures: other streams, attachments, covers, what is said of
the video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import av
import av.stream

from .colour import VideoError

_COVER = av.stream.Disposition.attached_pic.value
_DISCARDED = 48  # AVDISCARD_ALL
_NAMES = {"mjpeg": "jpg"}  # endings of files, where they are not the codec's name
_STALE = ("BPS", "DURATION", "NUMBER_OF_", "_STATISTICS_")  # beginnings of tags that count packets
_OF_THE_OLD = ("encoder", "alpha_mode", "rotate")  # tags that are not true for a new video


@dataclass(frozen=True, kw_only=True)
class Cover:
    """A picture that stands for the file: FFmpeg's stream, and the file of the picture."""

    stream: Any
    data: bytes

    @property
    def name(self) -> str:
        """Of a file."""
        ending = self.stream.codec_context.name
        given = tags_of(self.stream).get("filename")
        return given or f"cover.{_NAMES.get(ending, ending)}"

    @property
    def kind(self) -> str:
        """The MIME type."""
        ending = self.stream.codec_context.name
        return tags_of(self.stream).get("mimetype") or f"image/{ending.replace('mjpeg', 'jpeg')}"


@dataclass(frozen=True, kw_only=True)
class Beside:
    """All that is copied.

    streams: PyAV's streams whose packets are copied.
    attachments: streams that are files, such as fonts.
    tags, disposition: language, title and the like of the video, and what it is for.
    unknown: what FFmpeg does not know, in words.
    """

    streams: list[Any] = field(default_factory=list)
    attachments: list[Any] = field(default_factory=list)
    covers: list[Cover] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    disposition: int = 0
    unknown: list[str] = field(default_factory=list)

    @property
    def played(self) -> list[Any]:
        """Sound and subtitles."""
        return [stream for stream in self.streams if stream.type in ("audio", "subtitle")]


def beside(container: Any, video: Any, covers: dict[int, bytes]) -> Beside:
    """What a file holds beside one stream of it, with its `covers_of`.

    A track of timecodes is a tag of the video, of which writers make a track again.
    """
    found = Beside(
        covers=[
            Cover(stream=container.streams[index], data=data) for index, data in covers.items()
        ],
        tags={k: v for k, v in tags_of(video).items() if k.lower() not in _OF_THE_OLD},
        disposition=video.disposition.value,
    )
    for stream in container.streams:
        timecode = stream.metadata.get("timecode") if stream.type == "data" else None
        if stream.index == video.index or is_cover(stream) or _is_of_chapters(stream):
            continue
        if timecode:
            found.tags.setdefault("timecode", timecode)
        elif stream.type == "attachment":
            found.attachments.append(stream)
        elif stream.type == "data" or stream.codec_context is not None:
            found.streams.append(stream)
        else:
            found.unknown.append(f"{stream.type} that FFmpeg does not know")
    return found


def covers_of(container: Any) -> dict[int, bytes]:
    """The files of the covers of a video that has just been opened, by the index of their streams:
    FFmpeg gives them before all else."""
    streams = [stream for stream in container.streams.video if is_cover(stream)]
    wanted = {stream.index for stream in streams if stream.codec_context is not None}
    covers: dict[int, bytes] = {}
    for packet in container.demux(streams) if wanted else ():
        if packet.size and packet.stream.index in wanted:
            covers[packet.stream.index] = bytes(packet)
            wanted.remove(packet.stream.index)
        if not wanted:
            break
    return covers


def _is_of_chapters(stream: Any) -> bool:
    """Whether a track of MP4 holds the titles of chapters, which FFmpeg gives as chapters and not
    as packets (PyAV 18 tells)."""
    return stream.type == "data" and getattr(stream, "discard", 0) >= _DISCARDED


def video_stream(container: Any) -> Any:
    """The first stream of video that is no cover. Raises VideoError where there is none."""
    for stream in container.streams.video:
        if not is_cover(stream):
            if stream.codec_context is None:
                raise VideoError("its video codec is not known to FFmpeg; convert it first")
            return stream
    raise VideoError("it has no video stream")


def is_cover(stream: Any) -> bool:
    """Whether a stream of video is one picture that stands for the file."""
    return stream.type == "video" and bool(stream.disposition.value & _COVER)


def tags_of(stream: Any) -> dict[str, str]:
    """A stream's metadata, without what counts packets that may not all be copied."""
    tags = {k: v for k, v in stream.metadata.items() if not k.upper().startswith(_STALE)}
    if "name" in tags:  # what FFmpeg calls a title when it reads MP4, but not when it writes it
        tags.setdefault("title", tags.pop("name"))
    return tags


def without_hidden(packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
    """Packets without the sound that an edit list of MP4 hides, which other formats would play; the
    last hidden packet before what is heard stays, since decoders need it."""
    hidden: dict[int, av.Packet] = {}
    heard: set[int] = set()
    for packet in packets:
        index = packet.stream.index
        if packet.stream.type == "audio" and packet.is_discard:
            hidden[index] = packet
            continue
        if index not in heard and packet.stream.type == "audio" and packet.size:
            heard.add(index)
            if index in hidden:
                yield hidden[index]
        yield packet


def with_times(packets: Iterable[av.Packet], of: set[int]) -> Iterator[av.Packet]:
    """Packets with times of decoding: Matroska tells none, and FFmpeg guesses those of the first
    pictures of a stream too late. ``of`` are the indices of further streams of video."""
    waiting: dict[int, list[av.Packet]] = {}
    for packet in packets:
        index = packet.stream.index
        if index in of and packet.dts is None and packet.pts is not None:
            waiting.setdefault(index, []).append(packet)
            continue
        for number, early in enumerate(reversed(waiting.pop(index, [])), 1):
            known = packet.pts if packet.dts is None else packet.dts
            early.dts = early.pts if known is None else known - number * (packet.duration or 1)
            waiting.setdefault(-1, []).insert(0, early)
        yield from waiting.pop(-1, [])
        yield packet
    for rest in waiting.values():
        for packet in rest:
            packet.dts = packet.pts
            yield packet
