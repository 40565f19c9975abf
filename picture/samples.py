"""What the samples of a TIFF picture are, where libvips takes them for something else."""

from __future__ import annotations

import mmap

from .exif import first_directory
from .formats import PictureError
from .tiff import ExifError, Value

_COMPRESSION, _PHOTOMETRIC = 259, 262
_YCBCR, _JPEG = 6, (6, 7)


def check_samples(tiff: bytes | mmap.mmap) -> None:
    """Raise PictureError for Y'CbCr that no JPEG decoder makes RGB; libvips gives it as it is."""
    try:
        directory = first_directory(tiff)  # pyright: ignore[reportArgumentType]
    except ExifError:
        return
    tags = [directory.get(tag) for tag in (_PHOTOMETRIC, _COMPRESSION)]
    photometric, compression = (
        int(tag.numbers[0]) if isinstance(tag, Value) and tag.numbers else None for tag in tags
    )
    if photometric == _YCBCR and compression not in _JPEG:
        raise PictureError("it holds Y'CbCr colours; supported are grey, RGB and CMYK: convert it")
