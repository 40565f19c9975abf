"""What lies beside the pixels of a picture file: taken out of it, or named where no result can have
it."""

from __future__ import annotations

import re
import struct
from typing import Any

import pyvips

from .colour import KINDS, StatedColour, colour_of_tiff
from .container import (
    APP0,
    APP1,
    APP2,
    APP11,
    APP13,
    COMMENT,
    ICC_START,
    gif_blocks,
    jpeg_segments,
    png_chunks,
    webp_chunks,
)
from .exif import exif_of_tiff, first_directory, resolution_of, unknown_tags
from .formats import EXIF_PREFIX, JPEG, PNG, TIFF, WEBP, Format, Metadata, Resolution
from .text import text_chunks
from .tiff import Directory, ExifError, Value

_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_GAIN_MAP = b"urn:iso:std:iso:ts:21496:"
_PHOTOSHOP, _IPTC = b"Photoshop 3.0\0", 0x0404
# Chunks that say how the old pixels were stored, or are handled on their own.
_PNG_KNOWN = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"eXIf", b"pHYs", b"sBIT"}
_PNG_KNOWN |= {b"tEXt", b"zTXt", b"iTXt", b"tIME", b"hIST", b"iDOT", b"acTL", b"fcTL", b"fdAT"}
_PNG_KNOWN |= set(KINDS)
_WEBP_KNOWN = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "}
_JPEG_SIZES = {0: None, 1: 25.4, 2: 10.0}  # units of JFIF in millimetres
_PHOTOSHOP_TAG, _IPTC_TAG = 34377, 33723
_COLOUR_TAGS = {301, 318, 319}


def metadata_of(
    image: pyvips.Image, data: bytes, file_format: Format, size: tuple[int, int]
) -> tuple[Metadata, list[str]]:
    """The metadata of a file, and names of what is in it and goes into no result.

    ``size``: width and height of the upright picture.
    """
    lost: list[str] = []
    exif = field_of(image, "exif-data")
    resolution, iptc, comments = None, None, ()
    colour = StatedColour()
    directory: Directory = {}
    try:
        if file_format is TIFF:
            directory = first_directory(data)
            exif = exif_of_tiff(data)
        elif exif is not None:
            exif = exif.removeprefix(EXIF_PREFIX)
            directory = first_directory(exif)
    except ExifError as error:
        lost.append(f"EXIF ({error})")
        exif = None
    if file_format is PNG:
        chunks = dict(png_chunks(data))
        resolution = _png_resolution(chunks.get(b"pHYs"))
        colour = StatedColour({kind: chunks[kind] for kind in KINDS if kind in chunks})
        lost += [f"{_name(kind)} chunk" for kind in chunks if kind not in _PNG_KNOWN]
    elif file_format is JPEG:
        segments, _ = jpeg_segments(data)
        resources = _resources(_photoshop(segments))
        iptc = resources.get(_IPTC)
        comments = tuple(
            body.decode("utf-8", "replace").rstrip("\0")
            for marker, body in segments
            if marker == COMMENT
        )
        lost += _unknown_segments(segments, data) + _paths(resources)
    elif file_format is WEBP:
        lost += [f"{_name(kind)} chunk" for kind, _ in webp_chunks(data) if kind not in _WEBP_KNOWN]
    elif file_format is TIFF:
        colour = colour_of_tiff(directory)
        resources = _resources(_raw(directory, _PHOTOSHOP_TAG))
        iptc = _raw(directory, _IPTC_TAG) or resources.get(_IPTC)
        lost += _paths(resources)
        tags = sorted(set(unknown_tags(directory)) - _COLOUR_TAGS)
        lost += [f"the TIFF tags {', '.join(map(str, tags))}"] if tags else []
    else:
        comments = tuple(
            body.decode("utf-8", "replace") for label, body in gif_blocks(data) if label == 0xFE
        )
    resolution = resolution or resolution_of(directory)
    if file_format is JPEG and resolution is None:
        resolution = _jfif_resolution(segments)
    turned = field_of(image, "orientation") not in (None, 1)
    return (
        Metadata(
            size=size,
            turned=turned,
            resolution=resolution,
            profile=field_of(image, "icc-profile-data"),
            colour=colour,
            exif=exif,
            xmp=field_of(image, "xmp-data"),
            iptc=iptc,
            png_text=text_chunks(data) if file_format is PNG else b"",
            comments=comments,
        ),
        list(dict.fromkeys(lost)),
    )


def field_of(image: pyvips.Image, name: str) -> Any:
    """What libvips keeps under this name, or None."""
    return image.get(name) if image.get_typeof(name) else None


def _name(kind: bytes) -> str:
    return kind.decode("latin-1").strip()


def _png_resolution(chunk: bytes | None) -> Resolution | None:
    if chunk is None or len(chunk) != 9:
        return None
    x, y, unit = struct.unpack(">IIB", chunk)
    if not x or not y or (unit != 1 and x == y):
        return None
    return Resolution(x / 1000, y / 1000) if unit == 1 else Resolution(x, y, unit=False)


def _jfif_resolution(segments: list[tuple[int, bytes]]) -> Resolution | None:
    for marker, body in segments:
        if marker == APP0 and body.startswith(b"JFIF\0") and len(body) >= 12:
            unit, x, y = struct.unpack_from(">BHH", body, 7)
            length = _JPEG_SIZES.get(unit)
            if not x or not y or (length is None and x == y):
                return None
            return Resolution(x / length, y / length) if length else Resolution(x, y, unit=False)
    return None


def _raw(directory: Directory, tag: int) -> bytes | None:
    value = directory.get(tag)
    return value.data if isinstance(value, Value) else None


def _photoshop(segments: list[tuple[int, bytes]]) -> bytes:
    """The Photoshop resources of a JPEG, joined."""
    return b"".join(
        body.removeprefix(_PHOTOSHOP)
        for marker, body in segments
        if marker == APP13 and body.startswith(_PHOTOSHOP)
    )


def _resources(resources: bytes | None) -> dict[int, bytes]:
    """Photoshop's resources by their numbers: 8BIM, number, name, size, data."""
    found: dict[int, bytes] = {}
    at, resources = 0, resources or b""
    while resources[at : at + 4] == b"8BIM" and at + 12 <= len(resources):
        (number,) = struct.unpack_from(">H", resources, at + 4)
        name = 1 + resources[at + 6]
        at += 6 + name + name % 2
        if at + 4 > len(resources):
            break
        (length,) = struct.unpack_from(">I", resources, at)
        found[number] = resources[at + 4 : at + 4 + length]
        at += 4 + length + length % 2
    return found


def _paths(resources: dict[int, bytes]) -> list[str]:
    """Whether there are clipping paths among Photoshop's resources; the rest is about printing."""
    return ["clipping paths"] if any(2000 <= number < 2999 for number in resources) else []


def _unknown_segments(segments: list[tuple[int, bytes]], data: bytes) -> list[str]:
    """What is in a JPEG beside one picture with EXIF, XMP, ICC profile and IPTC."""
    found = []
    for marker, body in segments:
        if marker == APP1 and body.startswith(_EXTENDED_XMP):
            found.append("extended XMP")
        elif marker == APP2 and body.startswith(b"MPF\0"):
            found.append("further pictures in it (MPF)")
        elif marker == APP11 and b"jumb" in body[:32]:
            found.append("content credentials (C2PA), which are about the old file")
        elif marker == APP2 and not body.startswith((ICC_START, b"MPF\0")):
            name = re.match(rb"[\w:./-]{1,40}", body)
            named = f"APP2 {name.group().decode() if name else ''}".strip()
            found.append("a gain map" if body.startswith(_GAIN_MAP) else named)
    behind = data[_end_of_scan(data) :]
    if b"ftyp" in behind[:64]:
        found.append("a video behind the picture")
    elif behind.strip(b"\0\xff") and "further pictures in it (MPF)" not in found:
        found.append(f"{len(behind)} bytes behind the picture")
    return found


def _end_of_scan(jpeg: bytes) -> int:
    """Where the first picture of a JPEG file ends: behind the first EOI after its scan."""
    _, at = jpeg_segments(jpeg)
    end = jpeg.find(b"\xff\xd9", at)
    return len(jpeg) if end < 0 else end + 2
