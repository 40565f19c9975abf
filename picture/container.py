"""What lies beside the pixels in PNG, JPEG, WebP and GIF files: chunks, segments and blocks.

libvips encodes the pixels alone. It would add a resolution that nobody stated, change EXIF, and
leave out what is too long without a word, so everything else is put in here (PNG, third edition;
JPEG, ITU T.81 annex B, and JFIF 1.02; WebP, RFC 9649; GIF89a).
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping

PNG_START = b"\x89PNG\r\n\x1a\n"
APP0, APP1, APP2, APP11, APP13, COMMENT = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xFE
TABLES = 0xDB
_SCAN = 0xDA
SEGMENT = 65_533
"""Bytes that a JPEG segment can hold."""

ICC_START = b"ICC_PROFILE\0"
XMP_START = b"http://ns.adobe.com/xap/1.0/\0"


def png_chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each chunk up to the last; of a file that is cut off, those that are there."""
    at, kind = len(PNG_START), b""
    while kind != b"IEND" and at + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        yield kind, png[at + 8 : at + 8 + length]
        at += 12 + length


def png_end(png: bytes) -> int:
    """Where the last chunk ends."""
    return len(PNG_START) + sum(12 + len(body) for _, body in png_chunks(png))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A whole chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(png: bytes, chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The PNG with these chunks behind its header, and without the resolution that it has."""
    behind_header = len(PNG_START) + 25
    before_pixels = [
        (kind, body) for kind, body in png_chunks(png[: png.index(b"IDAT") - 4]) if kind != b"pHYs"
    ]
    return b"".join(
        [
            png[:behind_header],
            *(png_chunk(*chunk) for chunk in (*chunks, *before_pixels[1:])),
            png[png.index(b"IDAT") - 4 :],
        ]
    )


def jpeg_segments(jpeg: bytes | mmap.mmap) -> tuple[list[tuple[int, bytes]], int]:
    """Marker and body of each segment before the first scan, and where that begins."""
    found, at = [], 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker == _SCAN:
            break
        (length,) = struct.unpack_from(">H", jpeg, at + 2)
        found.append((marker, jpeg[at + 4 : at + 2 + length]))
        at += 2 + length
    return found, at


def jpeg_with(jpeg: bytes, density: tuple[int, int, int], segments: Iterable[tuple[int, bytes]]):
    """The JPEG with a JFIF header of this unit and density, and these segments behind it."""
    found, scan = jpeg_segments(jpeg)
    jfif = b"JFIF\0\1\2" + struct.pack(">BHH", *density) + b"\0\0"
    encoding = [segment for segment in found if not 0xE0 <= segment[0] <= 0xEF]
    parts = [(APP0, jfif), *segments, *encoding]
    return (
        b"\xff\xd8"
        + b"".join(
            struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in parts
        )
        + jpeg[scan:]
    )


def profile_segments(profile: bytes) -> list[tuple[int, bytes]]:
    """An ICC profile as JPEG segments, numbered."""
    room = SEGMENT - len(ICC_START) - 2
    parts = [profile[at : at + room] for at in range(0, len(profile), room)]
    return [
        (APP2, ICC_START + bytes([number, len(parts)]) + part)
        for number, part in enumerate(parts, start=1)
    ]


def webp_chunks(webp: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and body of each chunk of a WebP file."""
    at, end = 12, min(len(webp), webp_end(webp))
    while at + 8 <= end:
        name, length = struct.unpack_from("<4sI", webp, at)
        yield name, webp[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def webp_end(webp: bytes) -> int:
    """Where a WebP file says that it ends."""
    return 8 + int.from_bytes(webp[4:8], "little")


_ALPHA = 0x10
_FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}


def webp_with(
    webp: bytes, beside: Mapping[bytes, bytes], *, width: int, height: int, alpha: bool
) -> bytes:
    """The WebP file with these chunks: ICCP, EXIF, XMP.

    Of an animation libwebp asks the frames for the mark of transparency, which is then missing
    where they hide nothing but leave parts of the picture free.
    """
    chunks = list(webp_chunks(webp))
    if not beside and not (alpha and chunks[0][0] == b"VP8X"):
        return webp
    flags = _ALPHA if alpha else 0
    if chunks[0][0] == b"VP8X":
        flags |= chunks[0][1][0]
        chunks = chunks[1:]
    for name in beside:
        flags |= _FLAGS[name]
    sides = (side.to_bytes(3, "little") for side in (width - 1, height - 1))
    parts = [(b"VP8X", struct.pack("<I", flags) + b"".join(sides))]
    parts += [(b"ICCP", beside[b"ICCP"])] if b"ICCP" in beside else []
    parts += [chunk for chunk in chunks if chunk[0] not in _FLAGS]
    parts += [(name, beside[name]) for name in (b"EXIF", b"XMP ") if name in beside]
    body = b"WEBP" + b"".join(
        name + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for name, part in parts
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif_blocks(gif: bytes) -> Iterator[tuple[int, bytes]]:
    """Label and data of each extension of a GIF, and 0x2C without data for each frame.

    The last is 0x3B, the trailer; it is missing where the file is cut off.
    """
    at = 13 + _palette(gif[10:11])
    while at < len(gif):
        kind = gif[at]
        if kind == 0x3B:
            yield 0x3B, b""
            return
        if kind == 0x21:
            label, at = gif[at + 1 : at + 2], at + 2
            body, at = _sub_blocks(gif, at)
            if at > len(gif) or not label:
                return
            yield label[0], body
        elif kind == 0x2C:
            _, at = _sub_blocks(gif, at + 11 + _palette(gif[at + 9 : at + 10]))
            if at > len(gif):
                return
            yield 0x2C, b""
        else:
            return


def _palette(flags: bytes) -> int:
    """Bytes of the palette behind these flags."""
    return 3 * 2 ** ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _sub_blocks(gif: bytes, at: int) -> tuple[bytes, int]:
    """The joined data of blocks from here on, and where they end; beyond the file if cut off."""
    parts = []
    while at < len(gif) and gif[at]:
        parts.append(gif[at + 1 : at + 1 + gif[at]])
        at += 1 + gif[at]
    return b"".join(parts), at + 1 if at < len(gif) else len(gif) + 1
