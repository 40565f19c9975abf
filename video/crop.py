"""How much of its pictures a file does not want to be shown: Matroska's PixelCrop (RFC 9559, 5.1.4.1.28)
and the clean aperture of MP4 and MOV (ISO/IEC 14496-12, 12.1.4), which players cut off. FFmpeg tells
them where PyAV does not reach. Cropping that the codec says is done by its decoder."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from .units import CLUSTER, SEGMENT, boxes, elements, read_at

_TRACKS, _ENTRY, _VIDEO, _TYPE = 0x1654AE6B, 0xAE, 0xE0, 0x83
_SIDES = (0x54BB, 0x54AA, 0x54CC, 0x54DD)  # top, bottom, left, right
_DESCRIPTION = (b"mdia", b"minf", b"stbl", b"stsd")
_ENTRY_HEADS = 8, 78  # bytes before the first description, and before the boxes in it


class Crop(NamedTuple):
    """Rows and columns at the borders of pictures as stored."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what is left."""
        return height - self.top - self.bottom, width - self.left - self.right


def crop_of(file: Path | str | BinaryIO, kind: str, height: int, width: int) -> Crop:
    """What is cut off from pictures of this size in a file, or a seekable stream of one, of FFmpeg's
    format ``kind``; nothing where that would leave nothing."""
    if isinstance(file, str | Path):
        with Path(file).open("rb") as opened:
            return crop_of(opened, kind, height, width)
    position, size = file.tell(), file.seek(0, 2)
    crop = Crop()
    try:
        if "matroska" in kind.split(","):
            crop = _of_matroska(file, size)
        elif "mp4" in kind.split(","):
            crop = _of_mp4(file, size, height, width)
    finally:
        file.seek(position)  # where FFmpeg reads on
    return crop if min(crop) >= 0 and min(crop.size(height, width)) > 0 else Crop()


def cropped(samples: np.ndarray, crop: Crop) -> np.ndarray:
    """What is left of samples (planes, rows, columns); no copy."""
    _, height, width = samples.shape
    return samples[:, crop.top : height - crop.bottom, crop.left : width - crop.right]


def _of_matroska(file: BinaryIO, size: int) -> Crop:
    for name, begin, end in elements(file, 0, size):
        inside = [(name, begin, end)]
        if name == SEGMENT and end > begin:
            inside = elements(file, begin, min(end, size))
        for part, at, until in inside:
            if part == CLUSTER:
                return Crop()
            if part == _TRACKS:
                return _of_tracks(file, at, until)
    return Crop()


def _of_tracks(file: BinaryIO, at: int, end: int) -> Crop:
    for name, begin, until in elements(file, at, end):
        if name != _ENTRY:
            continue
        parts = {part: (one, to) for part, one, to in elements(file, begin, until)}
        if _VIDEO in parts and _value(file, *parts.get(_TYPE, (0, 0))) == 1:
            found = {
                part: _value(file, one, to) for part, one, to in elements(file, *parts[_VIDEO])
            }
            return Crop(*(found.get(side, 0) for side in _SIDES))
    return Crop()


def _value(file: BinaryIO, begin: int, end: int) -> int:
    return int.from_bytes(read_at(file, begin, min(end - begin, 8)), "big")


def _of_mp4(file: BinaryIO, size: int, height: int, width: int) -> Crop:
    for kind, begin, end in boxes(file, 0, size):
        if kind != b"moov":
            continue
        for track, at, until in boxes(file, begin, end):
            if track == b"trak" and (found := _of_track(file, at, until, height, width)):
                return found
    return Crop()


def _of_track(file: BinaryIO, at: int, end: int, height: int, width: int) -> Crop | None:
    """None for a track that is no video."""
    for name in _DESCRIPTION:
        inside = {kind: (begin, until) for kind, begin, until in boxes(file, at, end)}
        if name == b"minf" and read_at(file, *_handler(inside)) != b"vide":
            return None
        if name not in inside:
            return None
        at, end = inside[name]
    first, last = _ENTRY_HEADS
    for _, begin, until in boxes(file, at + first, end):
        for kind, one, _ in boxes(file, begin + last, until):
            if kind == b"clap":
                return _of_aperture(read_at(file, one, 32), height, width)
        break
    return Crop()


def _handler(inside: dict[bytes, tuple[int, int]]) -> tuple[int, int]:
    """Where the kind of a track stands, and its length."""
    return inside.get(b"hdlr", (0, 0))[0] + 8, 4


def _of_aperture(data: bytes, height: int, width: int) -> Crop:
    numbers = struct.unpack(">8i", data) if len(data) == 32 else ()
    if not numbers or not all(numbers[1::2]):
        return Crop()
    across, down, right, below = (Fraction(a, b) for a, b in zip(numbers[::2], numbers[1::2]))
    left, top = right + (width - across) / 2, below + (height - down) / 2
    return Crop(
        math.ceil(top),
        math.ceil(height - down - top),
        math.ceil(left),
        math.ceil(width - across - left),
    )
