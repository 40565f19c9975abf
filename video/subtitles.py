"""Subtitles of text, written as the codec that a file format holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
from av.error import FFmpegError
from av.subtitles.codeccontext import SubtitleCodecContext

TEXTS = ("subrip", "text", "ass", "ssa", "webvtt", "mov_text")
"""What can be converted from and to one another: FFmpeg reads each of them as ASS."""
CAN_CONVERT = hasattr(SubtitleCodecContext, "encode_subtitle")  # since PyAV 16.1


class SubtitleConverter:
    """Turns the packets of one stream of subtitles into those of another codec, at the same times.

    Bold, italic and the like are kept where the codec has them, places on the screen are not.

    Args:
        container: that the new stream is added to.
        template: the stream whose packets come.
        codec: what they become, one of `TEXTS`.
    """

    def __init__(self, container: Any, template: Any, codec: str) -> None:
        template.codec_context.open(strict=False)  # which makes the header: the styles as ASS
        self.stream = container.add_stream(codec)
        self._encoder: Any = self.stream.codec_context
        self._encoder.subtitle_header = template.codec_context.subtitle_header
        self._encoder.time_base = template.time_base
        self.broken = 0
        """Packets that could not be read, and are left out."""

    def packets(self, packet: av.Packet | None) -> Iterator[av.Packet]:
        """What a packet becomes: one, or none where it holds no text. None: the end."""
        if packet is None or not packet.size or not packet.duration:
            return
        decoder: Any = packet.stream.codec_context
        try:
            text = decoder.decode2(packet)
            if text is None or not len(text):
                return
            encoded = self._encoder.encode_subtitle(text)
        except FFmpegError:
            self.broken += 1
            return
        encoded.pts = encoded.dts = packet.pts
        encoded.duration, encoded.time_base = packet.duration, packet.time_base
        encoded.stream = self.stream
        yield encoded
