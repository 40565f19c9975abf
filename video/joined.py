"""Files joined by bytes, of which FFmpeg reads the first alone: FLV, which is read on, and MP4, MOV
and WMV, which are told. It reads on by itself in MPEG-TS, MPEG-PS, AVI, Matroska and Ogg."""

from __future__ import annotations

import bisect
import io
from pathlib import Path

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_FLV, _FLV_TAGS = b"FLV\1", (8, 9, 18)


def inner_headers(path: Path) -> list[tuple[int, int]]:
    """Where the headers of further FLV files lie, and how long they are (Adobe's Flash Video File
    Format, annex E)."""
    found = []
    with path.open("rb") as file:
        at = _header_length(file.read(9))
        while at and (head := _bytes_at(file, at, 11)):
            if head[0] & 31 in _FLV_TAGS:
                at += 11 + int.from_bytes(head[1:4], "big") + 4
            elif length := _header_length(head[:9]):
                found.append((at, length))
                at += length
            else:
                break
    return found


def _header_length(header: bytes) -> int:
    """Of an FLV file; 0 for what is none."""
    if len(header) < 9 or not header.startswith(_FLV):
        return 0
    return int.from_bytes(header[5:9], "big") + 4


def is_joined(path: Path) -> bool:
    """Whether a second MP4, MOV or WMV file follows the first."""
    return _is_joined_mp4(path) or _is_joined_asf(path)


def _is_joined_asf(path: Path) -> bool:
    """Of WMV and the like (Microsoft's Advanced Systems Format: objects)."""
    at, headers = 0, 0
    with path.open("rb") as file:
        while len(head := _bytes_at(file, at, 24)) == 24:
            size = int.from_bytes(head[16:], "little")
            headers += head.startswith(_ASF)
            if not headers or size < 24:
                break
            at += size
    return headers > 1


def _is_joined_mp4(path: Path) -> bool:
    """Of MP4, MOV and the like (ISO/IEC 14496-12: boxes)."""
    at, movies, types = 0, 0, 0
    with path.open("rb") as file:
        while len(head := _bytes_at(file, at, 16)) >= 8:
            size, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if at == 0 and kind not in (b"ftyp", b"moov", b"wide", b"mdat", b"free", b"skip"):
                return False
            size = int.from_bytes(head[8:16], "big") if size == 1 else size
            movies, types = movies + (kind == b"moov"), types + (kind == b"ftyp")
            if size < 8 or kind == b"moof":  # fragments, all of which are read
                break
            at += size
    return movies > 1 and types > 1


def _bytes_at(file: io.BufferedReader, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


class Joined(io.RawIOBase):
    """A file without some of its parts: (where, how long), in their order."""

    def __init__(self, path: Path, without: list[tuple[int, int]]) -> None:
        self._file = path.open("rb")
        starts, begin = [0], 0  # of the parts that stay: here, and in the file
        self._places = [0]
        for at, length in without:
            starts.append(starts[-1] + at - begin)
            begin = at + length
            self._places.append(begin)
        self._starts = starts
        self._size = starts[-1] + self._file.seek(0, 2) - begin
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        part = bisect.bisect_right(self._starts, self._at) - 1
        end = self._starts[part + 1] if part + 1 < len(self._starts) else self._size
        left = max(end - self._at, 0)
        self._file.seek(self._places[part] + self._at - self._starts[part])
        data = self._file.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data

    def close(self) -> None:
        self._file.close()
        super().close()
