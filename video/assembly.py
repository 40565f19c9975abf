"""Makes the file of a result: segments of frames, and packets of other streams between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import av
from torch import Tensor

from ..common.leftovers import clear_away
from .colour import FrameMaker
from .resume import Unfinished
from .source import VideoSource
from .streams import StreamWriter
from .write import SEGMENT_FRAMES, SegmentEncoder


@dataclass(frozen=True)
class EncodedSegment:
    """A segment that was encoded elsewhere.

    Attributes:
        times: pts and duration of its frames.
        data: the MP4 file that `write.SegmentEncoder.close` gives.
    """

    times: list[tuple[int, int]]
    data: bytes


class Assembly:
    """Makes the unfinished file, frame by frame.

    The first ``skipped`` frames are in ``kept`` already, and are copied from there.
    """

    def __init__(
        self,
        writer: StreamWriter,
        source: VideoSource,
        encoder: SegmentEncoder,
        make_frame: FrameMaker,
        kept: Unfinished | None,
    ) -> None:
        self._writer, self._encoder, self._make_frame = writer, encoder, make_frame
        self._base = source.time_base
        self._nominal = max(round(1 / source.rate / source.time_base), 1)
        self._kept = kept
        self._kept_packets = kept.packets() if kept else None
        self.skipped = kept.segments * SEGMENT_FRAMES if kept else 0
        self.frames = 0
        """Frames in the file."""
        self._added = 0
        self._frame: av.VideoFrame | None = None
        self._held: deque[av.Packet] = deque()
        self._times: list[tuple[int, int]] = []  # pts and duration of the segment's frames
        self._kept_segment: list[av.Packet] | None = None
        self._elsewhere: bytes | None = None  # the segment, where it was encoded elsewhere
        self._before: list[int] = []  # pts of the frames of the segment before

    def hold(self, packet: av.Packet) -> None:
        """Keep a packet of another stream until the video has reached its time."""
        self._held.append(packet)

    def add(self, pts: int, duration: int, picture: Tensor | None) -> None:
        """Add the next frame: (H, W, 3), or None if it repeats the one before or is in ``kept``."""
        if len(self._times) == SEGMENT_FRAMES:
            self._end_segment(pts)
        self._times.append((pts, duration))
        if self._added >= self.skipped:
            self._frame = self._frame if picture is None else self._make_frame(picture)
            assert self._frame is not None
            self._encoder.add(self._frame)
        self._added += 1

    def add_segment(self, segment: EncodedSegment) -> None:
        """Add a whole segment that was encoded elsewhere, after those that are in ``kept``."""
        if self._times:
            self._end_segment(segment.times[0][0])
        self._times, self._elsewhere = list(segment.times), segment.data
        self._added += len(segment.times)

    def add_kept(self) -> list[tuple[int, int]]:
        """Add the next segment of ``kept``; pts and duration of its frames."""
        packets = list(self._copied())
        times = sorted((packet.pts, packet.duration) for packet in packets)
        if self._times:
            self._end_segment(times[0][0])
        self._times, self._kept_segment = times, packets
        self._added += len(times)
        return times

    def end(self) -> None:
        """Write all that is left, and close ``kept``: Windows moves no file that is open."""
        try:
            self._end_segment(None)
        finally:
            if self._kept_packets:
                self._kept_packets.close()

    def _end_segment(self, until: int | None) -> None:
        """Write the segment, then the held packets that come before the pts ``until``.

        Sound comes last, because the muxer holds back the last packets until half a second of
        others has followed.
        """
        for packet in self._segment():
            self._writer.write(packet)
            self.frames += 1
        while self._held and (until is None or decoding_time(self._held[0]) < until * self._base):
            packet = self._held.popleft()
            self._writer.write(packet, packet.stream.index)
        self._before = [pts for pts, _ in self._times]
        self._times, self._elsewhere, self._kept_segment = [], None, None
        # all whole segments of ``kept`` have been copied, so it is not needed any more
        if self._kept and self._kept_packets and self._added > self.skipped:
            self._kept_packets.close()
            clear_away(self._kept.path)

    def _segment(self) -> Iterable[av.Packet]:
        """The packets of the segment that ends."""
        if self._kept_segment is not None:
            return self._kept_segment
        return (
            self._copied()
            if self._kept_packets and self._added <= self.skipped
            else self._encoded()
        )

    def _copied(self) -> Iterator[av.Packet]:
        assert self._kept_packets
        return (
            packet
            for packet in islice(self._kept_packets, SEGMENT_FRAMES)
            if packet.dts is not None
        )

    def _encoded(self) -> Iterator[av.Packet]:
        """The segment's packets, with the times of its frames."""
        elsewhere = self._elsewhere
        encoder = self._encoder
        for packet, shown, decoded in (
            encoder.finish() if elsewhere is None else encoder.packets(elsewhere)
        ):
            packet.time_base = self._base
            packet.pts, packet.duration = self._times[shown]
            packet.dts = self._decoded_at(decoded)
            yield packet

    def _decoded_at(self, number: int) -> int:
        """The pts of a frame of the segment; negative numbers count back in the one before."""
        if number >= 0:
            return self._times[number][0]
        if -number <= len(self._before):
            return self._before[number]
        first = self._before[0] if self._before else self._times[0][0]
        return first + (number + len(self._before)) * self._nominal


def decoding_time(packet: av.Packet) -> Fraction:
    """When a packet is decoded, in seconds."""
    assert packet.dts is not None
    return packet.dts * packet.time_base
