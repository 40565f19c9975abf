"""Converts the samples of video frames to R'G'B' in [0, 1] and back, as ITU-T H.273 defines it.

libswscale (through PyAV's filters) only resamples the chroma. Its own matrices are off by up to
three of 255 levels, and `av.VideoFrame.reformat` ignores the range of the source in PyAV 14.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import av.filter
import numpy as np
import torch
from torch import Tensor

# MatrixCoefficients of H.273; 2 stands for unspecified primaries and transfer, too
RGB, BT709, UNSPECIFIED, SMPTE170M, BT2020 = (0, 1, 2, 6, 9)
LEFT = (0, 128)  # a siting of chroma: across and down, in 1/256 of a pixel
LIMITED, FULL = 1, 2  # FFmpeg's AVColorRange; 0 is unspecified, which stands for limited

_LUMA = {  # MatrixCoefficients -> Kr, Kb
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
_BAND_ROWS = 96  # rows that become integers at a time, so that no frame is copied as float


class VideoError(ValueError):
    """A video that cannot be read, written or continued.

    The message says why, mostly without the file's name, which callers add.
    """


@dataclass(frozen=True, kw_only=True)
class Colour:
    """How samples stand for colours: code points of H.273, and FFmpeg's number of the range."""

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    range: int = 0

    def luma(self, height: int, width: int) -> tuple[float, float]:
        """Kr and Kb for frames of this size. Raises VideoError for a matrix of another kind."""
        matrix = guessed_matrix(height, width) if self.matrix == UNSPECIFIED else self.matrix
        if matrix not in _LUMA:
            raise VideoError(
                f"its colour matrix (number {matrix} in H.273) is not supported; convert it to BT.709"
            )
        return _LUMA[matrix]

    def of_result(self, source: tuple[int, int], result: tuple[int, int]) -> Colour:
        """The colours of a Y'CbCr result, given both sizes (height, width): those of the source.

        If the source names no matrix, and players would guess another one at the result's size,
        the result names the one that they guess for the source. R'G'B' gets the matrix that goes
        with its primaries: BT.2020's, else BT.709's.
        """
        if self.matrix == RGB:
            matrix = BT2020 if self.primaries == BT2020 else BT709
            return replace(self, matrix=matrix, range=LIMITED)
        guess = guessed_matrix(*source)
        if self.matrix == UNSPECIFIED and guess != guessed_matrix(*result):
            return replace(self, matrix=guess)
        return self


def guessed_matrix(height: int, width: int) -> int:
    """The matrix that players (mpv and others) assume where a file names none.

    BT.709 for HD, BT.601 below.
    """
    return BT709 if width >= 1280 or height > 576 else SMPTE170M


class PixelFormatConverter:
    """Converts frames to another pixel format: resamples chroma, leaves levels unchanged.

    Chroma is left-sited, as in MPEG-2 and later, if ``siting`` does not say that it lies elsewhere
    in what is converted: across and down, in 1/256 of a pixel.
    """

    def __init__(self, to: str, siting: tuple[int, int] = LEFT) -> None:
        self.to, self._siting = to, siting
        self._built_for: tuple[str, int, int] | None = None

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        if frame.format.name == self.to:
            return frame
        wanted = frame.format.name, frame.width, frame.height
        if wanted != self._built_for:
            self._build(*wanted)
            self._built_for = wanted
        # otherwise libswscale would convert from the frame's colours to its own defaults
        frame.color_range, frame.colorspace = (0, UNSPECIFIED)
        self._source.push(frame)
        converted = self._sink.pull()
        assert isinstance(converted, av.VideoFrame)
        return converted

    def _build(self, name: str, width: int, height: int) -> None:
        options = ["flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"]
        for side, one, siting in (("in", name, self._siting), ("out", self.to, LEFT)):
            kind = av.VideoFormat(one)
            if kind.chroma_width(16) < 16:
                options.append(f"{side}_h_chr_pos={siting[0]}")
            if kind.chroma_height(16) < 16:
                options.append(f"{side}_v_chr_pos={siting[1]}")
        self._graph = graph = av.filter.Graph()  # kept, because it owns the filters
        self._source = graph.add_buffer(
            width=width, height=height, format=av.VideoFormat(name), time_base=Fraction(1, 1000)
        )
        scale = graph.add("scale", ":".join(options))
        to = graph.add("format", f"pix_fmts={self.to}")
        self._sink = graph.add("buffersink")
        self._source.link_to(scale)
        scale.link_to(to)
        to.link_to(self._sink)
        graph.configure()


class SampleReader:
    """Turns decoded frames into arrays of samples, and these into R'G'B'.

    ``colour``, the size (height, width) and the siting of chroma are the video's. Raises VideoError
    for colours that are not supported.
    """

    def __init__(
        self,
        kind: av.VideoFormat,
        colour: Colour,
        height: int,
        width: int,
        *,
        siting: tuple[int, int] = LEFT,
    ) -> None:
        self._bits = max(component.bits for component in kind.components)
        if self._bits > 16:
            raise VideoError(
                f"its samples are floating point ({kind.name}), which is not supported; convert it to 16 bits"
            )
        # libswscale 9 gives wrong colours where it is to leave out the plane of alpha
        self._by_planes = kind.name.startswith("gbrap")
        self._swapped = kind.name.endswith("be") != (sys.byteorder == "big")
        self._rgb = kind.is_rgb or kind.has_palette
        grey = len([component for component in kind.components if not component.is_alpha]) == 1
        if self._rgb:
            self._bits = next(bits for bits in (8, 9, 10, 12, 14, 16) if bits >= self._bits)
            self._convert = PixelFormatConverter(
                "gbrp" if self._bits == 8 else f"gbrp{self._bits}le"
            )
        else:
            # libswscale makes 254.0 of 255 where 8 bits with alpha become 16
            grey_kind = "gray" if self._bits == 8 else "gray16le"
            self._convert = PixelFormatConverter(grey_kind if grey else "yuv444p16le", siting)
            self._kr, self._kb = colour.luma(height, width)
        self._full = colour.range == FULL
        self._scale = 2.0 ** (16 - self._bits)  # what one level is in the 16-bit samples
        if grey:
            self._scale = 1.0 if self._bits == 8 else 65535 / (2**self._bits - 1)
        if not self._rgb:
            self._zero, self._matrix, self._offset = self._to_rgb()

    def samples(self, frame: av.VideoFrame) -> np.ndarray:
        """(3, H, W) integers, or (1, H, W) for grey, sharing no memory with the frame."""
        converted = frame if self._by_planes else self._convert(frame)
        planes = plane_arrays(converted)[:3]
        samples = np.stack([plane[:, : frame.width] for plane in planes])
        return (
            samples.byteswap() if self._by_planes and self._swapped and self._bits > 8 else samples
        )

    def rgb(self, samples: np.ndarray) -> Tensor:
        """`samples` as (H, W, 3) float32 in [0, 1], plane by plane in memory."""
        planes = torch.from_numpy(samples.astype(np.float32))
        if self._rgb:
            return planes[[2, 0, 1]].div_(2.0**self._bits - 1).permute(1, 2, 0)
        if len(planes) == 1:
            luma = (planes[0] - self._zero) * self._matrix[0, 0]
            return luma[..., None].expand(-1, -1, 3).clamp(0, 1)
        rgb = torch.addmm(self._offset[:, None], self._matrix.T, planes.flatten(1))
        return rgb.clamp_(0, 1).view(planes.shape).permute(1, 2, 0)

    def _to_rgb(self) -> tuple[float, Tensor, Tensor]:
        """From samples (Y', Cb, Cr) to R', G', B': black, a matrix with a column each, offsets."""
        levels = 2**self._bits
        top, swing = (0, levels - 1) if self._full else (levels // 16, levels * 219 // 256)
        chroma = levels - 1 if self._full else levels * 224 // 256
        kr, kb = self._kr, self._kb
        red, blue = 2 * (1 - kr), 2 * (1 - kb)
        green = 1 - kr - kb
        colours = torch.tensor(  # from Y' in [0, 1], Cb and Cr in [-0.5, 0.5]
            [[1, 1, 1], [0, -kb * blue / green, blue], [red, -kr * red / green, 0]],
            dtype=torch.float64,
        )
        zero = torch.tensor([top, levels // 2, levels // 2], dtype=torch.float64)
        range_ = torch.tensor([swing, chroma, chroma], dtype=torch.float64)
        matrix = colours / range_[:, None]
        return top * self._scale, (matrix / self._scale).float(), -(zero @ matrix).float()


class FrameMaker:
    """Turns R'G'B' pictures into Y'CbCr frames of a given pixel format, colour and size."""

    def __init__(self, pixel_format: str, colour: Colour, height: int, width: int) -> None:
        self._bits = av.VideoFormat(pixel_format).components[0].bits
        self._planar = "yuv444p" if self._bits == 8 else f"yuv444p{self._bits}le"
        self._convert = PixelFormatConverter(pixel_format)
        self._height, self._width = height, width
        self._range = colour.range
        kr, kb = colour.luma(height, width)
        luma = torch.tensor([kr, 1 - kr - kb, kb])
        self._matrix = torch.stack(  # rows Y', Cb, Cr from R', G', B'
            [
                luma,
                (torch.tensor([0.0, 0, 1]) - luma) / (2 - 2 * kb),
                (torch.tensor([1.0, 0, 0]) - luma) / (2 - 2 * kr),
            ]
        )
        levels = 2**self._bits
        full = colour.range == FULL
        swings = (levels - 1, levels - 1) if full else (levels * 219 // 256, levels * 224 // 256)
        self._matrix *= torch.tensor([swings[0], swings[1], swings[1]])[:, None]
        zero = torch.tensor([0 if full else levels // 16, levels // 2, levels // 2])
        self._offset = (zero + 0.5)[:, None]  # conversion to integers cuts off

    def __call__(self, rgb: Tensor) -> av.VideoFrame:
        """Make a frame of a picture (H, W, 3), floating point in [0, 1] on the CPU.

        It is quickest where the picture lies plane by plane in memory.
        If the picture is smaller than the frame, its last column and row are repeated.
        """
        frame = av.VideoFrame(self._width, self._height, self._planar)
        planes = plane_arrays(frame)
        height, width = rgb.shape[:2]
        # signed, because torch before 2.3 has no unsigned 16 bits; there are at most 12
        integers = np.uint8 if self._bits == 8 else np.int16
        samples = [torch.from_numpy(plane.view(integers)) for plane in planes]
        for top in range(0, height, _BAND_ROWS):
            band = rgb[top : top + _BAND_ROWS].float().permute(2, 0, 1).flatten(1)
            band = torch.addmm(self._offset, self._matrix, band)
            band = band.clamp_(0, 2**self._bits - 0.5).view(3, -1, width)
            for channel, plane in enumerate(samples):
                plane[top : top + band.shape[1], :width] = band[channel]
        for plane in planes:
            plane[:, width : self._width] = plane[:, width - 1 : width]
            plane[height:] = plane[height - 1]
        result = self._convert(frame)
        result.color_range = self._range
        return result


def plane_arrays(frame: av.VideoFrame) -> list[np.ndarray]:
    """The planes of a planar frame (rows, samples with padding), writable, sharing its memory."""
    dtype = np.uint8 if frame.format.components[0].bits <= 8 else np.uint16
    return [np.frombuffer(plane, dtype).reshape(plane.height, -1) for plane in frame.planes]  # type: ignore[arg-type]
