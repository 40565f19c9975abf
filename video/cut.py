"""Whether a file stops in the middle of what its format is made of, as those do that were not copied
or recorded to their end: for formats whose headers do not say how long the file is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from .units import boxes, elements, read_at

_TAIL = 2**20  # bytes at the end of a transport stream that are looked at
_LEAST = 4  # packets in a row that show how long they are
_LENGTHS = {
    188: 0,
    192: 4,
    204: 0,
}  # of packets, and what comes before them (ISO/IEC 13818-1, M2TS)


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


def _stops_ts(file: BinaryIO, size: int) -> bool:
    head = read_at(file, 0, 8 * 204)
    for length, before in _LENGTHS.items():
        if head[before : before + (_LEAST - 1) * length + 1 : length] == b"G" * _LEAST:
            break
    else:
        return False
    if size % length:
        return True
    begin = max(size - _TAIL // length * length, 0)
    tail = read_at(file, begin, size - begin)
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
    return max((end for _, _, end in boxes(file, 0, size)), default=0) > size


def _stops_ogg(file: BinaryIO, size: int) -> bool:
    begin = max(size - 65536 - 512, 0)  # the longest page
    tail = read_at(file, begin, size - begin)
    at = tail.rfind(b"OggS\0")
    if at < 0 or len(tail) < at + 27:
        return True
    segments = tail[at + 27 : at + 27 + tail[at + 26]]
    whole = len(tail) - at >= 27 + tail[at + 26] + sum(segments)
    return not whole or not tail[at + 5] & 4


def _stops_matroska(file: BinaryIO, size: int) -> bool:
    return max((end for _, _, end in elements(file, 0, size)), default=0) > size
