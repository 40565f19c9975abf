"""What a video to upscale has to offer (`VideoSource`), and videos made of pictures in memory."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Any, Protocol, TypeVar

import av
import numpy as np
import torch
from torch import Tensor

from .beside import Beside
from .colour import RGB, Colour, VideoError
from .hdr import NO_HDR, StaticHdr

_Self = TypeVar("_Self")
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_LAYOUTS = {1: "mono", 2: "stereo", 4: "4.0", 6: "5.1", 8: "7.1"}
_AUDIO_CHUNK = 65536


class Orientation:
    """How stored pictures are turned and mirrored for display.

    ``matrix`` is the 3x3 matrix of an MP4 track header as native 32-bit integers, or None. If it
    does more than quarter turns and mirroring, pictures stay as they are stored.
    """

    def __init__(self, matrix: bytes | None = None) -> None:
        self.matrix = matrix
        numbers = np.frombuffer(matrix, np.int32) / 65536 if matrix else np.eye(3).ravel()
        a, b, _, c, d = numbers[:5].round()
        self.transposed = bool(a == d == 0 and abs(b) == abs(c) == 1)
        across, down = (c, b) if self.transposed else (a, d)
        self._flips = [dim for dim, sign in ((0, down), (1, across)) if sign == -1]

    def upright(self, stored: Tensor) -> Tensor:
        """Turn a picture (H, W, C) from stored to displayed."""
        turned = stored.transpose(0, 1) if self.transposed else stored
        return turned.flip(self._flips) if self._flips else turned

    def stored(self, upright: Tensor) -> Tensor:
        """Turn a picture (H, W, C) from displayed to stored."""
        flipped = upright.flip(self._flips) if self._flips else upright
        return flipped.transpose(0, 1) if self.transposed else flipped

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width from stored to displayed, or back."""
        return (width, height) if self.transposed else (height, width)


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceFrame:
    """One frame; ``pts`` and ``duration`` are in units of the source's ``time_base``.

    Frames of one source with equal ``samples`` are equal pictures; ``rgb()`` makes the picture from
    the samples: upright, (H, W, 3) float32 in [0, 1].
    """

    pts: int
    duration: int
    samples: np.ndarray
    rgb: Callable[[], Tensor]


class VideoSource(Protocol):
    """A video to upscale; a context manager that can be iterated over once.

    size: height and width as displayed.
    bits: bits per sample.
    rate: mean frames per second.
    time_base: unit of timestamps in seconds, 1 / a whole number.
    frame_count: estimated number of frames.
    end: the pts at which the last frame ends; None if the file does not say.
    beside: what is copied.
    hdr: what is told of the screen and the brightness.
    lost: what its frames tell that no result keeps, in words.
    damage: what of it was found broken or missing, in words, when all was read.
    metadata, chapters: those of the file, as PyAV gives them.
    """

    size: tuple[int, int]
    bits: int
    rate: Fraction
    time_base: Fraction
    frame_count: int
    end: int | None
    colour: Colour
    orientation: Orientation
    pixel_aspect: Fraction
    beside: Beside
    hdr: StaticHdr
    lost: list[str]
    damage: list[str]
    metadata: dict[str, str]
    chapters: list[Any]

    def identity(self) -> str:
        """A text that differs for other content; empty if the content is not known."""
        ...

    def __iter__(self) -> Iterator[SourceFrame | av.Packet]:
        """Frames with growing pts, and packets of ``beside.played``, roughly in the order of time."""
        ...

    def packets(self) -> Iterator[av.Packet]:
        """The packets of ``beside.streams``, from the beginning."""
        ...

    def __enter__(self: _Self) -> _Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class PictureVideo:
    """The `VideoSource` of pictures in memory, which are not copied.

    Args:
        images: (B, H, W, C) floating point in [0, 1]: grey, RGB, or more channels, of which those
            beyond RGB are left out.
        rate: frames per second.
        audio: samples (channels, T) floating point in [-1, 1] and their rate; encoded as AAC. It is
            cut off where the pictures end.
        bits: per sample, that the result keeps.
        primaries, transfer: how the pictures' numbers stand for colours, as code points of H.273.
        alpha: (B, H, W) or (B, H, W, 1) in [0, 1], beside the pictures.

    A video has no transparency: it is left out, which ``lost`` tells, where a pixel is transparent.
    """

    orientation = Orientation()
    pixel_aspect = Fraction(1)
    hdr = NO_HDR

    def __init__(
        self,
        images: Tensor,
        rate: Fraction,
        audio: tuple[Tensor, int] | None = None,
        *,
        bits: int = 8,
        primaries: int = 1,
        transfer: int = 1,
        alpha: Tensor | None = None,
    ) -> None:
        if images.ndim != 4 or 0 in images.shape or images.shape[-1] == 2:
            raise VideoError(
                f"its pictures have the shape {tuple(images.shape)}; (B, H, W, 3) or (B, H, W, 1) was "
                "expected"
            )
        self._images = images
        self.size = images.shape[1], images.shape[2]
        self.frame_count = len(images)
        self.rate = Fraction(rate).limit_denominator(100_000)
        self.time_base = Fraction(1, self.rate.numerator)
        self.end = self.frame_count * self.rate.denominator
        self.bits = bits
        self.colour = Colour(matrix=RGB, primaries=primaries, transfer=transfer)
        transparency = [images[..., 3]] if images.shape[-1] > 3 else []
        transparency += [] if alpha is None else [alpha]
        seen_through = any(bool((frame < 1).any()) for one in transparency for frame in one)
        self.lost = ["alpha channel"] if seen_through else []
        self.damage: list[str] = []
        self.metadata: dict[str, str] = {}
        self.chapters: list[Any] = []
        self.beside = Beside()
        self._audio: Any = None
        if audio is not None and audio[0].shape[-1]:
            self._audio = av.open(_aac(*audio, seconds=self.frame_count / self.rate), "r")
            self.beside = Beside(streams=list(self._audio.streams.audio))

    def __enter__(self) -> PictureVideo:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._audio:
            self._audio.close()

    def __str__(self) -> str:
        return "the video of pictures"

    def identity(self) -> str:
        return ""

    def packets(self) -> Iterator[av.Packet]:
        if self._audio:
            self._audio.seek(0)
            yield from (packet for packet in self._audio.demux() if packet.dts is not None)

    def __iter__(self) -> Iterator[SourceFrame | av.Packet]:
        yield from self.packets()
        duration = self.rate.denominator
        for number, image in enumerate(self._images):
            picture = image[..., :3].to("cpu", torch.float32).expand(-1, -1, 3)
            yield SourceFrame(
                pts=number * duration,
                duration=duration,
                samples=picture.numpy(),
                rgb=lambda picture=picture: picture,
            )


def _aac(samples: Tensor, rate: int, *, seconds: Fraction) -> io.BytesIO:
    """Encode samples (channels, T) as AAC in an MP4 file."""
    layout = _LAYOUTS.get(len(samples))
    if layout is None:
        raise VideoError(
            f"its audio has {len(samples)} channels; {', '.join(map(str, _LAYOUTS))} are supported"
        )
    samples = samples[:, : math.ceil(rate * seconds)].to("cpu", torch.float32)
    file = io.BytesIO()
    encoded_rate = next((one for one in _AAC_RATES if one >= rate), _AAC_RATES[-1])
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=encoded_rate)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=encoded_rate, layout=layout)
        for start in range(0, samples.shape[1], _AUDIO_CHUNK):
            part = samples[:, start : start + _AUDIO_CHUNK].contiguous().numpy()
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate = rate
            frame.pts = start
            frame.time_base = Fraction(1, rate)
            for resampled in resampler.resample(frame):
                container.mux(stream.encode(resampled))
        for resampled in resampler.resample(None):
            container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))
    file.seek(0)
    return file
