"""Writes videos: settings of encoders, independent segments of frames, and files of packets.

Frames are encoded in segments of `SEGMENT_FRAMES`, each by an encoder of its own that knows nothing
of the others. So a segment depends on its frames alone, and a run that continues after whole
segments gives the same frames as one that was never interrupted. docs/cli.md says what it costs.
"""

from __future__ import annotations

import io
import logging
import os
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import av.codec
import torch
from av.error import FFmpegError

from ..common.encoding import ENCODING
from .colour import Colour, VideoError, plane_arrays
from .hdr import NO_HDR, StaticHdr

logger = logging.getLogger(__name__)

SEGMENT_FRAMES = 48
UNDECODED = {"skip_frame": "all"}
"""Options to open a file whose packets are only copied: FFmpeg would decode a frame to look at it."""
_SAMPLE_FRAMES = 4  # more than any encoder here reorders: 2


class UnsupportedStreamError(VideoError):
    """A file format cannot hold a stream that is to be copied."""


@dataclass(frozen=True, kw_only=True)
class Codec:
    """An encoder of FFmpeg and its settings."""

    encoder: str
    crf: int  # the default: visually near lossless
    worst_crf: int
    options: dict[str, str] = field(default_factory=dict)
    least_side: int = 1


def _x264() -> dict[str, str]:
    """Options with which equal frames are encoded equally.

    By its AVX-512 code x264 encodes some sizes (104x72, 320x240) differently every time; AVX2 takes 3 %
    more of its time.
    """
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return {"rc-lookahead": "20"} | ({"x264-params": "asm=AVX2"} if wide else {})


_CODECS = {
    "h264": Codec(encoder="libx264", crf=18, worst_crf=51, options=_x264()),
    "hevc": Codec(
        encoder="libx265",
        crf=20,
        worst_crf=51,
        options={"x265-params": "log-level=error"},
        least_side=64,  # it writes beyond its memory for pictures with sides below about 50 pixels
    ),
    "av1": Codec(encoder="libsvtav1", crf=25, worst_crf=63, options={"preset": "6"}),
    "vp9": Codec(
        encoder="libvpx-vp9", crf=24, worst_crf=63, options={"row-mt": "1", "cpu-used": "3"}
    ),
}
os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder: errors only


@dataclass(frozen=True, kw_only=True)
class Container:
    """A file format and what it may hold; ``options`` are those of FFmpeg's muxer."""

    name: str
    codecs: tuple[str, ...] = ("h264", "hevc", "av1", "vp9")
    subtitles: tuple[str, ...] = ("mov_text",)
    text: str = "mov_text"  # what other subtitles of text become
    options: dict[str, str] = field(default_factory=dict)
    sound: str = ""  # the encoder of sound that it cannot hold otherwise; without: refused


_FINAL = {"movflags": "faststart+use_metadata_tags"}
_FRAGMENTS = {
    "movflags": "frag_keyframe+delay_moov+default_base_moof+use_metadata_tags",
    "frag_duration": "500000",  # microseconds
    "flush_packets": "1",
}
_MP4 = Container(name="mp4", options=_FINAL)
CONTAINERS = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": Container(name="mov", codecs=("h264", "hevc"), options=_FINAL),
    ".mkv": Container(
        name="matroska",
        subtitles=("subrip", "ass", "ssa", "hdmv_pgs_subtitle", "dvd_subtitle", "webvtt"),
        text="subrip",
        sound="flac",
    ),
    ".webm": Container(
        name="webm",
        codecs=("av1", "vp9"),
        subtitles=("webvtt",),
        text="webvtt",
        sound="libopus",
    ),
}
"""File formats by the suffix of a file's name."""
GROWING = Container(name="mp4", options=_FRAGMENTS)
"""MP4 in fragments of half a second, so that the file can be played at any time, also after the
program was killed."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How the result is encoded; ``auto`` and None leave it to `resolved`.

    preset: the encoder's own name for how much time it takes ("ultrafast" of x264 and x265, "12" of
        SVT-AV1); None: its default. VP9 has none.
    """

    codec: str = "auto"
    crf: int | None = None
    pixel_format: str = "auto"
    preset: str | None = None

    def resolved(self, bits: int, suffix: str) -> Encoding:
        """The encoding for a source of ``bits`` per sample and a file with this suffix.

        ``auto`` is H.264 in 8 bit, 4:2:0, which plays everywhere, and HEVC in 10 bit for sources of
        more bits, if the file format holds them. Raises VideoError for what does not go together.
        """
        container = CONTAINERS.get(suffix.lower())
        if container is None:
            raise VideoError(
                f"cannot write '{suffix}' videos; give a name in {', '.join(CONTAINERS)}"
            )
        try:
            for option in ENCODING:
                option.check(getattr(self, option.name))
        except ValueError as error:
            raise VideoError(str(error)) from error
        deep = bits > 8 if self.pixel_format == "auto" else self.pixel_format.endswith("10le")
        name = self.codec
        if name == "auto":
            name = next(
                one
                for one in (("hevc", "av1") if deep else ("h264", "vp9"))
                if one in container.codecs
            )
        if name not in container.codecs:
            raise VideoError(f"{suffix} files hold {', '.join(container.codecs)}, not {name}")
        codec = _CODECS[name]
        try:
            formats = {one.name for one in av.codec.Codec(codec.encoder, "w").video_formats or ()}
        except av.codec.codec.UnknownCodecError as error:
            raise VideoError(
                f"this build of FFmpeg has no {codec.encoder}; choose another codec"
            ) from error
        chosen = self.pixel_format
        if chosen == "auto":
            chosen = "yuv420p10le" if deep and "yuv420p10le" in formats else "yuv420p"
        if chosen not in formats:
            known = next(option.choices for option in ENCODING if option.name == "pixel_format")
            offered = ", ".join(one for one in known if one in formats)
            raise VideoError(f"{codec.encoder} does not encode {chosen}; it encodes {offered}")
        if self.crf is not None and not 0 <= self.crf <= codec.worst_crf:
            raise VideoError(f"crf is {self.crf}; {name} takes 0 (best) to {codec.worst_crf}")
        return Encoding(
            codec=name,
            crf=codec.crf if self.crf is None else self.crf,
            pixel_format=chosen,
            preset=self.preset,
        )

    def keeps(self, hdr: StaticHdr) -> bool:
        """Whether the encoder writes what is told of the screen and the brightness."""
        return bool(hdr.options(_CODECS[self.codec].encoder))

    def keeps_aspect(self, suffix: str) -> bool:
        """Whether a file tells the shape of pixels: MP4 and MOV do, and elsewhere the codec may."""
        isom = CONTAINERS[suffix.lower()].name in ("mp4", "mov")
        return isom or self.codec in ("h264", "hevc")


def bits_of(pixel_format: str) -> int:
    """Bits of a sample."""
    return av.VideoFormat(pixel_format).components[0].bits


def encodable(height: int, width: int, pixel_format: str) -> tuple[int, int]:
    """The smallest size (height, width), from this one up, that a pixel format can hold.

    A side along which chroma is halved has to be even.
    """
    kind = av.VideoFormat(pixel_format)
    down, across = (
        2 if halved(16) == 8 else 1 for halved in (kind.chroma_height, kind.chroma_width)
    )
    return -(-height // down) * down, -(-width // across) * across


class SegmentEncoder:
    """Encodes frames to independent segments.

    ``size`` is (height, width) as stored, and encodable. Some dark frames are encoded first:
    ``sample`` is an MP4 file of them, and ``delay`` the number of frames by which decoding is ahead
    of display. Raises VideoError if the encoder refuses its settings.
    """

    def __init__(
        self,
        encoding: Encoding,
        size: tuple[int, int],
        rate: Fraction,
        colour: Colour,
        pixel_aspect: Fraction,
        hdr: StaticHdr = NO_HDR,
    ) -> None:
        self._codec, self._pixel_format = _CODECS[encoding.codec], encoding.pixel_format
        self._options = {"crf": str(encoding.crf), **self._codec.options}
        for name, parameters in hdr.options(self._codec.encoder).items():
            others = [self._options[name]] if name in self._options else []
            self._options[name] = ":".join([*others, parameters])
        if encoding.preset is not None:
            self._options.pop("rc-lookahead", None)  # the preset's own
            self._options["preset"] = encoding.preset
        self._size, self._rate, self._colour, self._aspect = (
            size,
            rate.limit_denominator(1001),
            colour,
            pixel_aspect,
        )
        self.frames = 0
        """Frames in the segment so far."""
        self.delay: int | None = None  # measured from the sample; until then not known
        if min(size) < self._codec.least_side:
            raise VideoError(
                f"{self._codec.encoder} needs {self._codec.least_side} pixels a side, and the result has "
                f"{size[1]}x{size[0]}; choose the codec h264"
            )
        try:
            dark = av.VideoFrame(size[1], size[0], encoding.pixel_format)
            for plane in plane_arrays(dark):
                plane[:] = 0
            for _ in range(_SAMPLE_FRAMES):
                self.add(dark)
            self.sample = self.close()
            self.delay = -min(decoded for _, _, decoded in self.packets(self.sample))
        except FFmpegError as error:
            what = f"{size[1]}x{size[0]} as {encoding.pixel_format} with crf {encoding.crf}"
            raise VideoError(f"{self._codec.encoder} refuses {what} ({error.strerror})") from error

    def add(self, frame: av.VideoFrame) -> None:
        """Encode one more frame."""
        if not self.frames:
            self._open()
        frame.pts, frame.time_base = self.frames, 1 / self._rate
        self.frames += 1
        self._mux(self._stream.encode(frame))

    def finish(self) -> list[tuple[av.Packet, int, int]]:
        """The packets of the segment in decoding order; the next frame begins a new one.

        With each packet come two numbers: that of the frame that it shows, and that of the frame at
        whose time it is decoded. The latter lags by ``delay``, so it is negative at first.
        """
        return self.packets(self.close()) if self.frames else []

    def packets(self, segment: bytes) -> list[tuple[av.Packet, int, int]]:
        """The packets of a segment's MP4 file, as `finish` gives them."""
        with av.open(io.BytesIO(segment), options=UNDECODED) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            ticks = 1 / (stream.time_base * self._rate)  # per frame
            packets = [packet for packet in container.demux(stream) if packet.dts is not None]
            return [
                (packet, round(packet.pts / ticks), round(packet.dts / ticks)) for packet in packets
            ]

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            if self.delay is not None:
                # In segments that are shorter than its delay, x265 reads times from memory that
                # was never written.
                packet.dts = self._written - self.delay
            self._written += 1
            self._container.mux_one(packet)

    def _open(self) -> None:
        self._written = 0  # packets
        self._file = io.BytesIO()
        # in whole frames, or a few of thousands per second, as some files claim to have, are nothing
        timescale = {"movie_timescale": str(self._rate.numerator)}
        self._container = av.open(self._file, "w", format="mp4", options=timescale)
        self._stream: Any = self._container.add_stream(
            self._codec.encoder, rate=self._rate, options=self._options
        )
        context = self._stream.codec_context
        context.height, context.width = self._size
        context.pix_fmt = self._pixel_format
        context.time_base = 1 / self._rate
        context.sample_aspect_ratio = self._aspect
        context.color_primaries, context.color_trc = self._colour.primaries, self._colour.transfer
        context.colorspace, context.color_range = self._colour.matrix, self._colour.range
        context.thread_type = "AUTO"  # PyAV's default, threads for slices only, costs quality

    def close(self) -> bytes:
        """The segment as an MP4 file; the next frame begins a new one."""
        self._mux(self._stream.encode(None))
        self._container.close()
        self.frames = 0
        return self._file.getvalue()
