"""Kinds of pictures that are read and not written: they become PNG before they are read.

AVIF and HEIC come through libvips, with ICC profile, EXIF and XMP; what has no such things, through
FFmpeg (PyAV), of which only RGB and grey are taken, so that no colour is converted.
"""

from __future__ import annotations

import io
import re
import struct

import numpy as np
import pyvips

from .container import png_with
from .formats import PictureError, reason_of

OTHER_SUFFIXES = (".avif", ".heic", ".heif", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi")
"""Their names; the content tells which one it is."""

_HEIF = re.compile(rb".{4}ftyp(avif|avis|mif1|msf1|heic|heix|heim|heis)", re.DOTALL)
_DEPTHS = ("bits-per-sample", "heif-bitdepth")  # of libvips 8.17, and before
_SEQUENCES = (b"avis", b"msf1", b"hevc", b"hevx")  # brands
_BESIDE = {
    b"hdrgainmap": "a gain map",
    b"tmap": "a gain map",
    b"auxid:2": "a depth map",
    b"portraiteffectsmatte": "a portrait matte",
}
_THROUGH_FFMPEG = re.compile(rb"BM.{12}|P[1-6]\s|qoif", re.DOTALL)


def as_png(data: bytes, max_pixels: int) -> bytes | None:
    """A picture file of one of these kinds as PNG; None for all other content.

    Raises PictureError where it is broken, too large, or has colours that are not supported.
    """
    if _HEIF.match(data):
        return _through_libvips(data, max_pixels)
    if _THROUGH_FFMPEG.match(data):
        return _through_ffmpeg(data, max_pixels)
    return None


def _through_libvips(data: bytes, max_pixels: int) -> bytes:
    try:
        image = pyvips.Image.heifload_buffer(data, access="sequential", fail_on="error")
        _check(image.width, image.height, max_pixels)
        image = _stretched(image)
        profiled = bool(image.get_typeof("icc-profile-data"))
        png = image.pngsave_buffer(compression=1)
        return png if profiled else png_with(png, _stated_colour(data))
    except pyvips.Error as error:
        raise PictureError(
            f"this AVIF or HEIC picture cannot be decoded{reason_of(error)}; convert it to PNG"
        ) from error


def _stretched(image: pyvips.Image) -> pyvips.Image:
    """Codes of 10 and 12 bits in the whole range of 16: libvips puts them in the upper bits, where
    white is not the highest code."""
    bits = next((image.get(name) for name in _DEPTHS if image.get_typeof(name)), 16)
    if image.format != "ushort" or not 8 < bits < 16:
        return image
    factor = (2**16 - 1) / (2**bits - 1) / 2 ** (16 - bits)
    wide = image.linear(factor, 0).rint().cast("ushort")
    return wide.copy(interpretation=image.interpretation)


def _stated_colour(heif: bytes) -> list[tuple[bytes, bytes]]:
    """The chunk `cICP` of a picture in other colours than sRGB or those of HD video, which programs
    show as sRGB, too. libheif has made it RGB of full range. (ISO/IEC 14496-12, box `colr`.)"""
    at = heif.find(b"colrnclx")
    numbers = heif[at + 8 : at + 12]
    if at < 0 or len(numbers) < 4:
        return []
    primaries, transfer = struct.unpack(">2H", numbers)
    if (primaries in (1, 2) and transfer in (1, 2, 6, 13, 14, 15)) or max(
        primaries, transfer
    ) > 255:
        return []
    return [(b"cICP", bytes([primaries, transfer, 0, 1]))]


def left_out(data: bytes) -> list[str]:
    """What a HEIF file holds beside the one picture that is read, in words."""
    if not _HEIF.match(data):
        return []
    brands = data[8 : int.from_bytes(data[:4], "big")]
    names = ["its animation but for one picture"] * any(one in brands for one in _SEQUENCES)
    header = data[: data.find(b"mdat")]  # where the file's own words are
    return names + [name for mark, name in _BESIDE.items() if mark in header]


def _through_ffmpeg(data: bytes, max_pixels: int) -> bytes:
    import av  # slow, and seldom needed
    from av.error import FFmpegError

    try:
        with av.open(io.BytesIO(data)) as container:
            context = container.streams.video[0].codec_context
            _check(context.width, context.height, max_pixels)
            frame = next(container.decode(video=0))
    except (FFmpegError, StopIteration, IndexError) as error:
        raise PictureError("the picture is broken or cut off") from error
    kind = frame.format
    colours = [component for component in kind.components if not component.is_alpha]
    deep = max(component.bits for component in kind.components) > 8
    alpha = len(colours) < len(kind.components) or kind.has_palette
    if not (kind.is_rgb or kind.has_palette or len(colours) == 1):
        raise PictureError(f"its colours are {kind.name}; supported are RGB and grey: convert it")
    if len(colours) == 1 and not kind.has_palette:
        name = "gray16le" if deep else "gray"
    elif alpha:
        name = "rgba64le" if deep else "rgba"
    else:
        name = "rgb48le" if deep else "rgb24"
    pixels = frame.to_ndarray(format=name)
    if alpha and pixels.ndim == 3 and (pixels[..., -1] == np.iinfo(pixels.dtype).max).all():
        pixels = pixels[..., :3]  # a palette, or a fourth byte, that hides nothing
    return pyvips.Image.new_from_array(np.ascontiguousarray(pixels)).pngsave_buffer(compression=1)


def _check(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise PictureError(
            f"it claims {width}x{height} pixels; the limit is {max_pixels / 1e6:g} million (raise "
            "it with --max-megapixels where the file can be trusted)"
        )
