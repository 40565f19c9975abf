"""What the samples of a TIFF picture are, where libvips takes them for something else."""

from __future__ import annotations

import mmap

import pyvips

from .exif import first_directory, next_of
from .formats import PictureError
from .tiff import Directory, ExifError, Value

_SUB_FILE, _COMPRESSION, _PHOTOMETRIC, _EXTRA, _SUB_DIRECTORIES = 254, 259, 262, 338, 330
_DNG = 50706
_GREY, _RGB, _SEPARATED = (0, 1), 2, 5
_YCBCR, _JPEG = 6, (6, 7)
_UNREAD = {
    4: "a mask for another picture",
    8: "Lab colours",
    9: "Lab colours",
    10: "Lab colours",
    32803: "samples of a sensor (a raw photograph)",
    32844: "LogLuv colours",
    32845: "LogLuv colours",
    34892: "samples of a sensor (a raw photograph)",
}


def check_samples(tiff: bytes | mmap.mmap) -> None:
    """Raise PictureError for what libvips would read and show as something else: other colours,
    Y'CbCr that no JPEG decoder makes RGB, raw photographs, and pictures in front of which there is a
    smaller copy."""
    directory = _directory(tiff)
    photometric, compression = _number(directory, _PHOTOMETRIC), _number(directory, _COMPRESSION)
    if _DNG in directory:
        raise PictureError("it is a raw photograph (DNG): develop it to TIFF, PNG or JPEG first")
    if (_number(directory, _SUB_FILE) or 0) & 1 and (
        _SUB_DIRECTORIES in directory or next_of(tiff)  # pyright: ignore[reportArgumentType]
    ):
        raise PictureError(
            "its first picture is a small copy of another one, as in raw photographs: save the large one as PNG or TIFF"
        )
    what = _UNREAD.get(photometric or 0)
    if photometric == _YCBCR and compression not in _JPEG:
        what = "Y'CbCr colours"
    if what:
        raise PictureError(f"it holds {what}; supported are grey, RGB and CMYK: convert it")


def without_others(image: pyvips.Image, tiff: bytes | mmap.mmap) -> tuple[pyvips.Image, list[str]]:
    """The picture without a channel that is neither colour nor transparency, such as a selection
    that Photoshop keeps, and its name if there is one. libvips takes the first for transparency."""
    directory = _directory(tiff)
    extra = directory.get(_EXTRA)
    kinds = [int(kind) for kind in extra.numbers] if isinstance(extra, Value) else []
    photometric = _number(directory, _PHOTOMETRIC)
    colours = 1 if photometric in _GREY else {_RGB: 3, _SEPARATED: 4}.get(photometric or 0, 0)
    alpha = kinds[:1] in ([1], [2])
    if kinds[alpha:] != [0] or not colours or image.bands != colours + len(kinds):
        return image, []
    kept = image.extract_band(0, n=colours + alpha)
    deep = image.format == "ushort"
    name = {1: "grey16" if deep else "b-w", 3: "rgb16" if deep else "srgb", 4: "cmyk"}[colours]
    return kept.copy(interpretation=name), ["a channel that is neither colour nor transparency"]


def _directory(tiff: bytes | mmap.mmap) -> Directory:
    try:
        return first_directory(tiff)  # pyright: ignore[reportArgumentType]
    except ExifError:
        return {}


def _number(directory: Directory, tag: int) -> int | None:
    value = directory.get(tag)
    return int(value.numbers[0]) if isinstance(value, Value) and value.numbers else None
