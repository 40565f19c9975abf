"""Reads and writes the picture files of the command line: PNG, JPEG, WebP and TIFF, through
libvips.

    file -> pixels (H, W, C) float32 in [0, 1], depth, metadata -> file

Pixels are the numbers in the file divided by 255 or 65535: no colour management, except that CMYK
becomes sRGB. ICC profile, EXIF, XMP, IPTC, resolution and PNG text go from the picture read to the
picture written. What a format cannot hold is given up with a logged warning.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from pyvips.enums import ForeignKeep, ForeignPngFilter

from .exif import ExifError, exif_of_result, exif_of_tiff, tiff_with_exif

logger = logging.getLogger(__name__)
pyvips.cache_set_max(0)  # a cached operation would keep the last pictures in memory

MAX_PIXELS = 200_000_000
"""Largest picture that is decoded if the caller does not say otherwise: 2.4 GB as float32 RGB."""
_PNG_START = b"\x89PNG\r\n\x1a\n"
_EXIF_PREFIX = b"Exif\0\0"  # of EXIF in JPEG, and of what libvips calls exif-data
_BANDS = {
    "b-w": (1, 2),
    "grey16": (1, 2),
    "srgb": (3, 4),
    "rgb16": (3, 4),
}  # without and with alpha
_BIG_TIFF_BYTES = 3 * 2**30  # a plain TIFF ends at 4 GiB
_BAND_SAMPLES = (
    2**22
)  # rows are turned into integers in bands of this size, to need no second copy as float


class PictureError(ValueError):
    """A picture file that cannot be read or written; the message says why, without the file's
    name."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """What one file format is called and can hold."""

    name: str
    suffixes: tuple[str, ...]
    pattern: bytes  # regular expression for the first bytes
    loader: str
    bits: int = 8
    alpha: bool = True
    grey: bool = True
    longest_side: int = 2**31 - 1


PNG = Format(
    name="PNG", suffixes=(".png",), pattern=rb"\x89PNG\r\n\x1a\n", loader="pngload_buffer", bits=16
)
JPEG = Format(
    name="JPEG",
    suffixes=(".jpg", ".jpeg", ".jpe", ".jfif"),
    pattern=rb"\xff\xd8\xff",
    loader="jpegload_buffer",
    alpha=False,
    longest_side=65_535,
)
WEBP = Format(
    name="WebP",
    suffixes=(".webp",),
    pattern=rb"RIFF.{4}WEBP",
    loader="webpload_buffer",
    grey=False,
    longest_side=16_383,
)
TIFF = Format(
    name="TIFF",
    suffixes=(".tif", ".tiff"),
    pattern=rb"II[*+]\x00|MM\x00[*+]",
    loader="tiffload_buffer",
    bits=16,
)
FORMATS = (PNG, JPEG, WEBP, TIFF)


@dataclass(frozen=True, kw_only=True, eq=False)
class Metadata:
    """Everything in a picture file that goes into the written file beside the pixels."""

    resolution: tuple[float, float] = (
        1.0,
        1.0,
    )  # pixels per millimetre, horizontally and vertically
    profile: bytes | None = None
    exif: bytes | None = None  # beginning with its TIFF header
    xmp: bytes | None = None
    iptc: bytes | None = None
    png_text: bytes = b""  # whole chunks


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A decoded picture.

    `pixels` is (H, W, C) float32 in [0, 1] with C = 1 (grey), 3 (RGB) or 4 (RGB and alpha). Where
    `grey` holds, the file is grey, and four channels stand for grey with alpha: the first three are
    equal when read, and averaged when written. `bits` per channel is 8 or 16.
    """

    pixels: np.ndarray
    bits: int
    grey: bool
    metadata: Metadata


def format_of_name(path: Path) -> Format | None:
    """The format that a file's name stands for; None for every other name."""
    suffix = path.suffix.lower()
    return next((entry for entry in FORMATS if suffix in entry.suffixes), None)


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture: the first page, upright (the EXIF orientation is applied and reset).

    The format is told from the content, not from the name. Raises OSError where the file cannot be
    opened and PictureError where it is no picture, is broken, or holds what is not supported.
    """
    data = path.read_bytes()
    if not data:
        raise PictureError("the file is empty")
    file_format = next(
        (entry for entry in FORMATS if re.match(entry.pattern, data, re.DOTALL)), None
    )
    if file_format is None:
        raise PictureError(
            "the content is neither PNG, JPEG, WebP nor TIFF; convert it to one of these first"
        )
    try:
        image = getattr(pyvips.Image, file_format.loader)(
            data, access="sequential", fail_on="error"
        )
        _check_size(image, max_pixels)
        image = _grey_or_rgb(image, path)
        metadata = _metadata_of(image, data, file_format, path)
        upright = image.copy_memory().autorot()
        pixels = upright.numpy()
    except pyvips.Error as error:
        raise PictureError(
            f"the {file_format.name} data is broken or cut off{_reason(error)}"
        ) from error

    pixels = pixels.reshape(upright.height, upright.width, upright.bands)
    bits = _depth(upright)
    grey = upright.bands <= 2
    if upright.bands == 2:
        pixels = pixels[:, :, [0, 0, 0, 1]]
    scaled = np.divide(pixels, np.float32(2**bits - 1), dtype=np.float32)
    return Picture(pixels=scaled, bits=bits, grey=grey, metadata=metadata)


def check_writable(path: Path, *, width: int, height: int) -> None:
    """Raise PictureError where the format that the name stands for cannot hold a picture of this
    size."""
    file_format = format_of_name(path)
    if file_format is None:
        raise PictureError(
            f"cannot write '{path.suffix}' files; give a name in .png, .jpg, .webp or .tif"
        )
    if max(width, height) > file_format.longest_side:
        raise PictureError(
            f"the result has {width}x{height} pixels and {file_format.name} ends at "
            f"{file_format.longest_side} a side; write PNG or TIFF"
        )


def write_picture(
    picture: Picture, path: Path, *, quality: int | None = None, overwrite: bool = False
) -> None:
    """Write a picture in the format that the name stands for, whole or not at all.

    The file is written beside its place under another name and then moved there. `quality` (1 to
    100) is for JPEG (95 where None) and WebP (lossless where None). Raises PictureError, also where
    the file exists and `overwrite` is off.
    """
    height, width, _ = picture.pixels.shape
    check_writable(path, width=width, height=height)
    file_format = format_of_name(path)
    assert file_format is not None
    bits = min(picture.bits, file_format.bits)
    if bits < picture.bits:
        logger.warning(
            "%s: %s holds 8 bits per channel; 16 bits were rounded to 8", path, file_format.name
        )
    if picture.pixels.shape[2] == 4 and not file_format.alpha:
        logger.warning(
            "%s: %s holds no transparency; the picture is laid on white", path, file_format.name
        )
    samples = _samples(picture, file_format, bits)
    _write_whole(path, _encoded(samples, picture.metadata, file_format, quality, path), overwrite)


# reading


def _check_size(image: pyvips.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise PictureError(
            f"it claims {image.width}x{image.height} pixels; the limit is {max_pixels / 1e6:g} million "
            "(raise it with --max-megapixels where the file can be trusted)"
        )


def _grey_or_rgb(image: pyvips.Image, path: Path) -> pyvips.Image:
    """The image with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha) bands of uchar or
    ushort."""
    if image.format not in ("uchar", "ushort"):
        raise PictureError(
            f"it holds {image.format} samples; supported are 8 and 16 bit unsigned: convert it"
        )
    if image.interpretation == "cmyk":
        logger.warning("%s: CMYK is converted to sRGB", path)
        image = image.icc_transform(
            "srgb",
            embedded=True,
            input_profile="cmyk",
            depth=_depth(image),
            intent="relative",
            black_point_compensation=True,
        )
    expected = _BANDS.get(str(image.interpretation))
    if expected is None:
        raise PictureError(
            f"it holds {image.interpretation} colours; supported are grey, RGB and CMYK: convert it"
        )
    if image.bands not in expected:
        raise PictureError(
            f"it holds {image.bands} channels where {expected[0]} or {expected[1]} are supported"
        )
    pages = _field(image, "n-pages")
    if pages is not None and pages > 1:
        logger.warning("%s: the first of its %d pages is upscaled", path, pages)
    return image


def _depth(image: pyvips.Image) -> int:
    return 8 if image.format == "uchar" else 16


def _metadata_of(image: pyvips.Image, data: bytes, file_format: Format, path: Path) -> Metadata:
    resolution = (image.xres, image.yres)
    exif = _field(image, "exif-data")
    if file_format is TIFF:
        try:
            exif = exif_of_tiff(data)
        except ExifError as error:
            logger.warning("%s: its EXIF is left out: %s", path, error)
    elif exif is not None:
        exif = exif.removeprefix(_EXIF_PREFIX)
        if file_format is WEBP:
            resolution = _resolution_of(exif)
    xmp = _field(image, "xmp-data")
    return Metadata(
        resolution=resolution,
        profile=_field(image, "icc-profile-data"),
        exif=exif,
        xmp=None if xmp is None else _upright_xmp(xmp),
        iptc=_field(image, "iptc-data"),
        png_text=_png_text(data) if file_format is PNG else b"",
    )


def _field(image: pyvips.Image, name: str) -> Any:
    return image.get(name) if image.get_typeof(name) else None


def _resolution_of(exif: bytes) -> tuple[float, float]:
    """The resolution that an EXIF block states, read by libvips from a PNG of one pixel."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"eXIf", exif), (b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b"")]
    image = pyvips.Image.pngload_buffer(
        _PNG_START + b"".join(_png_chunk(*chunk) for chunk in chunks)
    )
    return image.xres, image.yres


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png_text(png: bytes) -> bytes:
    """The text chunks of a PNG, without XMP, as they are; libvips would write all text as
    Latin-1."""
    found, at = b"", len(_PNG_START)
    while at + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        chunk = png[at : at + 12 + length]
        if kind in (b"tEXt", b"zTXt", b"iTXt") and not chunk[8:].startswith(b"XML:com.adobe.xmp\0"):
            found += chunk
        at += 12 + length
    return found


def _upright_xmp(xmp: bytes) -> bytes:
    """XMP repeats the EXIF orientation; a reader that follows it would turn the upright picture
    again."""
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>)\s*)[2-8]", rb"\g<1>1", xmp)


def _reason(error: pyvips.Error) -> str:
    """What libvips says, in one line; for broken PNG headers that is nothing."""
    lines = [line.strip() for line in str(error.detail).splitlines() if line.strip()]
    return f" ({'; '.join(dict.fromkeys(lines))})" if lines else ""


# writing


def _samples(picture: Picture, file_format: Format, bits: int) -> np.ndarray:
    """(H, W, C) integers with the channels that the file will have, halves rounded up."""
    height, width, channels = picture.pixels.shape
    grey_alpha = picture.grey and channels == 4
    flat = channels == 4 and not file_format.alpha
    written = (2 if grey_alpha else channels) - flat
    samples = np.empty((height, width, written), np.uint8 if bits == 8 else np.uint16)
    rows = max(1, _BAND_SAMPLES // (width * channels))
    for top in range(0, height, rows):
        band = np.clip(picture.pixels[top : top + rows], 0, 1)
        if grey_alpha:
            band = np.concatenate(
                [band[:, :, :3].mean(axis=2, keepdims=True), band[:, :, 3:]], axis=2
            )
        if flat:
            band = band[:, :, :-1] * band[:, :, -1:] + (1 - band[:, :, -1:])
        samples[top : top + rows] = band * (2**bits - 1) + 0.5
    return samples


def _encoded(
    pixels: np.ndarray, metadata: Metadata, file_format: Format, quality: int | None, path: Path
) -> bytes | bytearray:
    height, width, channels = pixels.shape
    deep = pixels.dtype == np.uint16
    image = pyvips.Image.new_from_memory(
        pixels.data, width, height, channels, "ushort" if deep else "uchar"
    )
    colours = ("grey16" if deep else "b-w") if channels <= 2 else ("rgb16" if deep else "srgb")
    image = image.copy(
        interpretation=colours, xres=metadata.resolution[0], yres=metadata.resolution[1]
    )
    keep = ForeignKeep.ICC | ForeignKeep.XMP | ForeignKeep.IPTC | ForeignKeep.OTHER
    exif = _exif_of_result(metadata, width, height, path)
    if exif is not None:
        keep |= ForeignKeep.EXIF  # where there is none, libvips would make one
    for name, blob in (
        ("icc-profile-data", metadata.profile),
        ("exif-data", None if exif is None else _EXIF_PREFIX + exif),
        ("xmp-data", metadata.xmp),
        ("iptc-data", metadata.iptc),
    ):
        if blob is not None:
            image.set_type(pyvips.GValue.blob_type, name, blob)  # pyright: ignore[reportArgumentType]
    try:
        if file_format is PNG:
            png = image.pngsave_buffer(filter=ForeignPngFilter.ALL, keep=keep)
            behind_header = len(_PNG_START) + 25
            return png[:behind_header] + metadata.png_text + png[behind_header:]
        if file_format is JPEG:
            return image.jpegsave_buffer(Q=quality or 95, optimize_coding=True, keep=keep)
        if file_format is WEBP:
            lossless = quality is None
            effort = 1 if lossless else 4  # more takes twice the time for 1 % of the size
            return image.webpsave_buffer(
                lossless=lossless, Q=quality or 75, effort=effort, keep=keep
            )
        big = pixels.nbytes > _BIG_TIFF_BYTES
        tiff = image.tiffsave_buffer(
            compression="deflate", predictor="horizontal", resunit="inch", bigtiff=big, keep=keep
        )
    except pyvips.Error as error:
        raise PictureError(f"cannot be encoded as {file_format.name}{_reason(error)}") from error
    if exif is None:
        return tiff
    try:
        return tiff_with_exif(tiff, exif)
    except ExifError as error:
        logger.warning("%s: the EXIF is left out: %s", path, error)
        return tiff


def _exif_of_result(metadata: Metadata, width: int, height: int, path: Path) -> bytes | None:
    if metadata.exif is None:
        return None
    try:
        return exif_of_result(metadata.exif, width=width, height=height)
    except ExifError as error:
        logger.warning("%s: the EXIF is left out: %s", path, error)
        return None


def _write_whole(path: Path, data: bytes | bytearray, overwrite: bool) -> None:
    beside = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("xb") as file:
            file.write(data)
        if path.exists() and not overwrite:
            raise PictureError(f"{path} exists and is not to be replaced")
        os.replace(beside, path)
    except OSError as error:
        raise PictureError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
