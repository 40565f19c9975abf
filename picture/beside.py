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
    XMP_START,
    gif_blocks,
    jpeg_segments,
    png_chunks,
    png_end,
    webp_chunks,
    webp_end,
)
from .exif import exif_of_tiff, first_directory, resolution_of, unknown_tags
from .formats import EXIF_PREFIX, IN_SRGB, JPEG, PNG, TIFF, WEBP, Format, Metadata, Resolution
from .profile import is_whole
from .text import KINDS as TEXT_KINDS
from .text import XMP_KEYWORD, text_chunks, without_profiles, xmp_of_png
from .tiff import Directory, ExifError, Value

_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_GAIN_MAP = b"urn:iso:std:iso:ts:21496:"
_PHOTOSHOP, _IPTC = b"Photoshop 3.0\0", 0x0404
_RIGHTS = {0x040A, 0x040B}  # whether there are any, and an address
# Chunks that say how the old pixels were stored, or are handled on their own.
_PNG_KNOWN = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"eXIf", b"pHYs", b"sBIT"}
_PNG_KNOWN |= {b"tEXt", b"zTXt", b"iTXt", b"tIME", b"hIST", b"iDOT", b"acTL", b"fcTL", b"fdAT"}
_PNG_KNOWN |= set(KINDS) | set(TEXT_KINDS)
_WEBP_KNOWN = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "}
_JPEG_SIZES = {0: None, 1: 25.4, 2: 10.0}  # units of JFIF in millimetres
# How JPEG segments begin that are kept, or that say how the old picture was encoded.
_JPEG_KNOWN: dict[int, tuple[bytes, ...]] = {
    APP0: (b"",),
    APP1: (EXIF_PREFIX, XMP_START),
    APP2: (ICC_START,),
    0xEC: (b"Ducky",),
    APP13: (_PHOTOSHOP, b"Adobe_CM"),
    0xEE: (b"Adobe",),
}
_JPEG_NAMES = {  # of others
    (APP1, _EXTENDED_XMP): "extended XMP",
    (APP2, b"MPF\0"): "further pictures in it (MPF)",
    (APP2, _GAIN_MAP): "a gain map",
    (0xE3, b"_JPSJPS_"): "how its two pictures are seen in stereo (JPS)",
}
_GIF_KNOWN = (b"NETSCAPE2.0", b"ANIMEXTS1.0")  # both say how often the animation is shown
_GIF_NAMES = {b"XMP DataXMP": "XMP", b"ICCRGBG1012": "its ICC profile"}
_PHOTOSHOP_TAG, _IPTC_TAG, _SUB_DIRECTORIES = 34377, 33723, 330
_ORIENTATION, _PROFILE_TAG, _XMP_TAG = 274, 34675, 700
_COLOUR_TAGS = {301, 318, 319}


def metadata_of(
    image: pyvips.Image, data: bytes, file_format: Format, size: tuple[int, int]
) -> tuple[Metadata, list[str]]:
    """The metadata of a file, and names of what is in it and goes into no result.

    ``size``: width and height of the upright picture.
    """
    lost: list[str] = []
    exif, xmp, profile = (
        field_of(image, name) for name in ("exif-data", "xmp-data", "icc-profile-data")
    )
    resolution, iptc, comments, text = None, None, (), b""
    there: dict[str, bool] = {}  # whether the file has what libvips should have given
    found = {"EXIF": exif, "XMP": xmp, "its ICC profile": profile}
    if file_format is PNG:
        text, raw = without_profiles(text_chunks(data))
        exif = exif or behind_pixels(data) or raw.get("exif")
        xmp = xmp or xmp_of_png(data) or raw.get("xmp")
        found |= {"EXIF": exif, "XMP": xmp}
        profile, iptc = profile or raw.get("icc"), raw.get("iptc")
        if iptc is not None and iptc.startswith(b"8BIM"):
            iptc = _resources(iptc).get(_IPTC)
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
        chunks: dict[bytes, bytes] = {}
        for kind, body in png_chunks(data):
            chunks.setdefault(kind, body)
            there["XMP"] = there.get("XMP", False) or body.startswith(XMP_KEYWORD + b"\0")
        there |= {"EXIF": b"eXIf" in chunks, "its ICC profile": b"iCCP" in chunks}
        resolution = _png_resolution(chunks.get(b"pHYs"))
        colour = StatedColour({kind: chunks[kind] for kind in KINDS if kind in chunks})
        lost += [f"{_name(kind)} chunk" for kind in chunks if kind not in _PNG_KNOWN]
        lost += ["what is behind the picture"] * (png_end(data) < len(data))
    elif file_format is JPEG:
        segments, _ = jpeg_segments(data)
        resources = _resources(_photoshop(segments))
        iptc = resources.get(_IPTC)
        comments = tuple(_comment(body) for marker, body in segments if marker == COMMENT)
        there = {
            "EXIF": _has(segments, APP1, EXIF_PREFIX),
            "XMP": _has(segments, APP1, XMP_START),
            "its ICC profile": _has(segments, APP2, ICC_START),
        }
        lost += _unknown_segments(segments, data) + _of_photoshop(resources)
    elif file_format is WEBP:
        kinds = [kind for kind, _ in webp_chunks(data)]
        there = {"EXIF": b"EXIF" in kinds, "XMP": b"XMP " in kinds}
        there["its ICC profile"] = b"ICCP" in kinds
        lost += [f"{_name(kind)} chunk" for kind in kinds if kind not in _WEBP_KNOWN]
        lost += ["what is behind the picture"] * (webp_end(data) + 1 < len(data))
    elif file_format is TIFF:
        colour = colour_of_tiff(directory)
        resources = _resources(_raw(directory, _PHOTOSHOP_TAG))
        iptc = _raw(directory, _IPTC_TAG) or resources.get(_IPTC)
        there = {"XMP": _XMP_TAG in directory, "its ICC profile": _PROFILE_TAG in directory}
        lost += _of_photoshop(resources)
        lost += ["further pictures in it (SubIFDs)"] * (_SUB_DIRECTORIES in directory)
        tags = sorted(set(unknown_tags(directory)) - _COLOUR_TAGS)
        lost += [f"the TIFF tags {', '.join(map(str, tags))}"] if tags else []
    else:
        blocks = list(gif_blocks(data))
        comments = tuple(_comment(body) for label, body in blocks if label == 0xFE)
        resolution = _gif_aspect(data)
        lost += [_gif_name(label, body) for label, body in blocks if label in (0xFF, 0x01)]
    if profile is not None and not is_whole(profile):
        found["its ICC profile"] = profile = None
    lost += [f"{name} (broken)" for name, part in found.items() if there.get(name) and part is None]
    resolution = resolution or resolution_of(directory)
    if file_format is JPEG and resolution is None:
        resolution = _jfif_resolution(segments)
    turn = field_of(image, "orientation") or 1
    if resolution and turn >= 5:
        resolution = resolution.lying()
    return (
        Metadata(
            size=size,
            turned=turn != 1,
            oriented=file_format is TIFF or turn != 1 or _ORIENTATION in directory,
            in_srgb=bool(field_of(image, IN_SRGB)),
            resolution=resolution,
            profile=profile,
            colour=colour,
            exif=exif,
            xmp=xmp,
            iptc=iptc,
            png_text=text,
            comments=comments,
        ),
        list(dict.fromkeys(filter(None, lost))),
    )


def behind_pixels(png: bytes) -> bytes | None:
    """EXIF of a PNG that has it behind its pixels, where libvips does not look."""
    exif = next((body for kind, body in png_chunks(png) if kind == b"eXIf"), b"")
    return exif if exif[:2] in (b"II", b"MM") else None


def turned_by_png(image: pyvips.Image, png: bytes) -> pyvips.Image:
    """The image with the orientation that EXIF behind the pixels says."""
    exif = None if field_of(image, "exif-data") else behind_pixels(png)
    try:
        value = first_directory(exif).get(_ORIENTATION) if exif else None
    except ExifError:
        return image
    if isinstance(value, Value) and value.numbers:
        image = image.copy()
        image.set_type(pyvips.GValue.gint_type, "orientation", int(value.numbers[0]))
    return image


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


def _of_photoshop(resources: dict[int, bytes]) -> list[str]:
    """What Photoshop's resources say of the picture beside IPTC; the rest is about printing."""
    return ["clipping paths"] * any(2000 <= number < 2999 for number in resources) + [
        "Photoshop's mark of copyright"
    ] * bool(_RIGHTS & resources.keys())


def _comment(body: bytes) -> str:
    """Of JPEG or GIF, which do not say in which letters it is."""
    body = body.rstrip(b"\0")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return body.decode("latin-1")


def _has(segments: list[tuple[int, bytes]], wanted: int, start: bytes) -> bool:
    return any(marker == wanted and body.startswith(start) for marker, body in segments)


def _gif_aspect(gif: bytes) -> Resolution | None:
    """GIF states a pixel's width, in units of a 64th of its height, above 15."""
    ratio = gif[12] + 15 if gif[12:13] > b"\0" else 64
    return Resolution(64, ratio, unit=False) if ratio != 64 else None


def _gif_name(label: int, body: bytes) -> str:
    """Of an extension that goes into no result; nothing for those that are about the animation."""
    if label == 0x01:
        return "text that is drawn over it"
    name = body[:11]
    return "" if name in _GIF_KNOWN else _GIF_NAMES.get(name, f"the extension {_name(name)}")


def _unknown_segments(segments: list[tuple[int, bytes]], data: bytes) -> list[str]:
    """What is in a JPEG beside one picture with EXIF, XMP, ICC profile and IPTC."""
    found = []
    for marker, body in segments:
        if not APP0 <= marker <= 0xEF or body.startswith(_JPEG_KNOWN.get(marker, ())):
            continue
        if marker == APP11 and b"jumb" in body[:32]:
            found.append("content credentials (C2PA), which are about the old file")
            continue
        start = re.match(rb"[\w:./-]{1,40}", body)
        plain = f"APP{marker - APP0} {start.group().decode() if start else ''}".strip()
        named = (
            name
            for (kind, begin), name in _JPEG_NAMES.items()
            if kind == marker and body.startswith(begin)
        )
        found.append(next(named, plain))
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
