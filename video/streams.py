"""Writes video files of packets: those of the result's pictures, and what is copied beside them."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import av
from av.error import FFmpegError

from .colour import VideoError
from .sound import SoundConverter
from .write import Container, UnsupportedStreamError

_TAGS = {"hevc": "hvc1"}  # in MP4 and MOV, where FFmpeg's default does not play on Apple's devices
_STREAM_METADATA = ("language", "title", "handler_name")


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


class StreamWriter:
    """A video file that packets are written to; a context manager.

    Args:
        file: a path, or a binary file to write to.
        video: the stream that the description of the video is copied from.
        others: the same for the other streams. Subtitles that the format cannot hold are left out,
            and with ``lenient`` so are all other streams that it cannot hold.
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
        others: Iterable[Any],
        *,
        pixel_aspect: Fraction,
        time_base: Fraction,
        metadata: Mapping[str, str],
        chapters: list[Any] | None = None,
        lenient: bool = False,
    ) -> None:
        self._file = file
        # the muxer does not hold packets back to wait for those of another stream
        options = {**container.options, "max_interleave_delta": "1"}
        isom = container.name in ("mp4", "mov")
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
            self._video = self._add(video)
            self._video.codec_context.sample_aspect_ratio = pixel_aspect
            tag = _TAGS.get(video.codec_context.codec.canonical_name)
            if isom and tag:
                self._video.codec_context.codec_tag = tag
            self._others: dict[int, Any] = {}
            self.left_out: list[str] = []
            self.converted: list[str] = []
            self._next: dict[int, int] = {}  # the least time of decoding that a stream may have
            self._converters: dict[int, SoundConverter] = {}
            for stream in others:
                name = stream.codec_context.codec.canonical_name
                if stream.type == "subtitle" and name not in container.subtitles:
                    self.left_out.append(f"{name} subtitles")
                    continue
                if lenient and name == "aac" and not stream.codec_context.extradata:
                    continue  # AAC of transport streams, which FFmpeg does not write in fragments
                try:
                    self._others[stream.index] = self._add(stream)
                except ValueError as error:
                    if container.converts and stream.type == "audio":
                        self._converters[stream.index] = SoundConverter(self._container, stream)
                        self.converted.append(name)
                    elif not lenient:
                        message = f"{container.name} files cannot hold {name} {stream.type}; write a .mkv file"
                        raise UnsupportedStreamError(message) from error
            self._container.start_encoding()
        except FFmpegError as error:
            raise VideoError(f"{file} cannot be written ({error.strerror})") from error

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
                for converter in self._converters.values():
                    self._container.mux(converter.packets(None))
            self._container.close()
        except FFmpegError as problem:
            if error is None:
                raise VideoError(
                    f"{self._file} cannot be written ({problem.strerror})"
                ) from problem

    def write(self, packet: av.Packet, source: int | None = None) -> None:
        """Write a packet of the video, or of the stream of ``others`` with the index ``source``.

        Packets of streams that were left out are ignored.
        """
        stream = self._video if source is None else self._others.get(source)
        try:
            if source in self._converters:
                self._container.mux(self._converters[source].packets(packet))
            elif stream is not None:
                if source is not None:
                    self._let_grow(packet, stream, source)
                packet.stream = stream
                self._container.mux(packet)
        except FFmpegError as error:
            raise VideoError(f"{self._file} cannot be written on ({error.strerror})") from error

    def _let_grow(self, packet: av.Packet, stream: Any, source: int) -> None:
        """Move a packet to after the one before it in its stream where their times overlap, which
        muxers refuse: where the clock of a recording jumps, and by rounding to another time base."""
        base = stream.time_base
        decoded = round(packet.dts * packet.time_base / base)
        least = self._next.get(source, decoded)
        if decoded < least:
            shown = packet.dts if packet.pts is None else packet.pts
            shown = round(shown * packet.time_base / base)
            packet.duration = round((packet.duration or 0) * packet.time_base / base)
            packet.time_base, decoded = base, least
            packet.pts, packet.dts = max(shown, least), least
        self._next[source] = decoded + (stream.type == "audio")

    def _add(self, template: Any) -> Any:
        stream = self._container.add_stream_from_template(template, opaque=True)
        stream.metadata.update(
            {k: v for k, v in template.metadata.items() if k in _STREAM_METADATA}
        )
        return stream
