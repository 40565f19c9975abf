"""Writes the picture files of the command line: PNG, JPEG, WebP, TIFF and GIF, through libvips.

What lay beside the pixels goes from the picture read to the picture written (`embed`). What a
format cannot hold is left out, with a warning in the log.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from pyvips.enums import ForeignKeep, ForeignPngFilter

from ..common.leftovers import clear_away, put_in_place
from .convert import coloured_for
from .embed import Beside, embedded, prepared
from .formats import (
    GIF,
    JPEG,
    PNG,
    VIPS_ERRORS,
    WEBP,
    Format,
    Picture,
    PictureError,
    format_of_name,
    format_to_write,
    reason_of,
)
from .tiff import ExifError

logger = logging.getLogger(__name__)

GIF_HOLDS = "GIF holds 256 colours a frame and no soft transparency; colours are dithered to them"
_BIG_TIFF_BYTES = 3 * 2**30  # a plain TIFF ends at 4 GiB
_BAND_SAMPLES = 2**22
"""Rows are turned into integers in bands of this size, so that no second copy as float is needed."""


def check_writable(path: Path, *, width: int, height: int) -> None:
    """Raise PictureError if the format of that name cannot hold a picture of this size."""
    file_format = format_to_write(path)
    if file_format is None:
        raise PictureError(
            f"cannot write '{path.suffix}' files; give a name in .png, .jpg, .webp, .tif, .gif or .dzi"
        )
    if max(width, height) > file_format.longest_side:
        raise PictureError(
            f"the result has {width}x{height} pixels and {file_format.name} ends at "
            f"{file_format.longest_side} a side; write PNG or TIFF"
        )


def write_picture(
    picture: Picture, path: Path, *, quality: int | None = None, overwrite: bool = False
) -> None:
    """Write a picture in the format that the name stands for, whole or not at all.

    The file is written beside its place under another name and then moved there. `quality` (1 to
    100) is for JPEG (95 where None) and WebP (lossless where None). Raises PictureError, also where
    the file exists and `overwrite` is off.
    """
    height, width, _ = picture.pixels.shape
    check_writable(path, width=width, height=height)
    file_format = format_of_name(path)
    assert file_format is not None
    tell = teller(path)
    tell_of_losses(picture, file_format, tell)
    bits = min(picture.bits, file_format.bits)
    picture, profile = coloured_for(picture, file_format, tell)
    beside = prepared(
        picture.metadata, file_format, width=width, height=height, profile=profile, tell=tell
    )
    samples = coded_samples(picture, file_format, bits)
    encoded = _encoded(samples, file_format, quality)
    write_whole(path, _with_beside(encoded, samples, beside, file_format), overwrite)


def teller(path: Path) -> Callable[[str], None]:
    """What says something of a file in the log."""
    return lambda text: logger.warning("%s: %s", path, text)


def tell_of_losses(picture: Picture, file_format: Format, tell: Callable[[str], None]) -> None:
    """Say what of a picture's pixels its format cannot hold."""
    if file_format.bits < picture.bits:
        tell(f"{file_format.name} holds 8 bits per channel; 16 bits were rounded to 8")
    if picture.pixels.shape[2] == 4 and not file_format.alpha:
        tell(f"{file_format.name} holds no transparency; the picture is laid on white")
    if file_format is GIF:
        tell(GIF_HOLDS)


def coded_samples(picture: Picture, file_format: Format, bits: int) -> np.ndarray:
    """(H, W, C) integers with the channels that the file will have; halves are rounded up."""
    height, width, channels = picture.pixels.shape
    grey_alpha = picture.grey and channels == 4
    flat = channels == 4 and not file_format.alpha
    written = (2 if grey_alpha else channels) - flat
    samples = np.empty((height, width, written), np.uint8 if bits == 8 else np.uint16)
    rows = max(1, _BAND_SAMPLES // (width * channels))
    for top in range(0, height, rows):
        band = np.clip(picture.pixels[top : top + rows], 0, 1)
        if grey_alpha:
            band = np.concatenate(
                [band[:, :, :3].mean(axis=2, keepdims=True), band[:, :, 3:]], axis=2
            )
        if flat:
            band = band[:, :, :-1] * band[:, :, -1:] + (1 - band[:, :, -1:])
        samples[top : top + rows] = band * (2**bits - 1) + 0.5
    return samples


def _encoded(pixels: np.ndarray, file_format: Format, quality: int | None) -> bytes:
    """The pixels alone."""
    height, width, channels = pixels.shape
    deep = pixels.dtype == np.uint16
    image = pyvips.Image.new_from_memory(
        pixels.data, width, height, channels, "ushort" if deep else "uchar"
    )
    colours = ("grey16" if deep else "b-w") if channels <= 2 else ("rgb16" if deep else "srgb")
    image = image.copy(interpretation=colours)
    try:
        if file_format is PNG:
            return image.pngsave_buffer(**PNG_OPTIONS)
        if file_format is JPEG:
            return image.jpegsave_buffer(**jpeg_options(quality))
        if file_format is WEBP:
            return image.webpsave_buffer(**webp_options(quality), keep=ForeignKeep.NONE)
        if file_format is GIF:
            return image.gifsave_buffer(keep=ForeignKeep.NONE)
        return image.tiffsave_buffer(**tiff_options(pixels.nbytes))
    except VIPS_ERRORS as error:
        raise PictureError(f"cannot be encoded as {file_format.name}{reason_of(error)}") from error


PNG_OPTIONS = {"filter": ForeignPngFilter.ALL, "keep": ForeignKeep.NONE}
"""Of libvips."""


def jpeg_options(quality: int | None) -> dict[str, Any]:
    """Of libvips."""
    return {"Q": quality or 95, "optimize_coding": True, "keep": ForeignKeep.NONE}


def tiff_options(samples: int) -> dict[str, Any]:
    """Of libvips, for so many bytes of pixels."""
    return {
        "compression": "deflate",
        "predictor": "horizontal",
        "bigtiff": samples > _BIG_TIFF_BYTES,
        "keep": ForeignKeep.NONE,
    }


def webp_options(quality: int | None) -> dict[str, Any]:
    """Of libvips: lossless where no quality is given."""
    # more effort takes twice the time for 1 % of the size
    return {"lossless": quality is None, "Q": quality or 75, "effort": 1 if quality is None else 4}


def _with_beside(
    encoded: bytes, samples: np.ndarray, beside: Beside, file_format: Format
) -> bytes | bytearray:
    height, width, channels = samples.shape
    sides = {"width": width, "height": height}
    try:
        return embedded(encoded, beside, file_format, **sides, alpha=channels in (2, 4))
    except ExifError as error:
        raise PictureError(f"its metadata cannot be written: {error}") from error


def write_whole(path: Path, data: bytes | bytearray, overwrite: bool) -> None:
    """Write a file under another name beside its place and move it there."""
    beside = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("xb") as file:
            file.write(data)
        if path.exists() and not overwrite:
            raise PictureError(f"{path} exists and is not to be replaced")
        put_in_place(beside, path)
    except OSError as error:
        raise PictureError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        clear_away(beside)
