"""Reads video files: their properties, their frames one by one, packets of their other streams."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import av
import av.format
from av.error import FFmpegError

from .beside import beside, covers_of, is_cover, with_times
from .clock import Clock
from .colour import RGB, UNSPECIFIED, Colour, SampleReader, VideoError
from .parts import Times, times_of
from .properties import Properties
from .source import Orientation, SourceFrame

logger = logging.getLogger(__name__)

MAX_PIXELS = 200_000_000
"""Largest frame that is decoded if the caller does not say otherwise."""
_UNKNOWN_RATE = Fraction(25)
_TAIL = 1  # seconds by which other streams may lag behind the video
_LEAST_MISSING = 0.5  # seconds missing at the end: fewer may be rounding in the header
_SAMPLE = 2**20  # bytes at the beginning and at the end by which a file is identified
_TOLD = 5  # jumps of the clock that are told one by one


class VideoFile:
    """The `VideoSource` of a file or of a seekable binary stream; uses the first video stream.

    ``start`` and ``duration`` in seconds (0: to the end) select a part of it. Raises OSError where
    the file cannot be opened and VideoError where it is not a video, is broken, or holds what is
    not supported.
    """

    def __init__(
        self,
        file: Path | str | BinaryIO,
        *,
        start: float = 0,
        duration: float = 0,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._file = file
        self._start = Fraction(start)
        self._end = Fraction(start) + Fraction(duration) if duration else None
        with self._open() as container:
            self._inspect(container, max_pixels)
        with self._open() as container:
            self._covers = covers_of(container)
        self._container = self._open()
        self._stream = _video_stream(self._container)
        self.beside = beside(self._container, self._stream, self._covers)

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._container.close()

    def __str__(self) -> str:
        return str(self._file) if isinstance(self._file, str | Path) else "the video"

    def identity(self) -> str:
        """A digest of the file's size, beginning and end; empty for a stream."""
        if not isinstance(self._file, str | Path):
            return ""
        with Path(self._file).open("rb") as file:
            digest = hashlib.sha256(file.read(_SAMPLE))
            size = file.seek(0, 2)
            file.seek(max(size - _SAMPLE, 0))
            digest.update(file.read())
        return f"{size}-{digest.hexdigest()}"

    def __iter__(self) -> Iterator[SourceFrame | av.Packet]:
        return self._iterate(self.beside.played)

    def frames_from(self, decoded: int | None) -> Iterator[Any]:
        """Frames alone, from the key frame on that is decoded at that pts; None: from where reading
        stands, which is the beginning at first."""
        if decoded is not None:
            at = (decoded + round(self._shift / self.time_base)) // self._ticks
            self._container.seek(at, stream=self._stream)
        return self._iterate([])

    def times(self) -> Times | None:
        """When frames are shown, as packets tell it without decoding them; None for what does not
        tell it surely, as do parts of files and formats whose clock jumps."""
        if self._jumps or self._start or self._end is not None:
            return None
        with self._open() as container:
            stream = _video_stream(container)
            return times_of(
                container.demux(stream), self._ticks, round(self._shift / self.time_base)
            )

    def _iterate(self, played: list[Any]) -> Iterator[Any]:
        shift = round(self._shift / self.time_base)
        nominal = max(round(1 / self.rate / self.time_base), 1)
        reader, kind = self._reader, self._kind
        known, told = list(self.lost), self._properties.interlaced
        last, count, repaired = -nominal, 0, False
        try:
            for item, packet_duration in self._items(self._container, self._stream, played):
                if isinstance(item, av.Packet):
                    yield item
                    continue
                if (item.height, item.width) != self._stored:
                    raise VideoError(
                        f"frame {count + 1} has {item.width}x{item.height} pixels where the video began with "
                        f"{self._stored[1]}x{self._stored[0]}; convert it to one size first"
                    )
                self._properties.see(item, self._stream)
                if _kind(item) != kind:
                    reader, kind = self._new_reader(item), _kind(item)
                pts = last + nominal if item.pts is None else item.pts * self._ticks - shift
                if pts <= last and count:
                    repaired, pts = True, last + 1
                duration = (packet_duration or 0) * self._ticks or nominal
                last, count = pts, count + 1
                samples = reader.samples(item)
                rgb = partial(self._picture, reader, samples)
                yield SourceFrame(pts=pts, duration=duration, samples=samples, rgb=rgb)
        except FFmpegError as error:
            raise VideoError(
                f"it cannot be read on after frame {count} ({error.strerror})"
            ) from error
        if self._broken:
            logger.warning(
                "%s: %d packets could not be decoded; their frames are left out", self, self._broken
            )
        if jumps := self._clock.jumps:
            at = ", ".join(f"{float(time):.1f}" for time in jumps[:_TOLD])
            more = f" and {len(jumps) - _TOLD} times more" if len(jumps) > _TOLD else ""
            logger.warning(
                "%s: its clock jumps at %s s%s; picture and sound go on there", self, at, more
            )
        self._warn_if_interlaced(told=told)
        if more := [name for name in self.lost if name not in known]:
            logger.warning("%s: left out: %s", self, ", ".join(more))
        if repaired:
            logger.warning("%s: timestamps that did not grow were moved", self)
        self._warn_if_cut_off()

    def packets(self) -> Iterator[av.Packet]:
        """Packets of the streams that are copied, from the start of the selected part."""
        if not self.beside.streams:
            return
        with self._open() as container:
            if self._start:
                container.seek(int(self._start * av.time_base))
            video = _video_stream(container)
            indices = [video.index, *(stream.index for stream in self.beside.streams)]
            pictures = {one.index for one in self.beside.streams if one.type == "video"}
            packets = with_times(_clock(container, video)(container.demux(indices)), pictures)
            for packet in packets:
                if packet.stream.index != video.index and self._copied(packet):
                    yield packet

    def _picture(self, reader: SampleReader, samples: Any) -> Any:
        return self.orientation.upright(reader.rgb(samples)).contiguous()

    def _open(self) -> Any:
        if not isinstance(self._file, str | Path):
            self._file.seek(0)
        file = str(self._file) if isinstance(self._file, Path) else self._file
        try:
            return av.open(
                file,
                "r",
                metadata_errors="replace",
                container_options={"protocol_whitelist": "file"},
            )
        except FFmpegError as error:
            if isinstance(error, OSError):
                raise
            raise VideoError(f"it is no video that FFmpeg can read ({error.strerror})") from error

    def _inspect(self, container: Any, max_pixels: int) -> None:
        """Set everything that is known from the header and the first frame."""
        stream = _video_stream(container)
        context = stream.codec_context
        if context.width * context.height > max_pixels:
            raise VideoError(
                f"it claims {context.width}x{context.height} pixels; the limit is {max_pixels / 1e6:g} million "
                "(raise it with --max-megapixels where the file can be trusted)"
            )
        self._broken, self._reached = 0, Fraction(0)
        frames = (
            item
            for item, _ in self._items(container, stream, [])
            if isinstance(item, av.VideoFrame)
        )
        first = next(frames, None)
        if first is None and self._start:
            raise VideoError(f"it has no frame at or after {float(self._start):g} seconds")
        if first is None:
            raise VideoError("none of its frames can be decoded; it is cut off or broken")
        self._broken = 0
        self._stored = first.height, first.width
        self._kind = _kind(first)
        self._properties = Properties(stream, first)
        self.lost = self._properties.lost
        self._warn_if_interlaced(told=False)
        self.orientation = Orientation(_side_data(first, "DISPLAYMATRIX"))
        self.size = self.orientation.size(*self._stored)
        self.bits = max(component.bits for component in first.format.components)
        self.pixel_aspect = _pixel_aspect(stream)
        self.colour = _colour(context, first)
        self._reader = self._new_reader(first)

        base = stream.time_base
        self._ticks = base.numerator
        self.time_base = Fraction(1, base.denominator)
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or _UNKNOWN_RATE)
        self.metadata = dict(container.metadata)
        whole = not self._start and self._end is None
        self.chapters = container.chapters() if whole else []
        end = Fraction(container.duration or 0, av.time_base) if self._end is None else self._end
        self.frame_count = (stream.frames if whole else 0) or max(
            round((end - self._start) * self.rate), 1
        )
        self._jumps = bool(container.format.flags & av.format.Flags.ts_discont.value)
        self.end = None
        if whole and stream.duration is not None and not self._jumps:
            self.end = ((stream.start_time or 0) + stream.duration) * self._ticks
        self._shift = Fraction(0)
        if self._start and first.pts is not None:
            self._shift = first.pts * base
        elif self._jumps or (first.pts or 0) < 0:
            # the clock may begin anywhere, and before zero where it begins anew soon
            self._shift = Fraction(container.start_time or 0, av.time_base)
        if self.end is not None:
            self.end -= round(self._shift / self.time_base)

    def _new_reader(self, frame: av.VideoFrame) -> SampleReader:
        """For frames of the kind of this one, whose colours may be others than the first's."""
        _, matrix, levels = _kind(frame)
        colour = self.colour
        if (matrix, levels) != self._kind[1:]:
            colour = replace(colour, matrix=matrix, range=levels)
            if colour.matrix == RGB and not frame.format.is_rgb:
                colour = replace(colour, matrix=UNSPECIFIED)
        return SampleReader(frame.format, colour, *self._stored, siting=self._properties.siting)

    def _items(
        self, container: Any, stream: Any, others: list[Any]
    ) -> Iterator[tuple[Any, int | None]]:
        """Decoded frames of the selected part, and packets of ``others``.

        A frame comes with the duration of its packet.
        """
        base, durations = stream.time_base, {}
        end, ended = self._end or Fraction(0), False  # 0: the end of the file
        if self._start:
            container.seek(int(self._start * av.time_base))
        self._clock = _clock(container, stream)
        for packet in self._clock(container.demux(stream, *others)):
            time = packet.dts * packet.time_base if packet.dts is not None else Fraction(0)
            if packet.pts is not None:
                self._reached = max(
                    self._reached, (packet.pts + (packet.duration or 0)) * packet.time_base
                )
            if ended and (not others or time > end + _TAIL):
                return
            if packet.stream.index != stream.index:
                if self._copied(packet):
                    yield packet, None
                continue
            if not packet.size and packet.dts is not None:
                continue  # Theora's way to say that the picture before stays
            durations[packet.pts] = packet.duration
            try:
                frames = packet.decode()
            except FFmpegError:
                self._broken += 1
                continue
            for frame in frames:
                duration = durations.pop(frame.pts, None)
                shown = self._start if frame.pts is None else frame.pts * base
                ended = ended or bool(end and shown >= end)
                if not ended and (not self._start or shown >= self._start):
                    yield frame, duration

    def _copied(self, packet: av.Packet) -> bool:
        """Whether a packet of another stream belongs to the selected part.

        If so, its times are shifted as the video's are.
        """
        if packet.dts is None:
            packet.dts = packet.pts
        if packet.dts is None:
            return False
        time = packet.dts * packet.time_base
        if (self._start and time < self._shift) or (self._end is not None and time >= self._end):
            return False
        ticks = round(self._shift / packet.time_base)
        packet.pts = (packet.dts if packet.pts is None else packet.pts) - ticks
        packet.dts -= ticks
        return True

    def _warn_if_interlaced(self, *, told: bool) -> None:
        if self._properties.interlaced and not told:
            logger.warning(
                "%s is interlaced; deinterlace it first, or both fields are upscaled as one picture",
                self,
            )

    def _warn_if_cut_off(self) -> None:
        """If the whole file was read, warn if its packets end before its header says."""
        if self._start or self._end is not None or self._jumps or not self._container.duration:
            return
        announced = Fraction(
            self._container.duration + (self._container.start_time or 0), av.time_base
        )
        if announced - self._reached > _LEAST_MISSING:
            logger.warning(
                "%s ends after %.1f seconds where its header says %.1f; it is cut off",
                self,
                self._reached,
                announced,
            )


def _video_stream(container: Any) -> Any:
    for stream in container.streams.video:
        if not is_cover(stream):
            if stream.codec_context is None:
                raise VideoError("its video codec is not known to FFmpeg; convert it first")
            return stream
    raise VideoError("it has no video stream")


def _pixel_aspect(stream: Any) -> Fraction:
    """The shape of pixels (width / height): the container's word before that of the codec."""
    found = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return Fraction(found or 1)


def _clock(container: Any, stream: Any) -> Clock:
    rate = Fraction(stream.average_rate or stream.guessed_rate or _UNKNOWN_RATE)
    jumps = container.format.flags & av.format.Flags.ts_discont.value
    return Clock(stream.index, 1 / rate, discontinuous=bool(jumps))


def _colour(context: Any, frame: av.VideoFrame) -> Colour:
    names = ("primaries", "transfer", "matrix", "range")
    values = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
    declared = dict(zip(names, map(int, values)))
    if frame.format.is_rgb or frame.format.has_palette:
        declared["matrix"] = RGB
    elif declared["matrix"] == RGB:
        declared["matrix"] = UNSPECIFIED
    if frame.format.name.startswith("yuvj"):
        declared["range"] = 2
    return Colour(**declared)


def _kind(frame: av.VideoFrame) -> tuple[str, int, int]:
    """How samples are read: pixel format, matrix and range."""
    return frame.format.name, int(frame.colorspace), int(frame.color_range)


def _side_data(frame: av.VideoFrame, name: str) -> bytes | None:
    found = frame.side_data.get(name)  # type: ignore[attr-defined]
    return None if found is None else bytes(found)
