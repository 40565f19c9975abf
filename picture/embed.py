"""Puts what lay beside a picture's pixels into the file of the result, and names what it has no
place for."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .container import (
    APP1,
    APP13,
    COMMENT,
    PNG_START,
    SEGMENT,
    XMP_START,
    jpeg_with,
    png_chunks,
    png_with,
    profile_segments,
    webp_with,
)
from .exif import (
    exif_of_result,
    first_directory,
    resolution_tags,
    tiff_with_exif,
)
from .formats import EXIF_PREFIX, GIF, JPEG, PNG, TIFF, WEBP, Format, Metadata, Resolution
from .text import named_texts, place_in_exif, text_chunk, texts_of
from .tiff import UNDEFINED, ExifError, Value
from .xmp import xmp_of_result

_LONGEST_TEXTS = ("workflow", "prompt", "parameters")  # what is given up first where room is short


@dataclass(frozen=True)
class Beside:
    """Metadata as one format takes it.

    ``profile``: ICC; ``exif``, ``xmp``: as they are true for the result.
    """

    metadata: Metadata
    profile: bytes | None
    exif: bytes | None
    xmp: bytes | None


def prepared(
    metadata: Metadata,
    file_format: Format,
    *,
    width: int,
    height: int,
    profile: bytes | None,
    tell: Callable[[str], None],
) -> Beside:
    """The metadata for a result of this format and size. ``tell`` gets what is lost."""
    factors = None
    if metadata.size and not metadata.turned:
        factors = width / metadata.size[0], height / metadata.size[1]
    exif, lost = _exif(metadata, file_format, width, height, factors)
    xmp = metadata.xmp
    if xmp is not None:
        xmp, gone = xmp_of_result(
            xmp,
            width=width,
            height=height,
            factors=factors,
            mime=file_format.mime,
            oriented=metadata.oriented,
            in_srgb=metadata.in_srgb,
        )
        lost += gone
    if file_format is JPEG and xmp is not None and len(xmp) > SEGMENT - len(XMP_START):
        xmp, lost = None, [*lost, "XMP (too long for JPEG)"]
    if metadata.iptc and (
        file_format in (WEBP, GIF)
        or (file_format is JPEG and len(_photoshop(metadata.iptc)) > SEGMENT)
    ):
        lost.append("IPTC")
    if file_format is GIF:
        parts = {"EXIF": exif, "XMP": xmp, "the resolution": metadata.resolution}
        lost += [name for name, part in parts.items() if part is not None]
        lost += _named(keyword for keyword, _ in texts_of(metadata.png_text))
        lost += ["a comment"] * bool(metadata.comments)
        exif = xmp = None
    if lost:
        tell(f"not kept: {', '.join(dict.fromkeys(lost))}")
    return Beside(metadata, profile, exif, xmp)


def _exif(
    metadata: Metadata,
    file_format: Format,
    width: int,
    height: int,
    factors: tuple[float, float] | None,
) -> tuple[bytes | None, list[str]]:
    """EXIF for the result with the texts that have their place in it, and what is lost."""
    lost: list[str] = []
    texts = [] if file_format in (PNG, GIF) else texts_of(metadata.png_text)
    if file_format not in (PNG, GIF, JPEG):  # these have comments
        texts += [("Comment", comment) for comment in metadata.comments]
    while True:
        try:
            old = {} if metadata.exif is None else first_directory(metadata.exif)
            placed = place_in_exif(texts, old)
            # in WebP the resolution has no other place
            made = placed.first or placed.photo or (file_format is WEBP and metadata.resolution)
            exif, gone = None, []
            if metadata.exif is not None or made:
                exif, gone = exif_of_result(
                    metadata.exif,
                    width=width,
                    height=height,
                    factors=factors,
                    resolution=metadata.resolution,
                    in_srgb=metadata.in_srgb,
                    oriented=metadata.oriented or metadata.xmp is None,
                    added=placed.first,
                    added_photo=placed.photo,
                )
        except ExifError as error:
            return None, [f"EXIF ({error})", *_named(keyword for keyword, _ in texts)]
        if file_format is not JPEG or exif is None or len(exif) <= SEGMENT - len(EXIF_PREFIX):
            return exif, gone + lost + _named(placed.lost)
        longest = next((name for name in _LONGEST_TEXTS if name in dict(texts)), None)
        if longest is None:
            return None, ["EXIF (too long for JPEG)", *lost, *_named(dict(texts))]
        texts = [pair for pair in texts if pair[0] != longest]
        lost.append(f'text "{longest}" (too long for JPEG)')


def _named(keywords: Iterable[str]) -> list[str]:
    return [f'text "{keyword}"' for keyword in keywords]


def embedded(
    encoded: bytes, beside: Beside, file_format: Format, *, width: int, height: int, alpha: bool
) -> bytes | bytearray:
    """The encoded pixels with all of it. Raises ExifError for a TIFF file without room for it."""
    if file_format is PNG:
        return png_with(encoded, _png_chunks(beside))
    if file_format is JPEG:
        return jpeg_with(encoded, _jfif(beside.metadata.resolution), _jpeg_segments(beside))
    if file_format is WEBP:
        parts = {b"ICCP": beside.profile, b"EXIF": beside.exif, b"XMP ": beside.xmp}
        found = {name: part for name, part in parts.items() if part is not None}
        return webp_with(encoded, found, width=width, height=height, alpha=alpha)
    if file_format is TIFF:
        return tiff_with_exif(encoded, beside.exif, tiff_tags(beside))
    return encoded


def tiff_tags(beside: Beside) -> dict[int, Value | None]:
    """What a TIFF file has beside EXIF; None is no entry."""
    tags: dict[int, Value | None] = resolution_tags(beside.metadata.resolution)
    if not beside.metadata.oriented and beside.xmp:  # which may say it
        tags[274] = None
    parts = {34675: beside.profile, 700: beside.xmp, 33723: beside.metadata.iptc}
    return tags | {
        tag: Value(1 if tag == 700 else UNDEFINED, part) for tag, part in parts.items() if part
    }


def _png_chunks(beside: Beside) -> list[tuple[bytes, bytes]]:
    metadata = beside.metadata
    texts = [("Comment", comment) for comment in metadata.comments]
    if beside.exif:  # where ComfyUI looks for it in PNG
        known = dict(texts_of(metadata.png_text))
        texts += [one for one in named_texts(first_directory(beside.exif)) if one[0] not in known]
    added = b"".join(text_chunk(*text) for text in texts)
    chunks = list(metadata.colour.chunks.items())
    chunks += png_chunks(PNG_START + metadata.png_text + added)
    if beside.profile:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(beside.profile)))
    resolution = metadata.resolution
    if resolution:
        factor = 1000 if resolution.unit else _whole(resolution)
        sides = (round(resolution.x * factor), round(resolution.y * factor))
        chunks.append((b"pHYs", struct.pack(">IIB", *sides, resolution.unit)))
    if beside.exif:
        chunks.append((b"eXIf", beside.exif))
    if beside.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + beside.xmp))
    if metadata.iptc:  # as ImageMagick and ExifTool write it
        lines = metadata.iptc.hex()
        body = "\n".join(lines[at : at + 72] for at in range(0, len(lines), 72))
        raw = f"\niptc\n{len(metadata.iptc):8}\n{body}\n".encode()
        chunks.append((b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(raw)))
    return chunks


def _whole(resolution: Resolution) -> int:
    """What makes a ratio of pixels whole numbers."""
    return 1 if resolution.x == int(resolution.x) and resolution.y == int(resolution.y) else 1000


def _jfif(resolution: Resolution | None) -> tuple[int, int, int]:
    """Unit and density of JFIF's header."""
    if resolution is None:
        return 0, 1, 1
    factor = 25.4 if resolution.unit else _whole(resolution)
    sides = [round(side * factor) for side in (resolution.x, resolution.y)]
    if not all(0 < side < 2**16 for side in sides):
        return 0, 1, 1
    return int(resolution.unit), sides[0], sides[1]


def _jpeg_segments(beside: Beside) -> list[tuple[int, bytes]]:
    segments = [(APP1, EXIF_PREFIX + beside.exif)] if beside.exif else []
    segments += [(APP1, XMP_START + beside.xmp)] if beside.xmp else []
    segments += profile_segments(beside.profile) if beside.profile else []
    iptc = beside.metadata.iptc
    if iptc and len(_photoshop(iptc)) <= SEGMENT:
        segments.append((APP13, _photoshop(iptc)))
    segments += [(COMMENT, comment.encode()[:SEGMENT]) for comment in beside.metadata.comments]
    return segments


def _photoshop(iptc: bytes) -> bytes:
    """IPTC records as JPEG holds them, in a resource of Photoshop."""
    size = struct.pack(">I", len(iptc))
    return b"Photoshop 3.0\x008BIM\4\4\0\0" + size + iptc + b"\0" * (len(iptc) % 2)
