"""Reads video files: their properties, their frames one by one, packets of their other streams."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import av
import av.format
from av.error import FFmpegError

from .beside import beside, covers_of, video_stream, with_times, without_hidden
from .clock import Clock
from .colour import RGB, UNSPECIFIED, SampleReader, VideoError
from .crop import crop_of, cropped
from .cut import stops_early
from .damage import Damage
from .joined import Joined, inner_headers, is_joined
from .parts import Times, times_of
from .properties import Properties, colour_of, kind_of, pixel_aspect_of, side_data_of
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

    ``start`` and ``duration`` in seconds (0: to the end) select a part of it. ``name`` is what messages
    call it, else its path. Raises OSError where
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
        name: str | None = None,
    ) -> None:
        self.file, self._name = file, name
        self.selected, self.max_pixels = (start, duration), max_pixels
        self._start = Fraction(start)
        self._end = Fraction(start) + Fraction(duration) if duration else None
        path = Path(file) if isinstance(file, str | Path) else None
        self._inner = inner_headers(path) if path else []
        if path and is_joined(path):
            logger.warning(
                "%s: another file follows the first, of which nothing is read; split them, and join the results",
                self,
            )
        with self._open() as container:
            self._inspect(container, max_pixels)
        with self._open() as container:
            self._covers = covers_of(container)
        self._container = self._open()
        self._stream = video_stream(self._container)
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
        path = str(self.file) if isinstance(self.file, str | Path) else "the video"
        return self._name or path

    def identity(self) -> str:
        """A digest of the file's size, beginning and end; empty for a stream."""
        if not isinstance(self.file, str | Path):
            return ""
        with Path(self.file).open("rb") as file:
            digest = hashlib.sha256(file.read(_SAMPLE))
            size = file.seek(0, 2)
            file.seek(max(size - _SAMPLE, 0))
            digest.update(file.read())
        return f"{size}-{digest.hexdigest()}"

    def __iter__(self) -> Iterator[SourceFrame | av.Packet]:
        return self._iterate(self.beside.played, whole=True)

    def frames_from(self, decoded: int | None, *, whole: bool) -> Iterator[Any]:
        """Frames alone, from the key frame on that is decoded at that pts; None: from where reading
        stands, the beginning at first. ``whole``: all will be read, so that at the end the log
        says what is damaged."""
        if decoded is not None:
            at = (decoded + round(self._shift / self.time_base)) // self._ticks
            self._container.seek(at, stream=self._stream)
        items = self._iterate(self.beside.played if whole else [], whole=whole)
        return (item for item in items if not isinstance(item, av.Packet))

    @property
    def flawed(self) -> bool:
        """Whether something of what was read so far could not be decoded well."""
        return self._damage.flawed

    def times(self) -> Times | None:
        """When frames are shown, as packets tell it without decoding them; None for what does not
        tell it surely: parts of files, damaged ones, formats whose clock jumps."""
        if self._jumps or self._start or self._end is not None:
            return None
        with self._open() as container:
            stream = video_stream(container)
            others = [one.index for one in self.beside.played]
            packets = self._reaching(container.demux([stream.index, *others]))
            video = (packet for packet in packets if packet.stream.index == stream.index)
            times = times_of(video, self._ticks, round(self._shift / self.time_base))
        if times is None:
            return None
        self._damage = Damage()
        for last, pts in pairwise(times.shown):
            self._damage.see_time(last, pts, self.time_base)
        return None if self._damage.told(self.time_base) or self._cut_off() else times

    def _reaching(self, packets: Iterable[Any]) -> Iterator[Any]:
        """The same packets; notes how far they reach."""
        for packet in packets:
            if packet.pts is not None:
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                self._reached = max(self._reached, end)
            yield packet

    def _iterate(self, played: list[Any], *, whole: bool) -> Iterator[Any]:
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
                if kind_of(item) != kind:
                    reader, kind = self._new_reader(item), kind_of(item)
                pts = last + nominal if item.pts is None else item.pts * self._ticks - shift
                if pts <= last and count:
                    repaired, pts = True, last + 1
                duration = (packet_duration or 0) * self._ticks or nominal
                self._damage.see_frame(item, last if count else None, pts, self.time_base)
                last, count = pts, count + 1
                samples = cropped(reader.samples(item), self._crop)
                rgb = partial(self._picture, reader, samples)
                yield SourceFrame(pts=pts, duration=duration, samples=samples, rgb=rgb)
        except FFmpegError as error:
            raise VideoError(
                f"it cannot be read beyond frame {count} ({error.strerror})"
            ) from error
        if whole:
            self.damage = self._damage.told(self.time_base) + self._cut_off()
        for text in self.damage:
            logger.warning("%s: %s", self, text)
        if jumps := self._clock.jumps:
            at = ", ".join(f"{float(time - self._shift):.1f}" for time in jumps[:_TOLD])
            more = f" and {len(jumps) - _TOLD} times more" if len(jumps) > _TOLD else ""
            logger.warning(
                "%s: its clock jumps at %s s%s; picture and sound go on there", self, at, more
            )
        self._warn_if_interlaced(told=told)
        if more := [name for name in self.lost if name not in known]:
            logger.warning("%s: left out: %s", self, ", ".join(more))
        if repaired:
            logger.warning("%s: timestamps that did not grow were moved", self)

    def packets(self) -> Iterator[av.Packet]:
        """Packets of the streams that are copied, from the start of the selected part."""
        if not self.beside.streams:
            return
        with self._open() as container:
            if self._start:
                container.seek(int(self._start * av.time_base))
            video = video_stream(container)
            indices = [video.index, *(stream.index for stream in self.beside.streams)]
            pictures = {one.index for one in self.beside.streams if one.type == "video"}
            packets = with_times(
                _clock(container, video)(without_hidden(container.demux(indices))), pictures
            )
            for packet in packets:
                if packet.stream.index != video.index and self._copied(packet):
                    yield packet

    def _picture(self, reader: SampleReader, samples: Any) -> Any:
        return self.orientation.upright(reader.rgb(samples)).contiguous()

    def _open(self) -> Any:
        if not isinstance(self.file, str | Path):
            self.file.seek(0)
        file = str(self.file) if isinstance(self.file, Path) else self.file
        if self._inner:
            file = Joined(Path(self.file), self._inner)
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
        stream = video_stream(container)
        context = stream.codec_context
        if context.width * context.height > max_pixels:
            raise VideoError(
                f"it claims {context.width}x{context.height} pixels; the limit is {max_pixels / 1e6:g} million "
                "(raise it with --max-megapixels where the file can be trusted)"
            )
        self._reached = Fraction(0)
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
        self.damage: list[str] = []
        self._stored = first.height, first.width
        self._kind = kind_of(first)
        self._properties = Properties(stream, first, self._first_packet)
        self.hdr, self.lost = self._properties.hdr, self._properties.lost
        self._warn_if_interlaced(told=False)
        self.orientation = Orientation(side_data_of(first, "DISPLAYMATRIX"))
        self._crop = crop_of(self.file, container.format.name, *self._stored)
        self.size = self.orientation.size(*self._crop.size(*self._stored))
        self.bits = max(component.bits for component in first.format.components)
        self.pixel_aspect = pixel_aspect_of(stream)
        self.colour = colour_of(context, first)
        self._reader = self._new_reader(first)

        base = stream.time_base
        self._ticks = base.numerator
        self.time_base = Fraction(1, base.denominator)
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or _UNKNOWN_RATE)
        self.metadata = dict(container.metadata)
        whole = not self._start and self._end is None
        self.chapters = container.chapters() if whole else []
        # AVI's list of frames is shorter where some are missing, its header tells all
        self._announced = (
            stream.frames / self.rate if container.format.name == "avi" else Fraction(0)
        )
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
        _, matrix, levels = kind_of(frame)
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
        self._clock, self._damage = _clock(container, stream), Damage()
        self._first_packet: Any = None
        for packet in self._clock(without_hidden(container.demux(stream, *others))):
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
            self._first_packet = self._first_packet or packet
            self._damage.see_packet(packet, self._clock.stretch(stream.index))
            if not packet.size and packet.dts is not None:
                continue  # Theora's way to say that the picture before stays
            durations[packet.pts] = packet.duration
            try:
                frames = packet.decode()
            except FFmpegError:
                self._damage.undecoded += 1
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

    def _cut_off(self) -> list[str]:
        """If the whole file was read, whether its end is missing, in words."""
        if self._start or self._end is not None:
            return []
        length = max(Fraction(self._container.duration or 0, av.time_base), self._announced)
        announced = length + Fraction(self._container.start_time or 0, av.time_base)
        # the header may count how long the last frame stays, which no packet tells
        allowed = max(_LEAST_MISSING, self._damage.longest * self.time_base)
        if length and not self._jumps and announced - self._reached > allowed:
            reached, announced = float(self._reached), float(announced)
            return [
                f"it ends after {reached:.1f} seconds where its header says {announced:.1f}: a part is missing"
            ]
        if stops_early(self.file, self._container.format.name):
            return ["it stops in the middle of a packet: its end is missing"]
        return []


def _clock(container: Any, stream: Any) -> Clock:
    rate = Fraction(stream.average_rate or stream.guessed_rate or _UNKNOWN_RATE)
    jumps = container.format.flags & av.format.Flags.ts_discont.value
    return Clock(stream.index, 1 / rate, discontinuous=bool(jumps))
