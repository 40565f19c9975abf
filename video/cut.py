"""Whether a file stops in the middle of what its format is made of, as those do that were not copied
or recorded to their end: for formats whose headers do not say how long the file is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_TAIL = 2**20  # bytes at the end of a transport stream that are looked at
_LEAST = 4  # packets in a row that show how long they are
_LENGTHS = {
    188: 0,
    192: 4,
    204: 0,
}  # of packets, and what comes before them (ISO/IEC 13818-1, M2TS)
_CONTAINERS = (0x18538067, 0x1F43B675)  # of Matroska: Segment, Cluster


def stops_early(file: Path | str | BinaryIO, kind: str) -> bool:
    """Whether a file, or a seekable stream of one, of FFmpeg's format ``kind`` surely lacks its end.

    Known for MPEG-TS (a packet is cut, or one of a stream that says how long it is), MP4 and MOV
    (a box is longer than the file), Ogg (the last page is no end) and Matroska (an element is longer).
    """
    if isinstance(file, str | Path):
        with Path(file).open("rb") as opened:
            return stops_early(opened, kind)
    position = file.tell()
    try:
        return _stops(file, kind, file.seek(0, os.SEEK_END))
    finally:
        file.seek(position)  # where FFmpeg reads on


def _stops(file: BinaryIO, kind: str, size: int) -> bool:
    if kind == "mpegts":
        return _stops_ts(file, size)
    if "mp4" in kind.split(","):
        return _stops_boxes(file, size)
    if kind == "ogg":
        return _stops_ogg(file, size)
    return "matroska" in kind.split(",") and _stops_matroska(file, size)


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _stops_ts(file: BinaryIO, size: int) -> bool:
    head = _read(file, 0, 8 * 204)
    for length, before in _LENGTHS.items():
        if head[before : before + (_LEAST - 1) * length + 1 : length] == b"G" * _LEAST:
            break
    else:
        return False
    if size % length:
        return True
    begin = max(size - _TAIL // length * length, 0)
    tail = _read(file, begin, size - begin)
    left: dict[int, int] = {}  # bytes that the packet of a stream still lacks
    for at in range(before, len(tail), length):
        packet = tail[at : at + 188]
        stream = int.from_bytes(packet[1:3], "big") & 0x1FFF
        start = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
        if not packet[3] & 0x10 or packet[0] != 0x47:
            continue
        body = packet[start:]
        if packet[1] & 0x40:
            is_packet = body[:3] == b"\0\0\1" and len(body) >= 6
            length_told = int.from_bytes(body[4:6], "big") if is_packet else 0
            left[stream] = length_told + 6 - len(body) if length_told else 0
        elif left.get(stream, 0) > 0:
            left[stream] -= len(body)
    return any(count > 0 for count in left.values())


def _stops_boxes(file: BinaryIO, size: int) -> bool:
    at = 0
    while len(head := _read(file, at, 16)) >= 8:
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:16], "big") if length == 1 else length
        if length < 8:  # to the end of the file, or no box
            return False
        at += length
    return at > size or any(head)


def _stops_ogg(file: BinaryIO, size: int) -> bool:
    begin = max(size - 65536 - 512, 0)  # the longest page
    tail = _read(file, begin, size - begin)
    at = tail.rfind(b"OggS\0")
    if at < 0 or len(tail) < at + 27:
        return True
    segments = tail[at + 27 : at + 27 + tail[at + 26]]
    whole = len(tail) - at >= 27 + tail[at + 26] + sum(segments)
    return not whole or not tail[at + 5] & 4


def _stops_matroska(file: BinaryIO, size: int) -> bool:
    at = 0
    while at < size:
        head = _read(file, at, 12)
        name, used = _number(head, marked=True)
        length, more = _number(head[used:], marked=False) if used else (0, 0)
        if not more:
            return True
        at += used + more
        unknown = length == 2 ** (7 * more) - 1
        if unknown and name not in _CONTAINERS:
            return False
        if not unknown and name == _CONTAINERS[0]:
            return at + length > size
        at += 0 if unknown else length
    return at > size


def _number(data: bytes, *, marked: bool) -> tuple[int, int]:
    """A number of EBML's (RFC 8794), with its marker or without, and its bytes; none where it is cut."""
    used = 9 - data[0].bit_length() if data and data[0] else 0
    if not used or used > len(data):
        return 0, 0
    value = int.from_bytes(data[:used], "big")
    return value if marked else value & ~(1 << 7 * used), used
