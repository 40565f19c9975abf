"""Reads the picture files of the command line: PNG, JPEG, WebP, TIFF and GIF, through libvips.

Pixels are the numbers in the file divided by 255 or 65535: no colour management, except that CMYK
becomes sRGB. What lies beside them is `beside`'s.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pyvips

from .beside import field_of, metadata_of, turned_by_png
from .container import gif_blocks, png_chunks
from .formats import (
    FORMATS,
    GIF,
    IN_SRGB,
    PNG,
    TIFF,
    VIPS_ERRORS,
    Format,
    Picture,
    PictureError,
    unreadable,
)
from .others import as_png, left_out
from .profile import is_whole
from .samples import check_samples, without_others

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
    others = left_out(data)
    data = as_png(data, max_pixels) or data
    file_format = format_of_content(data)
    try:
        if file_format is TIFF:
            check_samples(data)
        image = getattr(pyvips.Image, file_format.loader)(
            data, access="sequential", fail_on="error"
        )
        if file_format is TIFF:
            image, unread = without_others(image, data)
            others += unread
        if file_format is PNG:
            image = turned_by_png(image, data)
        source = checked(image, path, max_pixels)
        if file_format is GIF:
            check_whole(data)
        tell_of_frames(source, data, file_format, path)
        upright = source.copy_memory().autorot()
        pixels = upright.numpy()
        size = upright.width, upright.height
        metadata, lost = metadata_of(source, data, file_format, size)
    except VIPS_ERRORS as error:
        raise unreadable(file_format.name, error) from error

    tell_of_lost(others + lost, path)
    pixels = pixels.reshape(upright.height, upright.width, upright.bands)
    bits = depth_of(upright)
    grey = upright.bands <= 2
    if upright.bands == 2:
        pixels = pixels[:, :, [0, 0, 0, 1]]
    scaled = np.divide(pixels, np.float32(2**bits - 1), dtype=np.float32)
    return Picture(pixels=scaled, bits=bits, grey=grey, metadata=metadata)


def checked(image: pyvips.Image, path: Path, max_pixels: int) -> pyvips.Image:
    """The image as 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha) bands of 8 or 16 bit.

    Raises PictureError for one that is larger than allowed, or holds what is not supported.
    """
    _check_size(image, max_pixels)
    return _grey_or_rgb(image, path)


def tell_of_lost(lost: list[str], path: Path) -> None:
    """Say what is in a file and goes into no result."""
    if lost:
        logger.warning("%s: left out: %s", path, ", ".join(lost))


def format_of_content(data: bytes) -> Format:
    """By the first bytes. Raises PictureError for what is none of those read here."""
    for entry in FORMATS:
        if re.match(entry.pattern, data, re.DOTALL):
            return entry
    raise PictureError(
        "the content is neither PNG, JPEG, WebP, TIFF nor GIF; convert it to one of these first"
    )


def check_whole(gif: bytes) -> None:
    """Raise PictureError for a GIF that is cut off: libvips shows as many frames as there are."""
    if not any(label == 0x3B for label, _ in gif_blocks(gif)):
        raise PictureError("the GIF data is broken or cut off (its end is missing)")


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
        profile = field_of(image, "icc-profile-data")
        fits = profile is None or (is_whole(profile) and profile[16:20] == b"CMYK")
        how = "" if fits else ", by a general profile, since its own is broken or for other colours"
        logger.warning("%s: CMYK is converted to sRGB%s", path, how)
        image = image.icc_transform(
            "srgb",
            embedded=True,
            input_profile="cmyk",
            depth=depth_of(image),
            intent="relative",
            black_point_compensation=True,
        ).copy()
        image.set_type(pyvips.GValue.gint_type, IN_SRGB, 1)
    expected = _BANDS.get(str(image.interpretation))
    if expected is None:
        raise PictureError(
            f"it holds {image.interpretation} colours; supported are grey, RGB and CMYK: convert it"
        )
    if image.bands not in expected:
        raise PictureError(
            f"it holds {image.bands} channels where {expected[0]} or {expected[1]} are supported"
        )
    return image


def tell_of_frames(image: pyvips.Image, data: bytes, file_format: Format, path: Path) -> None:
    """Say it where a file has more than the one picture that is read."""
    pages = frame_count(image, data, file_format)
    if pages > 1:
        logger.warning("%s: the first of its %d pages is upscaled", path, pages)


def frame_count(image: pyvips.Image, data: bytes, file_format: Format) -> int:
    """Pages of a file, or frames of an animation."""
    if file_format is PNG:
        control = dict(png_chunks(data)).get(b"acTL", b"")
        return int.from_bytes(control[:4], "big") if len(control) == 8 else 1
    return field_of(image, "n-pages") or 1


def depth_of(image: pyvips.Image) -> int:
    """Bits per channel."""
    return 8 if image.format == "uchar" else 16
