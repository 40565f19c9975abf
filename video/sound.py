"""Sound that a file format cannot hold, converted: to FLAC without loss, to Opus for WebM."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

_SHORT = ("u8", "u8p", "s16", "s16p")  # formats of samples that 16 bits hold
_GAP = Fraction(1, 10)  # seconds of missing sound that become silence
_TYPES = {"s16": np.int16, "s32": np.int32, "flt": np.float32}
NAMES = {"flac": "FLAC", "libopus": "Opus, with loss"}
"""What FFmpeg's encoders make, in words."""
_OPUS_RATE, _OPUS_BITS = 48000, 64_000  # samples and bits a second, the latter for each channel
# of Opus (RFC 7845, 5.1.1.2), by the number of channels
_OPUS_LAYOUTS = (None, "mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")


class SoundConverter:
    """Turns the packets of one stream of sound into packets of FLAC or Opus.

    FLAC gets the samples that the decoder gives, in 16 bits if it gives no more, else in 24.

    Args:
        container: that the new stream is added to.
        template: the stream whose packets come.
        encoder: one of `NAMES`.
    """

    def __init__(self, container: Any, template: Any, encoder: str) -> None:
        context = template.codec_context
        kind = "s16" if context.format.name in _SHORT else "s32"
        self._rate, self._layout = context.rate, context.layout.name
        channels = context.layout.nb_channels
        if encoder == "libopus":
            kind = kind.replace("s32", "flt")
            self._rate, self._layout = _OPUS_RATE, _OPUS_LAYOUTS[min(channels, 8)]
        self._kind = kind
        self._resampler = av.AudioResampler(format=kind, layout=self._layout, rate=self._rate)
        self.stream = container.add_stream(encoder, rate=self._rate, layout=self._layout)
        self.stream.format = kind
        if encoder == "libopus":
            self.stream.bit_rate = _OPUS_BITS * max(channels, 2)
        self._from: Any = None
        self._begun = False
        self.broken = 0
        """Packets that could not be decoded; silence stands for them."""
        self._read = 0  # samples, counted from time 0 on

    def packets(self, packet: av.Packet | None) -> Iterator[av.Packet]:
        """Those that a packet gives, or that are left at the end."""
        if packet is not None:
            self._from = packet.stream
        for frame in self._decoded(packet):
            for resampled in self._resampler.resample(frame):
                yield from self._encoded(resampled)
        if packet is None and self._begun:
            for resampled in self._resampler.resample(None):
                yield from self._encoded(resampled)
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
            self._begun, self._read = True, begin
        if begin - self._read > _GAP * self._rate:
            yield from self._timed(self.stream.encode(self._silence(begin - self._read)))
        frame.pts, frame.time_base = self._read, Fraction(1, self._rate)
        self._read += frame.samples
        yield from self._timed(self.stream.encode(frame))

    def _silence(self, samples: int) -> av.AudioFrame:
        channels = len(av.AudioLayout(self._layout).channels)
        silence: Any = np.zeros((1, channels * samples), _TYPES[self._kind])
        frame = av.AudioFrame.from_ndarray(silence, format=self._kind, layout=self._layout)
        frame.sample_rate, frame.pts = self._rate, self._read
        frame.time_base = Fraction(1, self._rate)
        self._read += samples
        return frame

    def _timed(self, packets: list[Any]) -> Iterator[av.Packet]:
        """Packets that hold something; the encoder tells their times by the number of samples."""
        for packet in packets:
            if packet.size:
                packet.dts = packet.pts
                yield packet
