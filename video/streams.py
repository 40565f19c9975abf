"""Writes video files of packets: those of the pictures, and what is copied beside them."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import av
from av.error import FFmpegError, InvalidDataError

from .beside import Beside, tags_of
from .colour import VideoError
from .language import language_in
from .sound import NAMES, SoundConverter
from .subtitles import CAN_CONVERT, TEXTS, SubtitleConverter
from .write import Container, UnsupportedStreamError

Converter = SoundConverter | SubtitleConverter
_TAGS = {"hevc": "hvc1"}  # in MP4 and MOV, where FFmpeg's default does not play on Apple's devices


def template_stream(sample: bytes, matrix: bytes | None) -> Any:
    """A stream for `StreamWriter` to copy: that of ``sample``, an MP4 file, with a display matrix.

    The matrix is written into the file's bytes, because PyAV before 18 cannot set it.
    """
    if matrix is not None:
        header = sample.index(b"tkhd") + 4
        at = header + (52 if sample[header] else 40)  # version 1 has longer times
        numbers = struct.unpack("=9i", matrix)
        sample = sample[:at] + struct.pack(">9i", *numbers) + sample[at + 36 :]
    return av.open(io.BytesIO(sample)).streams.video[0]  # the stream keeps its container alive


_TIMECODES = int(av.__version__.partition(".")[0]) >= 18  # before, muxers are told no frame rate
_ITUNES = (  # tags of a file that FFmpeg writes into MP4 beside a cover
    *("title", "artist", "album_artist", "composer", "album", "date", "comment", "genre", "track"),
    *("copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id", "disc"),
    *("network", "keywords", "creation_time", "timecode", "media_type", "hd_video", "compilation"),
)


class StreamWriter:
    """A video file that packets are written to; a context manager.

    Args:
        file: a path, or a binary file to write to.
        video: the stream that the description of the video is copied from.
        beside: what is copied beside it. What the format cannot hold is left out, but for sound,
            which raises an error. With ``lenient`` only sound and subtitles are copied, and sound
            may be left out.
        pixel_aspect: the shape of the video's pixels, width / height.
        time_base: unit of the video's timestamps, which MP4 and MOV keep exactly; Matroska rounds
            to milliseconds.

    Raises VideoError where the format cannot hold a stream, and where the file cannot be written.
    """

    def __init__(
        self,
        file: Path | BinaryIO,
        container: Container,
        video: Any,
        beside: Beside,
        *,
        pixel_aspect: Fraction,
        time_base: Fraction,
        metadata: Mapping[str, str],
        chapters: list[Any] | None = None,
        lenient: bool = False,
    ) -> None:
        self._file = file if isinstance(file, Path) else f"a {container.name} file"
        # the muxer does not hold packets back to wait for those of another stream
        options = {**container.options, "max_interleave_delta": "1"}
        isom = container.name in ("mp4", "mov")
        self.left_out: list[str] = []
        self.broken = 0
        """Packets beside the video that are damaged, and were left out."""
        if container.name == "mp4" and beside.covers and not lenient:
            # FFmpeg writes covers or tags of any name, and no file with both
            if "movflags" in options:
                options["movflags"] = options["movflags"].replace("+use_metadata_tags", "")
            self.left_out += [f"the tag {name}" for name in metadata if name.lower() not in _ITUNES]
        if isom:
            # also of the file, because times of beginning are rounded to it
            for name in ("video_track_timescale", "movie_timescale"):
                options[name] = str(time_base.denominator)
        try:
            into = str(file) if isinstance(file, Path) else file
            self._container: Any = av.open(into, "w", format=container.name, options=options)
            self._container.metadata.update(metadata)
            if chapters:
                self._container.set_chapters(chapters)
            self._video = self._add(video, beside.tags, beside.disposition)
            self._video.codec_context.sample_aspect_ratio = pixel_aspect
            tag = _TAGS.get(video.codec_context.codec.canonical_name)
            if isom and tag:
                self._video.codec_context.codec_tag = tag
            self._others: dict[int, Any] = {}
            self.converted: list[str] = []
            self._next: dict[int, int] = {}  # the least time of decoding that a stream may have
            self._converters: dict[int, Converter] = {}
            if isom and "timecode" in beside.tags and not _TIMECODES:
                self.left_out.append("timecode (PyAV 18 writes it)")
            covers: list[av.Packet] = []
            for stream in beside.played:
                self._add_played(stream, container, lenient)
            if not lenient:
                self.left_out += beside.unknown
                for stream in beside.streams:
                    if stream not in beside.played:
                        self._add_if_held(stream, container, video)
                covers = self._add_files(beside, container, video)
            self._container.start_encoding()
            self._container.mux(covers)
        except FFmpegError as error:
            raise VideoError(f"{self._file} cannot be written ({error.strerror})") from error

    def __enter__(self) -> StreamWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                for source in self._converters:
                    self._write_converted(source, None)
            self._container.close()
        except FFmpegError as problem:
            if error is None:
                raise VideoError(
                    f"{self._file} cannot be written ({problem.strerror})"
                ) from problem

    def write(self, packet: av.Packet, source: int | None = None) -> None:
        """Write a packet of the video, or of the source's stream with the index ``source``.

        Packets of streams that were left out are ignored.
        """
        stream = self._video if source is None else self._others.get(source)
        try:
            if source in self._converters:
                self._write_converted(source, packet)
            elif stream is not None:
                if source is not None:
                    self._let_grow(packet, stream, source)
                packet.stream = stream
                self._container.mux(packet)
        except InvalidDataError as error:
            if source is None:
                raise VideoError(
                    f"{self._file} cannot be written any further ({error.strerror})"
                ) from error
            self.broken += 1  # what the format has to look into, as AAC of a damaged recording
        except FFmpegError as error:
            raise VideoError(
                f"{self._file} cannot be written any further ({error.strerror})"
            ) from error

    def _write_converted(self, source: int, packet: av.Packet | None) -> None:
        converter = self._converters[source]
        before = converter.broken
        for one in converter.packets(packet):
            self._let_grow(one, converter.stream, source)
            self._container.mux(one)
        self.broken += converter.broken - before

    def _let_grow(self, packet: Any, stream: Any, source: int) -> None:
        """Move a packet to after the one before it in its stream where their times overlap, which
        muxers refuse: where the clock of a recording jumps, and by rounding to another time base."""
        ratio = packet.time_base / stream.time_base
        shown = packet.dts if packet.pts is None else packet.pts
        # rounded here, as the muxer may round halves in the other direction
        decoded, shown = round(packet.dts * ratio), round(shown * ratio)
        least: int = self._next.get(source, decoded)
        if decoded < least:
            decoded, shown = least, max(shown, least)
        packet.duration = round((packet.duration or 0) * ratio)
        packet.time_base, packet.pts, packet.dts = stream.time_base, shown, decoded
        self._next[source] = decoded + int(stream.type in ("audio", "video"))

    def _add_played(self, stream: Any, container: Container, lenient: bool) -> None:
        """Add sound or subtitles."""
        name = stream.codec_context.codec.canonical_name
        if stream.type == "subtitle" and name not in container.subtitles:
            if lenient or name not in TEXTS or not CAN_CONVERT:
                self.left_out.append(f"{name} subtitles")
                return
            text = SubtitleConverter(self._container, stream, container.text)
            self._convert(stream, text, f"{name} subtitles become {container.text}")
            return
        if lenient and name == "aac" and not stream.codec_context.extradata:
            return  # AAC of transport streams, which FFmpeg does not write in fragments
        if stream.type == "subtitle" or _begins(container, stream):
            self._others[stream.index] = self._copy(stream)
        elif container.sound:
            sound = SoundConverter(self._container, stream, container.sound)
            self._convert(stream, sound, f"{name} sound becomes {NAMES[container.sound]}")
        elif not lenient:
            raise UnsupportedStreamError(
                f"{container.name} files cannot hold {name} sound; write a .mkv file"
            )

    def _convert(self, stream: Any, converter: Converter, how: str) -> None:
        self._describe(converter.stream, tags_of(stream), stream.disposition.value)
        self._converters[stream.index] = converter
        self.converted.append(how)

    def _add_if_held(
        self, stream: Any, container: Container, video: Any, cover: bytes = b""
    ) -> Any:
        """Add another stream, or tell that it is left out."""
        if _holds(container, stream, video, cover):
            self._others[stream.index] = self._copy(stream)
            return self._others[stream.index]
        title = tags_of(stream).get("filename") or getattr(stream, "name", None) or "unknown"
        self.left_out.append(f"{stream.type} ({title})")
        return None

    def _add_files(self, beside: Beside, container: Container, video: Any) -> list[av.Packet]:
        """Add attachments, and covers as the format has them; packets of covers to write first."""
        packets = []
        for stream in beside.attachments:
            self._add_if_held(stream, container, video)
        for cover in beside.covers:
            if container.name == "matroska":
                self._container.add_attachment(cover.name, cover.kind, cover.data)
            elif container.name != "mp4":
                self.left_out.append(f"cover ({cover.name})")
            elif added := self._add_if_held(cover.stream, container, video, cover.data):
                packets.append(_cover_packet(cover.data, added))
        return packets

    def _copy(self, template: Any) -> Any:
        return self._add(template, tags_of(template), template.disposition.value)

    def _add(self, template: Any, tags: Mapping[str, str], disposition: int) -> Any:
        stream = self._container.add_stream_from_template(template, opaque=True)
        self._describe(stream, tags, disposition)
        return stream

    def _describe(self, stream: Any, tags: Mapping[str, str], disposition: int) -> None:
        stream.metadata.update(tags)
        language = tags.get("language", "und")
        if language != "und":
            held = language_in(self._container.format.name, language)
            stream.metadata["language"] = held or "und"
            if held is None:
                self.left_out.append(f"the language {language}")
        stream.disposition = disposition


def _cover_packet(data: bytes, stream: Any) -> av.Packet:
    packet = av.Packet(data)
    packet.pts, packet.dts, packet.time_base = 0, 0, Fraction(1, 90000)
    packet.stream, packet.is_keyframe = stream, True
    return packet


def _begins(container: Container, stream: Any) -> bool:
    """Whether a file of this format can begin with a stream of sound; of more than 8 channels without
    compression FFmpeg writes MP4 and MOV that it does not read."""
    many = stream.codec_context.channels > 8 and stream.codec_context.name.startswith("pcm_")
    if many and container.name in ("mp4", "mov"):
        return False
    with contextlib.suppress(FFmpegError), av.open(io.BytesIO(), "w", format=container.name) as one:
        try:
            one.add_stream_from_template(stream, opaque=True)
            one.start_encoding()
        except (ValueError, FFmpegError):
            return False
    return True


def _holds(container: Container, stream: Any, video: Any, cover: bytes) -> bool:
    """Whether a file of this format can have a stream, beside one of ``video``; one of a cover has
    to hold it when the file is closed."""
    try:
        with av.open(io.BytesIO(), "w", format=container.name) as trial:
            trial.add_stream_from_template(video, opaque=True)
            added = trial.add_stream_from_template(stream, opaque=True)
            added.disposition = stream.disposition.value
            trial.start_encoding()
            if cover:
                trial.mux(_cover_packet(cover, added))
    except (ValueError, FFmpegError):
        return False
    return True
