"""Joins the times of a file whose clock jumps: recordings, transport streams one after the other.

What jumps and how far follows FFmpeg's `ffmpeg` (fftools/ffmpeg_demux.c, ts_discontinuity_detect):
in formats whose clock may begin anywhere, a time of decoding that lies more than 10 seconds after
the one expected, or 0.1 seconds before the last one, begins a new stretch of the clock, which is
moved to where the one before ends. Unlike there, the picture decides how far, and every stream goes
over to the new stretch by itself, since packets from before and after a jump come mixed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av

_FORTH, _BACK = Fraction(10), Fraction(1, 10)  # seconds
_BACK_ELSEWHERE = Fraction(1)  # in formats whose clocks do not jump, but for files joined by bytes
_WRAP = Fraction(2**33, 90000)  # seconds: when the clock of MPEG's formats begins anew
_AHEAD = 2000  # packets in which the picture has to follow a jump of the sound


@dataclass(kw_only=True)
class _Stream:
    """Where a stream is: its stretch of the clock, the time of its last packet and the next one."""

    stretch: int = 0
    last: Fraction | None = None
    next: Fraction | None = None


class Clock:
    """Moves the times of packets so that they go on where the file's clock jumps.

    Args:
        video: the index of the stream whose pictures decide where a new stretch begins.
        frame: seconds that a picture lasts where its packet does not say.
        discontinuous: whether the format's clock may jump (`av.format.Flags.ts_discont`). If not,
            only a time that goes back by a second or more is a jump.
    """

    def __init__(self, video: int, frame: Fraction, *, discontinuous: bool) -> None:
        self._video, self._frame, self._discontinuous = video, frame, discontinuous
        self._offsets = [Fraction(0)]  # of every stretch, in seconds
        self._streams: dict[int, _Stream] = {}
        self._latest: Fraction | None = None
        self.jumps: list[Fraction] = []
        """Where the clock jumped, in seconds of the times that are given out."""

    def stretch(self, stream: int) -> int:
        """The number of the stretch of the clock in which the stream of this index is."""
        return self._streams[stream].stretch if stream in self._streams else 0

    def __call__(self, packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
        """The same packets, roughly in their order: other streams wait for the picture's jump."""
        waiting: deque[av.Packet] = deque()
        for packet in packets:
            is_video = packet.stream.index == self._video
            before = len(self._offsets)
            if not is_video and (waiting or self._unheard_of(packet)):
                waiting.append(packet)
            else:
                yield self._moved(packet)
            if waiting and (len(self._offsets) > before or len(waiting) > _AHEAD):
                yield from map(self._moved, waiting)
                waiting.clear()
        yield from map(self._moved, waiting)

    def _unheard_of(self, packet: av.Packet) -> bool:
        """Whether a packet lies in no stretch that is known."""
        time = _time(packet)
        return time is not None and self._stretch(packet, time) is None

    def _stretch(self, packet: av.Packet, time: Fraction) -> int | None:
        """The stretch in which a packet lies; None if it lies in none."""
        stream = self._streams.setdefault(packet.stream.index, _Stream())
        best = self._nearest(packet, time)
        moved = time + self._offsets[best]
        if stream.last is None or stream.next is None:
            # how far streams lie apart when they begin is for the file to say
            if self._latest is None or not self._discontinuous:
                return best
            return best if abs(moved - self._latest) <= _FORTH else None
        back = _BACK if self._discontinuous else _BACK_ELSEWHERE
        if best > stream.stretch:  # the picture has decided, and sound may overlap a little
            back = _BACK_ELSEWHERE
        if moved < stream.last - back or (self._discontinuous and moved > stream.next + _FORTH):
            return None
        return best

    def _nearest(self, packet: av.Packet, time: Fraction) -> int:
        """The stretch, of those from the stream's own on, in which a packet lies nearest to where
        it is expected."""
        stream = self._streams.setdefault(packet.stream.index, _Stream())
        # subtitles and the like come when they come: what has been read last is their measure
        expected = self._latest if _sparse(packet) or stream.next is None else stream.next
        if expected is None:
            return stream.stretch
        return min(
            range(stream.stretch, len(self._offsets)),
            key=lambda one: abs(time + self._offsets[one] - expected),
        )

    def _moved(self, packet: av.Packet) -> av.Packet:
        time = _time(packet)
        stream = self._streams.setdefault(packet.stream.index, _Stream())
        if time is not None:
            stretch = self._stretch(packet, time)
            if stretch is None and _sparse(packet):
                stretch = self._nearest(packet, time)
            elif stretch is None:
                stretch = self._begin_stretch(stream, time)
            stream.stretch = stretch
            moved = time + self._offsets[stretch]
            length = (packet.duration or 0) * packet.time_base
            if not length and packet.stream.index == self._video:
                length = self._frame
            stream.last = self._latest = moved
            stream.next = moved + length
        ticks = round(self._offsets[stream.stretch] / packet.time_base)
        if ticks and packet.dts is not None:
            packet.dts += ticks
        if ticks and packet.pts is not None:
            packet.pts += ticks
        return packet

    def _begin_stretch(self, stream: _Stream, time: Fraction) -> int:
        """Add a stretch in which a packet of this time comes when it is expected."""
        expected = self._latest if stream.next is None else stream.next
        assert expected is not None
        offset = expected - time
        wraps = round((offset - self._offsets[stream.stretch]) / _WRAP)
        wrapped = self._offsets[stream.stretch] + wraps * _WRAP
        if wraps and abs(offset - wrapped) < _FORTH:
            offset = wrapped
        else:
            self.jumps.append(expected)
        self._offsets.append(offset)
        return len(self._offsets) - 1


def _sparse(packet: av.Packet) -> bool:
    return packet.stream.type not in ("audio", "video")


def _time(packet: av.Packet) -> Fraction | None:
    """When a packet is decoded, in seconds of the file's clock. None where the file does not tell:
    when it is shown is no measure, since that goes back and forth."""
    return None if packet.dts is None else packet.dts * packet.time_base
