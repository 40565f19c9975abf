"""What files are made of: boxes of MP4 and MOV (ISO/IEC 14496-12), elements of Matroska (RFC 8794)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

SEGMENT, CLUSTER = 0x18538067, 0x1F43B675
"""Elements that may not tell how long they are; what is in them is given instead."""


def read_at(file: BinaryIO, at: int, count: int) -> bytes:
    """So many bytes of a file from one on; fewer at its end."""
    file.seek(at)
    return file.read(count)


def boxes(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each box from one byte to another, where its content begins, and its end, which
    lies behind ``end`` where it is cut off."""
    while at < end:
        head = read_at(file, at, 16)
        length, used = int.from_bytes(head[:4], "big"), 8
        if length == 1:
            length, used = int.from_bytes(head[8:16], "big"), 16
        if length < used:  # up to the end of the file, padding, or no box
            return
        yield head[4:8], at + used, max(at + length, at + used)
        at += length


def elements(file: BinaryIO, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The same of elements, by their numbers; one whose head is cut off has the number 0."""
    while at < end:
        head = read_at(file, at, 12)
        name, used = _number(head)
        length, more = _number(head[used:]) if used else (0, 0)
        if not more:
            yield 0, end, end + 1
            return
        at += used + more
        length &= ~(1 << 7 * more)
        if length == 2 ** (7 * more) - 1:  # not known
            if name not in (SEGMENT, CLUSTER):
                return
            yield name, at, at
            continue
        yield name, at, at + length
        at += length


def _number(data: bytes) -> tuple[int, int]:
    """A number with the bit that marks how many bytes it has, and these; none where it is cut."""
    used = 9 - data[0].bit_length() if data and data[0] else 0
    return (int.from_bytes(data[:used], "big"), used) if 0 < used <= len(data) else (0, 0)
