"""Videos for tests, made by PyAV, and everything about a video that can be seen from outside."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TURNED = (0, 65536, 0, -65536, 0, 0, 0, 0, 2**30)  # display matrix: a quarter turn clockwise
MIRRORED = (-65536, 0, 0, 0, 65536, 0, 0, 0, 2**30)
QUIET = {"x265-params": "log-level=error"}


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What to make: smooth moving pictures of muted colours, with a tone."""

    frames: int = 30
    height: int = 48
    width: int = 64
    rate: Fraction = Fraction(30000, 1001)
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    colour: tuple[int, int, int, int] = (1, 1, 1, 1)  # primaries, transfer, matrix, range
    audio: Sequence[str] = ("aac",)
    pts: Sequence[int] | None = None  # in units of 1 / the rate's numerator
    matrix: Sequence[int] | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    offset: float = 0  # seconds that all times are moved by
    still: int = 1  # frames that are equal, one after the other

    def planes(self, number: int) -> list[np.ndarray]:
        """(rows, columns) of Y', Cb and Cr of a frame, in levels of its pixel format."""
        kind = av.VideoFormat(self.pixel_format)
        phase = number // self.still * 0.4
        levels = 2 ** (kind.components[0].bits - 8)
        planes = []
        for plane in range(3):
            height = kind.chroma_height(self.height) if plane else self.height
            width = kind.chroma_width(self.width) if plane else self.width
            rows, columns = np.mgrid[:height, :width] * (16 * self.width / 64 / width)
            wave = np.sin(columns / 3 + phase) * np.cos(rows / 4 - plane)
            planes.append(np.rint(levels * (128 + (20 if plane else 70) * wave)).astype(int))
        return planes


def write_clip(path: Path, clip: Clip) -> None:
    """Make a video file of the format that the name stands for."""
    tick = Fraction(1, clip.rate.numerator)
    with av.open(str(path), "w", options={"output_ts_offset": str(clip.offset)}) as container:
        container.metadata.update(clip.metadata)
        video = container.add_stream(
            clip.codec, rate=clip.rate, options=QUIET if clip.codec == "libx265" else {}
        )
        video.height, video.width, video.pix_fmt = clip.height, clip.width, clip.pixel_format
        context = video.codec_context
        context.time_base = tick
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = (
            clip.colour
        )
        tones = [
            container.add_stream(codec, rate=48000, layout="stereo", bit_rate=128_000)
            for codec in clip.audio
        ]
        for tone in tones:  # the format interleaves
            container.mux(packet for packet in _tone(tone, float(clip.frames / clip.rate)))
        for number in range(clip.frames):
            frame = av.VideoFrame(clip.width, clip.height, clip.pixel_format)
            for plane, values in zip(frame.planes, clip.planes(number), strict=True):
                dtype = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
                np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : values.shape[1]] = values
            frame.pts = clip.pts[number] if clip.pts else number * clip.rate.denominator
            frame.time_base = tick
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    if clip.matrix is not None:
        data = bytearray(path.read_bytes())
        at = data.index(b"tkhd") + 44
        data[at : at + 36] = struct.pack(">9i", *clip.matrix)
        path.write_bytes(data)


def _tone(stream, seconds: float):
    samples = (
        np.sin(np.arange(int(48000 * seconds)) / np.array([[17], [23]])).astype(np.float32) / 2
    )
    for start in range(0, samples.shape[1], 1024):
        part = np.ascontiguousarray(samples[:, start : start + 1024])
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        if stream.codec_context.name != "aac":
            frame = av.AudioResampler(
                format=stream.codec_context.format, layout="stereo", rate=48000
            ).resample(frame)[0]
        yield from stream.encode(frame)
    yield from stream.encode(None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """What a video file holds."""

    times: list[Fraction]  # of frames, in seconds
    end: float  # of the file, in seconds
    luma: list[np.ndarray]  # (H, W) of frames, as stored, in levels of 8 bits
    size: tuple[int, int]  # height and width as stored
    codec: str
    pixel_format: str
    colour: tuple[int, int, int, int]
    rotation: int
    matrix: bytes | None
    tag: str
    rate: Fraction
    metadata: dict[str, str]
    packets: list[
        list[tuple[Fraction, bytes]]
    ]  # of each audio stream: time in seconds, and content
    languages: list[str | None]


def probe(path: Path) -> Probe:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frames = list(_decoded(container))
        context = video.codec_context
        colour = context.color_primaries, context.color_trc, context.colorspace, context.color_range
        side = frames[0].side_data.get("DISPLAYMATRIX")
        facts = {
            "times": [frame.pts * frame.time_base for frame in frames],
            "end": container.duration / av.time_base,
            "luma": [_luma(frame) for frame in frames],
            "size": (frames[0].height, frames[0].width),
            "codec": context.codec.canonical_name,
            "pixel_format": frames[0].format.name.replace(
                "yuvj", "yuv"
            ),  # which says what the range says
            "colour": tuple(map(int, colour)),
            "rotation": frames[0].rotation,
            "matrix": side and bytes(side),
            "tag": context.codec_tag,
            "rate": video.average_rate,
            "metadata": dict(container.metadata),
        }
    with av.open(str(path)) as container:
        packets = {stream.index: [] for stream in container.streams.audio}
        for packet in container.demux(*container.streams.audio) if packets else ():
            if packet.dts is not None:
                packets[packet.stream.index].append((packet.pts * packet.time_base, bytes(packet)))
        languages = [stream.metadata.get("language") for stream in container.streams.audio]
    return Probe(packets=list(packets.values()), languages=languages, **facts)


def _decoded(container) -> Iterator[av.VideoFrame]:
    """As players do: what cannot be decoded, at the end of a file that is cut off, is passed
    over."""
    for packet in container.demux(video=0):
        with contextlib.suppress(av.FFmpegError):
            yield from packet.decode()


def _luma(frame: av.VideoFrame) -> np.ndarray:
    bits = frame.format.components[0].bits
    plane = frame.planes[0]
    values = np.frombuffer(plane, np.uint8 if bits == 8 else np.uint16).reshape(plane.height, -1)
    return values[:, : frame.width] / 2 ** (bits - 8)
