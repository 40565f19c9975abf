"""Reads the picture files of the command line: PNG, JPEG, WebP and TIFF, through libvips.

Pixels are the numbers in the file divided by 255 or 65535: no colour management, except that CMYK
becomes sRGB. ICC profile, EXIF, XMP, IPTC, resolution and PNG text are kept beside them.
"""

from __future__ import annotations

import logging
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyvips

from .exif import ExifError, exif_of_tiff
from .formats import (
    EXIF_PREFIX,
    FORMATS,
    PNG,
    PNG_START,
    TIFF,
    WEBP,
    Format,
    Metadata,
    Picture,
    PictureError,
    reason_of,
)
from .others import as_png

logger = logging.getLogger(__name__)

MAX_PIXELS = 200_000_000
"""Largest picture that is decoded if the caller does not say otherwise: 2.4 GB as float32 RGB."""

_BANDS = {"b-w": (1, 2), "grey16": (1, 2), "srgb": (3, 4), "rgb16": (3, 4)}
"""Number of channels without and with alpha, by libvips's name for the colours."""


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture: the first page, upright (the EXIF orientation is applied and reset).

    The format is recognised by the content, not by the name. Raises OSError where the file cannot
    be opened and PictureError where it is not a picture, is broken, or holds what is not supported.
    """
    data = path.read_bytes()
    if not data:
        raise PictureError("the file is empty")
    data = as_png(data, max_pixels) or data
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
            f"the {file_format.name} data is broken or cut off{reason_of(error)}"
        ) from error

    pixels = pixels.reshape(upright.height, upright.width, upright.bands)
    bits = _depth(upright)
    grey = upright.bands <= 2
    if upright.bands == 2:
        pixels = pixels[:, :, [0, 0, 0, 1]]
    scaled = np.divide(pixels, np.float32(2**bits - 1), dtype=np.float32)
    return Picture(pixels=scaled, bits=bits, grey=grey, metadata=metadata)


def _check_size(image: pyvips.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise PictureError(
            f"it claims {image.width}x{image.height} pixels; the limit is {max_pixels / 1e6:g} million "
            "(raise it with --max-megapixels where the file can be trusted)"
        )


def _grey_or_rgb(image: pyvips.Image, path: Path) -> pyvips.Image:
    """The image as 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha) bands of 8 or 16 bit."""
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
        exif = exif.removeprefix(EXIF_PREFIX)
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
        PNG_START + b"".join(_png_chunk(*chunk) for chunk in chunks)
    )
    return image.xres, image.yres


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png_text(png: bytes) -> bytes:
    """The text chunks of a PNG, without XMP, byte for byte: libvips would write them as Latin-1."""
    found, at = b"", len(PNG_START)
    while at + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        chunk = png[at : at + 12 + length]
        if kind in (b"tEXt", b"zTXt", b"iTXt") and not chunk[8:].startswith(b"XML:com.adobe.xmp\0"):
            found += chunk
        at += 12 + length
    return found


def _upright_xmp(xmp: bytes) -> bytes:
    """XMP with the orientation upright.

    It repeats the EXIF orientation; a reader that follows it would turn the upright picture again.
    """
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>)\s*)[2-8]", rb"\g<1>1", xmp)
