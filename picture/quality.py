"""The quality that a JPEG file was compressed with, from its table of luminance."""

from __future__ import annotations

import mmap

from .container import TABLES, jpeg_segments

STANDARD_SUM = 3688
"""Of the 64 steps of table K.1 in ITU-T T.81, which is quality 50 in libjpeg's counting."""


def jpeg_quality(data: bytes | mmap.mmap) -> int | None:
    """1 to 100 in libjpeg's counting, rounded; None where the file is no JPEG or has no table.

    Cameras have tables of their own; the mean of their steps decides then. Qualities below 20 come
    out as up to 13, since no step is larger than 255.
    """
    if data[:2] != b"\xff\xd8":
        return None
    for marker, body in jpeg_segments(data)[0]:
        at = 0
        while marker == TABLES and at < len(body):
            wide, number = divmod(body[at], 16)
            length = 128 if wide else 64
            steps = body[at + 1 : at + 1 + length]
            if number == 0 and len(steps) == length:
                total = sum(steps[1::2]) + 256 * sum(steps[::2]) if wide else sum(steps)
                percent = max(1.0, 100 * total / STANDARD_SUM)
                return max(1, round(100 - percent / 2 if percent <= 100 else 5000 / percent))
            at += 1 + length
    return None
