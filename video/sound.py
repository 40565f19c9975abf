"""Sound that a file format cannot hold, converted without loss."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

_SHORT = ("u8", "u8p", "s16", "s16p")  # formats of samples that 16 bits hold
_GAP = Fraction(1, 10)  # seconds of missing sound that become silence


class SoundConverter:
    """Turns the packets of one stream of sound into packets of FLAC.

    The samples are those that the decoder gives, in 16 bits if it gives no more, else in 24.

    Args:
        container: that the new stream is added to.
        template: the stream whose packets come.
    """

    def __init__(self, container: Any, template: Any) -> None:
        context = template.codec_context
        kind = "s16" if context.format.name in _SHORT else "s32"
        self._rate, self._layout, self._kind = context.rate, context.layout.name, kind
        self._resampler = av.AudioResampler(format=kind, layout=self._layout, rate=self._rate)
        self.stream = container.add_stream("flac", rate=self._rate, layout=self._layout)
        self.stream.format = kind
        self._from: Any = None
        self._begun = False
        self.broken = 0
        """Packets that could not be decoded; silence stands for them."""
        self._read = self._written = 0  # samples, counted from time 0 on

    def packets(self, packet: av.Packet | None) -> Iterator[av.Packet]:
        """Those of FLAC that a packet gives, or that are left at the end."""
        if packet is not None:
            self._from = packet.stream
        for frame in self._decoded(packet):
            for resampled in self._resampler.resample(frame):
                yield from self._encoded(resampled)
        if packet is None and self._begun:
            yield from self._timed(self.stream.encode(None))

    def _decoded(self, packet: av.Packet | None) -> list[Any]:
        try:
            return self._from.decode(packet) if self._from else []
        except FFmpegError:
            self.broken += 1
            return []

    def _encoded(self, frame: Any) -> Iterator[av.Packet]:
        begin = self._read if frame.pts is None else frame.pts * frame.time_base * self._rate
        begin = round(begin)
        if not self._begun:
            self._begun, self._read, self._written = True, begin, begin
        if begin - self._read > _GAP * self._rate:
            yield from self._timed(self.stream.encode(self._silence(begin - self._read)))
        frame.pts, frame.time_base = self._read, Fraction(1, self._rate)
        self._read += frame.samples
        yield from self._timed(self.stream.encode(frame))

    def _silence(self, samples: int) -> av.AudioFrame:
        channels = len(av.AudioLayout(self._layout).channels)
        dtype = np.int16 if self._kind == "s16" else np.int32
        silence: Any = np.zeros((1, channels * samples), dtype)
        frame = av.AudioFrame.from_ndarray(silence, format=self._kind, layout=self._layout)
        frame.sample_rate, frame.pts = self._rate, self._read
        frame.time_base = Fraction(1, self._rate)
        self._read += samples
        return frame

    def _timed(self, packets: list[Any]) -> Iterator[av.Packet]:
        """Packets that hold something, with times that follow from the number of samples."""
        for packet in packets:
            if packet.size:
                packet.pts = packet.dts = self._written
                packet.time_base = Fraction(1, self._rate)
                self._written += packet.duration
                yield packet
