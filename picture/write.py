"""Writes the picture files of the command line: PNG, JPEG, WebP and TIFF, through libvips.

ICC profile, EXIF, XMP, IPTC, resolution and PNG text go from the picture read to the picture
written. What a format cannot hold is left out, with a warning in the log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from pathlib import Path

import numpy as np
import pyvips
from pyvips.enums import ForeignKeep, ForeignPngFilter

from .exif import ExifError, exif_of_result, tiff_with_exif
from .formats import (
    EXIF_PREFIX,
    JPEG,
    PNG,
    PNG_START,
    WEBP,
    Format,
    Metadata,
    Picture,
    PictureError,
    format_of_name,
    reason_of,
)

logger = logging.getLogger(__name__)

_BIG_TIFF_BYTES = 3 * 2**30  # a plain TIFF ends at 4 GiB
_BAND_SAMPLES = 2**22
"""Rows are turned into integers in bands of this size, so that no second copy as float is needed."""


def check_writable(path: Path, *, width: int, height: int) -> None:
    """Raise PictureError if the format of that name cannot hold a picture of this size."""
    file_format = format_of_name(path)
    if file_format is None:
        raise PictureError(
            f"cannot write '{path.suffix}' files; give a name in .png, .jpg, .webp or .tif"
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
    bits = min(picture.bits, file_format.bits)
    if bits < picture.bits:
        logger.warning(
            "%s: %s holds 8 bits per channel; 16 bits were rounded to 8", path, file_format.name
        )
    if picture.pixels.shape[2] == 4 and not file_format.alpha:
        logger.warning(
            "%s: %s holds no transparency; the picture is laid on white", path, file_format.name
        )
    samples = _samples(picture, file_format, bits)
    _write_whole(path, _encoded(samples, picture.metadata, file_format, quality, path), overwrite)


def _samples(picture: Picture, file_format: Format, bits: int) -> np.ndarray:
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


def _encoded(
    pixels: np.ndarray, metadata: Metadata, file_format: Format, quality: int | None, path: Path
) -> bytes | bytearray:
    height, width, channels = pixels.shape
    deep = pixels.dtype == np.uint16
    image = pyvips.Image.new_from_memory(
        pixels.data, width, height, channels, "ushort" if deep else "uchar"
    )
    colours = ("grey16" if deep else "b-w") if channels <= 2 else ("rgb16" if deep else "srgb")
    image = image.copy(
        interpretation=colours, xres=metadata.resolution[0], yres=metadata.resolution[1]
    )
    keep = ForeignKeep.ICC | ForeignKeep.XMP | ForeignKeep.IPTC | ForeignKeep.OTHER
    exif = _exif_of_result(metadata, width, height, path)
    if exif is not None:
        keep |= ForeignKeep.EXIF  # where there is none, libvips would make one
    for name, blob in (
        ("icc-profile-data", metadata.profile),
        ("exif-data", None if exif is None else EXIF_PREFIX + exif),
        ("xmp-data", metadata.xmp),
        ("iptc-data", metadata.iptc),
    ):
        if blob is not None:
            image.set_type(pyvips.GValue.blob_type, name, blob)  # pyright: ignore[reportArgumentType]
    try:
        if file_format is PNG:
            png = image.pngsave_buffer(filter=ForeignPngFilter.ALL, keep=keep)
            behind_header = len(PNG_START) + 25
            return png[:behind_header] + metadata.png_text + png[behind_header:]
        if file_format is JPEG:
            return image.jpegsave_buffer(Q=quality or 95, optimize_coding=True, keep=keep)
        if file_format is WEBP:
            lossless = quality is None
            effort = 1 if lossless else 4  # more takes twice the time for 1 % of the size
            return image.webpsave_buffer(
                lossless=lossless, Q=quality or 75, effort=effort, keep=keep
            )
        big = pixels.nbytes > _BIG_TIFF_BYTES
        tiff = image.tiffsave_buffer(
            compression="deflate", predictor="horizontal", resunit="inch", bigtiff=big, keep=keep
        )
    except pyvips.Error as error:
        raise PictureError(f"cannot be encoded as {file_format.name}{reason_of(error)}") from error
    if exif is None:
        return tiff
    try:
        return tiff_with_exif(tiff, exif)
    except ExifError as error:
        logger.warning("%s: the EXIF is left out: %s", path, error)
        return tiff


def _exif_of_result(metadata: Metadata, width: int, height: int, path: Path) -> bytes | None:
    if metadata.exif is None:
        return None
    try:
        return exif_of_result(metadata.exif, width=width, height=height)
    except ExifError as error:
        logger.warning("%s: the EXIF is left out: %s", path, error)
        return None


def _write_whole(path: Path, data: bytes | bytearray, overwrite: bool) -> None:
    beside = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("xb") as file:
            file.write(data)
        if path.exists() and not overwrite:
            raise PictureError(f"{path} exists and is not to be replaced")
        os.replace(beside, path)
    except OSError as error:
        raise PictureError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
