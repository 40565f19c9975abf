"""Directories of TIFF files and of EXIF blocks, which are small TIFF files (TIFF 6.0, section 2;
Exif 2.32, section 4.6; BigTIFF as libtiff defines it).

    header   byte order, 42 or 43 (BigTIFF), offset of the first directory
    entry    tag, type, count, value (or its offset where it does not fit)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

EXIF, GPS, INTEROPERABILITY = 34665, 34853, 40965
_DIRECTORIES = {EXIF, GPS, INTEROPERABILITY}
ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7
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
class Value:
    """The value of an entry, of a type that TIFF numbers."""

    type: int
    data: bytes  # little-endian, whatever the file is

    @property
    def count(self) -> int:
        return len(self.data) // _TYPE_SIZES[self.type]

    @property
    def numbers(self) -> list[Fraction]:
        """Of unsigned integers and rationals; what is divided by 0 is left out."""
        if self.type == RATIONAL:
            pairs = struct.iter_unpack("<LL", self.data)
            return [Fraction(above, below) for above, below in pairs if below]
        kind = {1: "B", SHORT: "H", LONG: "L"}.get(self.type)
        if kind is None:
            return []
        return [Fraction(value) for (value,) in struct.iter_unpack("<" + kind, self.data)]

    @property
    def text(self) -> str:
        """Of ASCII, which may hold UTF-8."""
        return self.data.split(b"\0")[0].decode("utf-8", "replace")


def shorts(*values: int) -> Value:
    """Integers of 2 bytes."""
    return Value(SHORT, struct.pack(f"<{len(values)}H", *values))


def long(value: int) -> Value:
    """An integer of 4 bytes."""
    return Value(LONG, struct.pack("<L", value))


def rational(value: Fraction) -> Value:
    """A fraction of two integers of 4 bytes."""
    return Value(RATIONAL, struct.pack("<LL", value.numerator, value.denominator))


def ascii_text(text: str) -> Value:
    """ASCII by its name; readers take UTF-8."""
    return Value(ASCII, text.encode() + b"\0")


Directory = dict[int, "Value | Directory"]


@dataclass(frozen=True)
class Layout:
    """Byte order and integer sizes of one file."""

    order: str  # "<" or ">"
    big: bool

    @property
    def header(self) -> str:
        return f"{self.order}2sHHHQ" if self.big else f"{self.order}2sHL"

    @property
    def first_at(self) -> int:
        """Where in the header the offset of the first directory is."""
        return struct.calcsize(self.header) - self.inline

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


def read_header(data: bytes) -> tuple[Layout, int]:
    """The file's layout and the offset of its first directory."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        raise ExifError(f"found {data[:4]!r} where a TIFF header was expected")
    layout = Layout(order, big=struct.unpack_from(order + "H", data, 2)[0] == 43)
    try:
        return layout, struct.unpack_from(layout.header, data)[-1]
    except struct.error as error:
        raise ExifError(f"the TIFF header is cut off: {error}") from error


def read_directory(data: bytes, at: int, layout: Layout, within: int | None = None) -> Directory:
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

    directory: Directory = {}
    together = 0
    for tag, kind, count, inline in rows:
        length = _TYPE_SIZES.get(kind, 0) * count
        if length > layout.inline:
            (offset,) = struct.unpack(layout.offset, inline)
            inline = data[offset : offset + length]
        if not 0 < length <= len(inline):
            continue
        together += length
        if together > len(data):  # entries that share what they hold would fill the memory
            raise ExifError("its entries hold more than the file")
        value = Value(kind, _reordered(kind, inline[:length], layout))
        # Directories are followed only where they belong (an interoperability directory only in the
        # EXIF directory), so that a cycle in a broken file comes to an end.
        if (
            tag in _DIRECTORIES
            and (tag == INTEROPERABILITY) == (within == EXIF)
            and within in (None, EXIF)
        ):
            try:
                directory[tag] = read_directory(
                    data, int.from_bytes(value.data, "little"), layout, within=tag
                )
            except ExifError:
                continue
        else:
            directory[tag] = value
    return directory


def next_directory(data: bytes, at: int, layout: Layout) -> int:
    """Where the directory after the one at an offset is; 0 for none."""
    (entries,) = struct.unpack_from(layout.entries, data, at)
    at += struct.calcsize(layout.entries) + entries * struct.calcsize(layout.entry)
    return struct.unpack_from(layout.offset, data, at)[0]


def written_directory(
    directory: Directory, layout: Layout, *, at: int, following: int = 0
) -> bytes:
    """The bytes at offset `at`: the directory, its longer values, the directories below it.

    `following` is the offset of the next directory."""
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
            kind, count, inline = (16 if layout.big else LONG), 1, struct.pack(layout.offset, here)
            behind = written_directory(value, layout, at=here)
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
    return rows + struct.pack(layout.offset, following) + tail


def _reordered(kind: int, data: bytes, layout: Layout) -> bytes:
    """Values converted from the file's byte order to little-endian, or back, which is the same."""
    if layout.order == "<":
        return data
    size = 4 if kind in _RATIONALS else _TYPE_SIZES[kind]
    return b"".join(data[start : start + size][::-1] for start in range(0, len(data), size))
