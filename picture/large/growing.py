"""Finished rows in a file that grows, from which libvips reads them at the same time.

The file is an uncompressed BigTIFF: its directory says where every row will be. So libvips can
begin to read it before they are there, and waits where it comes to the end of them.
"""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import numpy as np
import pyvips

from ..tiff import Layout, Value, shorts, written_directory

_LAYOUT = Layout("<", big=True)
_STRIP_BYTES = 2**19
_LONG8 = 16


def _head(height: int, width: int, channels: int, bits: int) -> bytes:
    """Header and directory; the rows follow."""
    row = width * channels * bits // 8
    rows = min(max(1, _STRIP_BYTES // row), height)
    strips = -(-height // rows)
    counts = [rows * row] * (strips - 1) + [(height - (strips - 1) * rows) * row]

    def directory(start: int) -> bytes:
        entries = {
            256: _long8(width),
            257: _long8(height),
            258: shorts(*[bits] * channels),
            259: shorts(1),  # not compressed
            262: shorts(1 if channels <= 2 else 2),
            273: _long8(*(start + at * rows * row for at in range(strips))),
            277: shorts(channels),
            278: _long8(rows),
            279: _long8(*counts),
            284: shorts(1),
        }
        if channels in (2, 4):
            entries[338] = shorts(2)  # alpha that colours are not multiplied by
        return written_directory(dict(entries), _LAYOUT, at=16)

    start = 16 + len(directory(0))
    return struct.pack(_LAYOUT.header, b"II", 43, 8, 0, 16) + directory(start)


def _long8(*values: int) -> Value:
    return Value(_LONG8, struct.pack(f"<{len(values)}Q", *values))


class GrowingRows:
    """Rows (H, W, C) uint8 or uint16, written from the top, and read while they are.

    Args:
        path: the file. What is there of an earlier run is kept.

    Attributes:
        done: how many rows there are.
    """

    def __init__(self, path: Path, height: int, width: int, channels: int, bits: int) -> None:
        self.height, self.shape = height, (width, channels)
        self.dtype = np.dtype(np.uint8 if bits == 8 else np.uint16).newbyteorder("<")
        self._row = width * channels * bits // 8
        head = _head(height, width, channels, bits)
        self._start, self._end = len(head), len(head) + height * self._row
        self._news = threading.Condition()
        self._given_up = False
        self._file = path.open("r+b" if path.exists() else "x+b", buffering=0)
        found = self._file.seek(0, 2)
        if found < self._start:
            self._file.seek(0)
            self._file.write(head)
        self.done = min(max(found - self._start, 0) // self._row, height)
        self._lock = threading.Lock()

    @classmethod
    def bytes_of(cls, height: int, width: int, channels: int, bits: int) -> int:
        """Bytes of such a file."""
        return height * width * channels * bits // 8 + 2**16

    def write(self, top: int, rows: np.ndarray) -> None:
        """Write rows (h, W, C) from row ``top`` on, which are the next ones. Raises OSError."""
        left = memoryview(np.ascontiguousarray(rows, self.dtype)).cast("B")
        with self._lock:
            self._file.seek(self._start + top * self._row)
            while left:
                left = left[self._file.write(left) :]
        with self._news:
            self.done = top + len(rows)
            self._news.notify_all()

    def give_up(self) -> None:
        """No more rows will come, so nobody needs to wait for them."""
        with self._news:
            self._given_up = True
            self._news.notify_all()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def as_source(self) -> pyvips.SourceCustom:
        """The file for libvips. Reading waits for rows, and fails after `give_up`."""
        at = 0

        def read(size: int) -> bytes:
            nonlocal at
            with self._news:
                while at >= self._written < self._end and not self._given_up:
                    self._news.wait()
                size = min(size, self._written - at)
            if size <= 0:
                return b""
            with self._lock:
                self._file.seek(at)
                data = self._file.read(size)
            at += len(data)
            return data

        def seek(offset: int, whence: int) -> int:
            nonlocal at
            at = offset + (0, at, self._end)[whence]
            return at

        source = pyvips.SourceCustom()
        source.on_read(read)
        source.on_seek(seek)
        return source

    @property
    def _written(self) -> int:
        return self._start + self.done * self._row
