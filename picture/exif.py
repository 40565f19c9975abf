"""EXIF of TIFF files, which libvips neither reads nor writes (it does for JPEG, PNG and WebP).

An EXIF block is itself a small TIFF file: a header and a directory whose entries point to further
directories. So taking EXIF out of a TIFF and putting it into one both come down to reading and
writing directories (TIFF 6.0, section 2; Exif 2.32, section 4.6; BigTIFF as libtiff defines it).

    header   byte order, 42 or 43 (BigTIFF), offset of the first directory
    entry    tag, type, count, value (or its offset where it does not fit)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_EXIF, _GPS, _INTEROPERABILITY = 34665, 34853, 40965
_DIRECTORIES = {_EXIF, _GPS, _INTEROPERABILITY}
_PIXEL_WIDTH, _PIXEL_HEIGHT = 40962, 40963
_ORIENTATION = 274
_IMAGE_DESCRIPTION = 270
_RESOLUTION = {282, 283, 296}  # XResolution, YResolution, ResolutionUnit
# What the first directory of a picture says about the picture, not about how its pixels are stored.
_DESCRIPTIVE = {
    _IMAGE_DESCRIPTION,
    271,  # Make
    272,  # Model
    *_RESOLUTION,
    305,  # Software
    306,  # DateTime
    315,  # Artist
    316,  # HostComputer
    18246,  # Rating
    18249,  # RatingPercent
    33432,  # Copyright
    *range(40091, 40096),  # XPTitle ... XPSubject
    _EXIF,
    _GPS,
}
# ImageDescription as scientific programs use it: the layout of the old pixels, wrong for the new
# ones.
_LAYOUT_DESCRIPTIONS = (b'{"shape"', b"ImageJ=", b"<?xml")

_SHORT, _LONG = 3, 4
_TYPE_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_BIG_TYPES = {16, 17, 18}
_RATIONALS = {5, 10}  # two numbers of 4 bytes


class ExifError(ValueError):
    """The EXIF block or TIFF directory cannot be read."""


@dataclass(frozen=True)
class _Value:
    type: int
    data: bytes  # little-endian, whatever the file is

    @property
    def count(self) -> int:
        return len(self.data) // _TYPE_SIZES[self.type]


_Directory = dict[int, "_Value | _Directory"]


@dataclass(frozen=True)
class _Layout:
    """Byte order and integer sizes of one file."""

    order: str  # "<" or ">"
    big: bool

    @property
    def header(self) -> str:
        return f"{self.order}2sHHHQ" if self.big else f"{self.order}2sHL"

    @property
    def entries(self) -> str:
        return f"{self.order}{'Q' if self.big else 'H'}"

    @property
    def entry(self) -> str:
        return f"{self.order}{'HHQ8s' if self.big else 'HHL4s'}"

    @property
    def offset(self) -> str:
        return f"{self.order}{'Q' if self.big else 'L'}"

    @property
    def inline(self) -> int:
        """Bytes that fit into an entry."""
        return struct.calcsize(self.offset)


def exif_of_tiff(tiff: bytes) -> bytes | None:
    """The EXIF block of the first page of a TIFF file: little-endian, with its TIFF header.

    None if the file has no entries that belong in one. Raises ExifError where its directories are
    broken.
    """
    layout, first = _read_header(tiff)
    found = _read_directory(tiff, first, layout)
    found = {
        tag: value
        for tag, value in found.items()
        if tag in _DESCRIPTIVE and not _describes_layout(tag, value)
    }
    if not found.keys() - _RESOLUTION:
        return None
    return _block(found)


def exif_of_result(exif: bytes, *, width: int, height: int) -> bytes:
    """The EXIF block for an upright result of width x height pixels, made from the source's block.

    The thumbnail is left out. Raises ExifError where the block cannot be read.
    """
    layout, first = _read_header(exif)
    directory = _read_directory(exif, first, layout)
    directory[_ORIENTATION] = _Value(_SHORT, struct.pack("<H", 1))
    photo = directory.get(_EXIF)
    if isinstance(photo, dict):
        photo[_PIXEL_WIDTH] = _Value(_LONG, struct.pack("<L", width))
        photo[_PIXEL_HEIGHT] = _Value(_LONG, struct.pack("<L", height))
    return _block(directory)


def tiff_with_exif(tiff: bytes, exif: bytes) -> bytearray:
    """Add the descriptive part of an EXIF block to a TIFF file.

    A new first directory is appended to the file; entries that the file has already win. Raises
    ExifError where either cannot be read, or where the result passes the 4 GiB of a plain TIFF.
    """
    exif_layout, first = _read_header(exif)
    added = {
        tag: value
        for tag, value in _read_directory(exif, first, exif_layout).items()
        if tag in _DESCRIPTIVE
    }
    layout, first = _read_header(tiff)
    at = len(tiff) + len(tiff) % 2
    directory = _written_directory(added | _read_directory(tiff, first, layout), layout, at=at)
    if not layout.big and at + len(directory) >= 2**32:
        raise ExifError("the TIFF file leaves no room for it within 4 GiB")
    result = bytearray(tiff)
    struct.pack_into(layout.offset, result, struct.calcsize(layout.header) - layout.inline, at)
    result += b"\0" * (at - len(tiff))
    result += directory
    return result


def _block(directory: _Directory) -> bytes:
    plain = _Layout("<", big=False)
    return struct.pack(plain.header, b"II", 42, 8) + _written_directory(directory, plain, at=8)


def _describes_layout(tag: int, value: _Value | _Directory) -> bool:
    return (
        tag == _IMAGE_DESCRIPTION
        and isinstance(value, _Value)
        and value.data.startswith(_LAYOUT_DESCRIPTIONS)
    )


def _read_header(data: bytes) -> tuple[_Layout, int]:
    """The file's layout and the offset of its first directory."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        raise ExifError(f"found {data[:4]!r} where a TIFF header was expected")
    layout = _Layout(order, big=struct.unpack_from(order + "H", data, 2)[0] == 43)
    try:
        return layout, struct.unpack_from(layout.header, data)[-1]
    except struct.error as error:
        raise ExifError(f"the TIFF header is cut off: {error}") from error


def _read_directory(data: bytes, at: int, layout: _Layout, within: int | None = None) -> _Directory:
    """The directory at an offset with the directories below it.

    Values of unknown type and values that lie outside of the file are left out.
    """
    try:
        (entries,) = struct.unpack_from(layout.entries, data, at)
        at += struct.calcsize(layout.entries)
        size = struct.calcsize(layout.entry)
        if entries * size > len(data) - at:
            raise ExifError(f"a directory of {entries} entries does not fit into the file")
        rows = [
            struct.unpack_from(layout.entry, data, at + index * size) for index in range(entries)
        ]
    except struct.error as error:
        raise ExifError(f"a directory lies outside of the file: {error}") from error

    directory: _Directory = {}
    for tag, kind, count, inline in rows:
        length = _TYPE_SIZES.get(kind, 0) * count
        if length > layout.inline:
            (offset,) = struct.unpack(layout.offset, inline)
            inline = data[offset : offset + length]
        if not 0 < length <= len(inline):
            continue
        value = _Value(kind, _reordered(kind, inline[:length], layout))
        # Directories are followed only where they belong (an interoperability directory only in the
        # EXIF directory), so that a cycle in a broken file comes to an end.
        if (
            tag in _DIRECTORIES
            and (tag == _INTEROPERABILITY) == (within == _EXIF)
            and within in (None, _EXIF)
        ):
            try:
                directory[tag] = _read_directory(
                    data, int.from_bytes(value.data, "little"), layout, within=tag
                )
            except ExifError:
                continue
        else:
            directory[tag] = value
    return directory


def _written_directory(directory: _Directory, layout: _Layout, *, at: int) -> bytes:
    """The bytes at offset `at`: the directory, its longer values, the directories below it."""
    fields = [
        (tag, value)
        for tag, value in sorted(directory.items())
        if layout.big or isinstance(value, dict) or value.type not in _BIG_TYPES
    ]
    rows = struct.pack(layout.entries, len(fields))
    tail_at = at + len(rows) + len(fields) * struct.calcsize(layout.entry) + layout.inline
    tail = b""
    for tag, value in fields:
        here = tail_at + len(tail)
        if isinstance(value, dict):
            kind, count, inline = (16 if layout.big else _LONG), 1, struct.pack(layout.offset, here)
            behind = _written_directory(value, layout, at=here)
        else:
            kind, count, inline = (
                value.type,
                value.count,
                _reordered(value.type, value.data, layout),
            )
            behind = b""
            if len(inline) > layout.inline:
                inline, behind = struct.pack(layout.offset, here), inline
        rows += struct.pack(layout.entry, tag, kind, count, inline.ljust(layout.inline, b"\0"))
        tail += behind + b"\0" * (len(behind) % 2)
    return rows + struct.pack(layout.offset, 0) + tail


def _reordered(kind: int, data: bytes, layout: _Layout) -> bytes:
    """Values converted from the file's byte order to little-endian, or back, which is the same."""
    if layout.order == "<":
        return data
    size = 4 if kind in _RATIONALS else _TYPE_SIZES[kind]
    return b"".join(data[start : start + size][::-1] for start in range(0, len(data), size))
