"""Kinds of pictures that are read and not written: they become PNG before they are read.

AVIF and HEIC come through libvips, with ICC profile, EXIF and XMP; what has no such things, through
FFmpeg (PyAV), of which only RGB and grey are taken, so that no colour is converted.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import zlib
from typing import Any

import numpy as np
import pyvips
from pyvips.enums import ForeignKeep

from .container import png_with
from .exif import without_orientation
from .formats import EXIF_PREFIX, VIPS_ERRORS, PictureError, reason_of
from .text import XMP_KEYWORD
from .tiff import ExifError

OTHER_SUFFIXES = (
    *(".avif", ".avifs", ".heic", ".heif", ".heics", ".heifs", ".hif"),
    *(".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".pam", ".qoi"),
    *(".jp2", ".j2k", ".jpx", ".jpf", ".tga", ".dds", ".sgi", ".pcx", ".ras", ".sun"),
)
"""Their names; the content tells which one it is."""

JPEG_SUFFIXES = (".mpo", ".jps", ".jif", ".jfi", ".pjpeg", ".pjp")
"""Names of JPEG files by which none is written: of several pictures, for one eye each, and old ones."""

_HEIF = re.compile(rb".{4}ftyp(avif|avis|mif1|msf1|heic|heix|heim|heis)", re.DOTALL)
_DEPTHS = ("bits-per-sample", "heif-bitdepth")  # of libvips 8.17, and before
_SEQUENCES = (b"avis", b"msf1", b"hevc", b"hevx")  # brands
_BESIDE = {
    b"hdrgainmap": "a gain map",
    b"tmap": "a gain map",
    b"auxid:2": "a depth map",
    b"portraiteffectsmatte": "a portrait matte",
}
_V3, _V5 = 56, 124  # bytes of BMP's headers
_DECODERS = {  # of FFmpeg, by first bytes
    b"\0\0\0\x0cjP  ": "jpeg2000",
    b"\xff\x4f\xff\x51": "jpeg2000",
    b"DDS ": "dds",
    b"P7\n": "pam",
    b"\x01\xda": "sgi",
    b"\x59\xa6\x6a\x95": "sunrast",
    **{b"\x0a" + bytes([version, 1]): "pcx" for version in (0, 2, 3, 4, 5)},
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
    name = next((name for start, name in _DECODERS.items() if data.startswith(start)), None)
    if name or _is_targa(data):
        return _decoded(name or "targa", data, max_pixels)
    return None


def _through_libvips(data: bytes, max_pixels: int) -> bytes:
    try:
        image = pyvips.Image.heifload_buffer(data, access="sequential", fail_on="error")
        _check(image.width, image.height, max_pixels)
        beside = [*_kept(image), *_stated(data)]
        image = _stretched(image)
        # libvips would add a resolution and EXIF that nobody stated
        return png_with(image.pngsave_buffer(compression=1, keep=ForeignKeep.NONE), beside)
    except VIPS_ERRORS as error:
        raise PictureError(
            f"this AVIF or HEIC picture cannot be decoded{reason_of(error)}; convert it to PNG, or use a libvips "
            "that has HEVC (that of pyvips-binary has AV1 alone)"
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


def _kept(image: pyvips.Image) -> list[tuple[bytes, bytes]]:
    """ICC profile, EXIF and XMP as chunks. The picture is upright, whatever EXIF says."""
    profile, exif, xmp = (
        image.get(name) if image.get_typeof(name) else b""
        for name in ("icc-profile-data", "exif-data", "xmp-data")
    )
    chunks = [(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))] if profile else []
    if exif:
        exif = exif.removeprefix(EXIF_PREFIX)
        with contextlib.suppress(ExifError):  # which is said when the PNG is read
            exif = without_orientation(exif)
        chunks.append((b"eXIf", exif))
    return chunks + [(b"iTXt", XMP_KEYWORD + b"\0\0\0\0\0" + xmp)] * bool(xmp)


def _stated(heif: bytes) -> list[tuple[bytes, bytes]]:
    """What a picture says of its colours and the shape of its pixels in boxes, as chunks: of ISO/IEC
    14496-12 `colr` and `pasp`, of 23008-12 `mdcv`, `clli` and `irot`."""
    chunks = _code_points(heif)
    width, height = _numbers(heif, b"pasp", ">2I") or (1, 1)
    if width != height and width and height:
        turned = (_numbers(heif, b"irot", ">B") or (0,))[0] % 2
        sides = (width, height) if turned else (height, width)
        chunks.append((b"pHYs", struct.pack(">2IB", *sides, 0)))
    if levels := _numbers(heif, b"clli", ">2H"):  # in candelas per square metre
        chunks.append((b"cLLI", struct.pack(">2I", *(10_000 * level for level in levels))))
    if display := _numbers(heif, b"mdcv", ">8H2I"):  # green, blue, red, white
        order = (4, 5, 0, 1, 2, 3, 6, 7, 8, 9)
        chunks.append((b"mDCV", struct.pack(">8H2I", *(display[index] for index in order))))
    return chunks


def _numbers(heif: bytes, box: bytes, layout: str) -> tuple[int, ...] | None:
    """The numbers in the first box of this name that is in front of the pixels."""
    at = heif.find(box, 0, heif.find(b"mdat"))
    body = heif[at + 4 : at + 4 + struct.calcsize(layout)]
    return struct.unpack(layout, body) if at >= 0 and len(body) == struct.calcsize(layout) else None


def _code_points(heif: bytes) -> list[tuple[bytes, bytes]]:
    """The chunk `cICP` of a picture in other colours than sRGB or those of HD video, which programs
    show as sRGB, too. libheif has made it RGB of full range."""
    numbers = _numbers(heif, b"colrnclx", ">4x2H")
    if numbers is None:
        return []
    primaries, transfer = numbers
    if (primaries in (1, 2) and transfer in (1, 2, 6, 13, 14, 15)) or max(
        primaries, transfer
    ) > 255:
        return []
    return [(b"cICP", bytes([primaries, transfer, 0, 1]))]


def left_out(data: bytes) -> list[str]:
    """What such a file holds beside the one picture that is read, in words."""
    if data[:2] == b"BM" and int.from_bytes(data[28:30], "little") == 16:
        mask = data[66:70] if int.from_bytes(data[14:18], "little") >= _V3 else b""
        return ["its transparency (which is not read of 16 bits)"] * any(mask)
    if data.startswith(b"\0\0\0\x0cjP  ") and any(
        box in data for box in (b"uuid", b"xml ", b"res ")
    ):
        return ["metadata of JPEG 2000"]
    if not _HEIF.match(data):
        return []
    brands = data[8 : int.from_bytes(data[:4], "big")]
    names = ["its animation but for one picture"] * any(one in brands for one in _SEQUENCES)
    header = data[: data.find(b"mdat")]  # where the file's own words are
    names += [name for mark, name in _BESIDE.items() if mark in header]
    try:
        image = pyvips.Image.heifload_buffer(data)
        count = image.get("n-pages") if image.get_typeof("n-pages") else 1
    except VIPS_ERRORS as error:  # which is said when it is read
        reason_of(error)
        count = 1
    return names + ["further pictures in it"] * (count > 1 and not names)


def _is_targa(data: bytes) -> bool:
    """Truevision's files begin with no mark: length of a name, palette, kind, palette's place."""
    if len(data) < 18 or data[16] not in (8, 15, 16, 24, 32):
        return False
    return (data[1], data[2] & ~8) in ((0, 2), (0, 3), (1, 1)) and bool(
        any(data[12:14]) and any(data[14:16])
    )


def _decoded(name: str, data: bytes, max_pixels: int) -> bytes:
    """A picture that FFmpeg decodes and finds in no container."""
    import av
    from av.error import FFmpegError

    context = av.CodecContext.create(name, "r")
    context.options = {"max_pixels": str(max_pixels)}
    try:
        frames = context.decode(av.Packet(data))  # pyright: ignore[reportAttributeAccessIssue]
        frame = (frames or context.decode(None))[0]  # pyright: ignore[reportAttributeAccessIssue]
    except (FFmpegError, IndexError) as error:
        raise PictureError(
            "the picture is broken, cut off, of a rare kind, or larger than the limit of "
            f"{max_pixels / 1e6:g} million pixels"
        ) from error
    profile = data.find(b"colr\2") + 7  # of JPEG 2000, which ends where it says
    length = int.from_bytes(data[profile : profile + 4], "big")
    beside = []
    if name == "jpeg2000" and profile > 6 and length > 128:
        packed = zlib.compress(data[profile : profile + length])
        beside.append((b"iCCP", b"ICC profile\0\0" + packed))
    return png_with(_png_of(frame), beside)


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
    return png_with(_png_of(frame), _stated_by_bmp(data) if data[:2] == b"BM" else [])


def _png_of(frame: Any) -> bytes:
    """A decoded frame of RGB or grey."""
    kind = frame.format
    colours = [component for component in kind.components if not component.is_alpha]
    deep = max(component.bits for component in kind.components) > 8
    alpha = len(colours) < len(kind.components) or kind.has_palette
    if not (kind.is_rgb or kind.has_palette or len(colours) == 1):
        raise PictureError(f"its colours are {kind.name}; supported are RGB and grey: convert it")
    if len(colours) == 1 and not alpha:
        name = "gray16le" if deep else "gray"
    elif alpha:
        name = "rgba64le" if deep else "rgba"
    else:
        name = "rgb48le" if deep else "rgb24"
    pixels = frame.to_ndarray(format=name)
    if alpha and pixels.ndim == 3 and (pixels[..., -1] == np.iinfo(pixels.dtype).max).all():
        pixels = pixels[..., :3]  # a palette, or a fourth byte, that hides nothing
    kinds = ("grey16", "rgb16") if deep else ("b-w", "srgb")
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels))
    image = image.copy(interpretation=kinds[pixels.ndim == 3])
    return image.pngsave_buffer(compression=1, keep=ForeignKeep.NONE)


def _stated_by_bmp(bmp: bytes) -> list[tuple[bytes, bytes]]:
    """Resolution and ICC profile as chunks."""
    size, chunks = int.from_bytes(bmp[14:18], "little"), []
    if size < 40:
        return []
    x, y = struct.unpack_from("<2i", bmp, 38)
    if x > 0 and y > 0:
        chunks.append((b"pHYs", struct.pack(">2IB", x, y, 1)))
    if size == _V5 and bmp[70:74] == b"DEBM":  # "MBED": it is in the file
        start, length = struct.unpack_from("<2I", bmp, 126)
        profile = bmp[14 + start : 14 + start + length]
        chunks += [(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))]
    return chunks


def _check(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise PictureError(
            f"it claims {width}x{height} pixels; the limit is {max_pixels / 1e6:g} million (raise "
            "it with --max-megapixels where the file can be trusted)"
        )
