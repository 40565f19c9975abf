"""The picture formats of the command line, and what a picture is between reading and writing.

file -> pixels (H, W, C) float32 in [0, 1], depth, metadata -> file
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyvips

from .colour import StatedColour

pyvips.cache_set_max(0)  # a cached operation would keep the last pictures in memory

IN_SRGB = "pixels-in-srgb"
"""A field of libvips's images whose colours were made sRGB."""

EXIF_PREFIX = b"Exif\0\0"  # precedes EXIF in JPEG, and in what libvips calls exif-data


class PictureError(ValueError):
    """A picture file that cannot be read or written.

    The message says why, mostly without the file's name, which callers add.
    """


@dataclass(frozen=True, kw_only=True)
class Format:
    """How one file format is named and recognised, and what it can hold."""

    name: str
    mime: str
    suffixes: tuple[str, ...]
    pattern: bytes  # regular expression for the first bytes
    loader: str
    bits: int = 8
    alpha: bool = True
    grey: bool = True
    profiled: bool = True  # whether it holds an ICC profile
    longest_side: int = 2**31 - 1


PNG = Format(
    name="PNG",
    mime="image/png",
    suffixes=(".png", ".apng"),
    pattern=rb"\x89PNG\r\n\x1a\n",
    loader="pngload_buffer",
    bits=16,
)
JPEG = Format(
    name="JPEG",
    mime="image/jpeg",
    suffixes=(".jpg", ".jpeg", ".jpe", ".jfif"),
    pattern=rb"\xff\xd8\xff",
    loader="jpegload_buffer",
    alpha=False,
    longest_side=65_500,  # of libjpeg; the format itself goes on to 65,535
)
WEBP = Format(
    name="WebP",
    mime="image/webp",
    suffixes=(".webp",),
    pattern=rb"RIFF.{4}WEBP",
    loader="webpload_buffer",
    grey=False,
    longest_side=16_383,
)
TIFF = Format(
    name="TIFF",
    mime="image/tiff",
    suffixes=(".tif", ".tiff"),
    pattern=rb"II[*+]\x00|MM\x00[*+]",
    loader="tiffload_buffer",
    bits=16,
)
GIF = Format(
    name="GIF",
    mime="image/gif",
    suffixes=(".gif",),
    pattern=rb"GIF8[79]a",
    loader="gifload_buffer",
    grey=False,
    profiled=False,
    longest_side=65_535,
)
FORMATS = (PNG, JPEG, WEBP, TIFF, GIF)
"""Those that are read and written."""

DEEPZOOM = Format(
    name="DeepZoom",
    mime="image/png",
    suffixes=(".dzi",),
    pattern=rb"(?!)",
    loader="",
    profiled=False,
)
"""Only written: a pyramid of small PNG files (JPEG where a quality is given) in a folder."""


@dataclass(frozen=True)
class Resolution:
    """Pixels per millimetre, horizontally and vertically; without a unit only their ratio counts."""

    x: float
    y: float
    unit: bool = True

    def lying(self) -> Resolution:
        """Of the picture turned by a quarter."""
        return Resolution(self.y, self.x, self.unit)


@dataclass(frozen=True, kw_only=True, eq=False)
class Metadata:
    """Everything beside the pixels that goes from the picture read to the picture written.

    Attributes:
        size: width and height of the picture read, upright; None: not known.
        turned: whether it was turned or mirrored to be upright.
        oriented: whether the file says how it is to be turned, outside of XMP.
        in_srgb: whether its pixels were made sRGB, which what it says of its colours does not know.
        resolution: None where the file states none.
        profile: ICC.
        colour: what the file says of its colours in other ways.
        exif: beginning with its TIFF header.
        iptc: the records (IIM), without what JPEG puts around them.
        png_text: whole chunks.
        comments: of JPEG and GIF.
    """

    size: tuple[int, int] | None = None
    turned: bool = False
    oriented: bool = False
    in_srgb: bool = False
    resolution: Resolution | None = None
    profile: bytes | None = None
    colour: StatedColour = field(default_factory=StatedColour)
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    png_text: bytes = b""
    comments: tuple[str, ...] = ()


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
    """The format that a file's name stands for; None if the name is of no format known here."""
    suffix = path.suffix.lower()
    return next((entry for entry in FORMATS if suffix in entry.suffixes), None)


def format_to_write(path: Path) -> Format | None:
    """As `format_of_name`, for a result."""
    return DEEPZOOM if path.suffix.lower() in DEEPZOOM.suffixes else format_of_name(path)


VIPS_ERRORS = (pyvips.Error, UnicodeDecodeError)
"""What pyvips raises for broken data, whose message may repeat parts of it that are no text."""


def reason_of(error: Exception) -> str:
    """The message of libvips, in one line; it is empty for broken PNG headers.

    To be asked for after each of `VIPS_ERRORS`: a message that is no text stays in libvips, and would
    be taken for that of the pictures that follow.
    """
    if isinstance(error, UnicodeDecodeError):
        pyvips.vips_lib.vips_error_clear()
        detail = error.object.decode("utf-8", "replace")
    else:
        detail = getattr(error, "detail", "")
    lines = [line.strip() for line in str(detail).splitlines() if line.strip()]
    return f" ({'; '.join(dict.fromkeys(lines))})" if lines else ""


_UNREAD = re.compile(
    "not (supported|configured|implemented|been built in|a whole number)|unsupported"
)


def unreadable(name: str, error: Exception) -> PictureError:
    """What is said of data that libvips can't read: it is broken, or of a kind that it was built
    without."""
    reason = reason_of(error)
    what = (
        "is of a kind that libvips can't read" if _UNREAD.search(reason) else "is broken or cut off"
    )
    advice = "; convert it to PNG with the program that made it" if _UNREAD.search(reason) else ""
    return PictureError(f"the {name} data {what}{reason}{advice}")
