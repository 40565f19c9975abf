"""A picture file as plain rows in a file of its own, so that any part of it can be read.

Most formats can only be read from the top, and exact mode reads a picture twice. What lies beside
the pixels is `beside`'s, as for other pictures.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyvips

from ...common.leftovers import clear_away, put_in_place
from ..beside import field_of, metadata_of, turned_by_png
from ..container import PNG_START, png_chunk
from ..formats import GIF, PNG, TIFF, VIPS_ERRORS, Format, Metadata, PictureError, unreadable
from ..read import MAX_PIXELS, checked, depth_of, format_of_content, tell_of_frames, tell_of_lost
from ..samples import check_samples, without_others

_BAND_BYTES = 2**23
_HEAD = 32
"""Bytes by which a format is recognised."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the head of a picture file says.

    Attributes:
        height, width: of the upright picture, in pixels.
        bands: channels in the file: 1 (grey), 2 (grey, alpha), 3 (RGB), 4 (RGB, alpha).
        bits: per channel.
    """

    file_format: Format
    height: int
    width: int
    bands: int
    bits: int

    @property
    def channels(self) -> int:
        """Channels of `formats.Picture`: grey with alpha has four."""
        return 4 if self.bands == 2 else self.bands

    @property
    def spooled_bytes(self) -> int:
        """Bytes of the plain rows."""
        return self.height * self.width * self.bands * self.bits // 8


def read_header(path: Path, *, max_pixels: int = MAX_PIXELS) -> Header | None:
    """The head of a picture of a kind that can be read in bands; None for all others.

    Raises what `read.read_picture` raises.
    """
    with path.open("rb") as file:
        start = file.read(_HEAD)
    if not start:
        raise PictureError("the file is empty")
    try:
        file_format = format_of_content(start)
    except PictureError:
        return None
    if file_format is GIF:
        return None
    try:
        if file_format is TIFF:
            check_samples(_without_pixels(path, file_format))
        image = checked(_opened(path, file_format), path, max_pixels)
        turned = (field_of(image, "orientation") or 1) >= 5
        sides = (image.width, image.height) if turned else (image.height, image.width)
        return Header(
            file_format=file_format,
            height=sides[0],
            width=sides[1],
            bands=image.bands,
            bits=depth_of(image),
        )
    except VIPS_ERRORS as error:
        raise unreadable(file_format.name, error) from error


def read_middle(path: Path, header: Header, side: int) -> np.ndarray:
    """The middle of a picture, as it lies in the file: (h, w, 1 or 3) in [0, 1], at most ``side``
    each way, without alpha. It is decoded from the top. Raises PictureError for broken data."""
    try:
        image = checked(_opened(path, header.file_format), path, header.height * header.width)
        width, height = min(image.width, side), min(image.height, side)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        pixels = image.crop(left, top, width, height).numpy()
    except VIPS_ERRORS as error:
        raise unreadable(header.file_format.name, error) from error
    colours = 1 if header.bands <= 2 else 3
    return pixels.reshape(height, width, -1)[..., :colours] / (2**header.bits - 1)


def _opened(path: Path, file_format: Format) -> pyvips.Image:
    loader = getattr(pyvips.Image, file_format.loader.removesuffix("_buffer"))
    image = loader(os.fsencode(path), access="sequential", fail_on="error")
    if file_format is TIFF:
        image, others = without_others(image, _without_pixels(path, file_format))
        tell_of_lost(others, path)
    if file_format is PNG:
        image = turned_by_png(image, _without_pixels(path, file_format))  # pyright: ignore
    return image


class Spool:
    """The upright picture in a file of plain rows, of which any part can be read.

    Args:
        path: of the picture.
        spooled: where the rows are, or will be.
        header: of the picture.

    Raises PictureError for a broken picture, and OSError.
    """

    def __init__(self, path: Path, spooled: Path, header: Header) -> None:
        self.header = header
        self.height, self.width, self.channels = header.height, header.width, header.channels
        self._dtype = np.uint8 if header.bits == 8 else np.uint16
        self._row = header.width * header.bands * header.bits // 8
        self._lock = threading.Lock()
        self._band: tuple[int, np.ndarray] = 0, np.empty((0, 0, 0), self._dtype)
        try:
            image = _opened(path, header.file_format)
            source = checked(image, path, header.height * header.width)
            self.metadata = self._metadata(source, path)
            if not spooled.exists():
                tell_of_frames(
                    source, _without_pixels(path, header.file_format), header.file_format, path
                )  # pyright: ignore
                self._write(source, spooled)
        except VIPS_ERRORS as error:
            raise unreadable(header.file_format.name, error) from error
        self._file = spooled.open("rb", buffering=0)
        self.opaque = header.bands in (1, 3) or self._is_opaque()

    @property
    def grey(self) -> bool:
        """Whether the file is grey, as `formats.Picture` says it."""
        return self.header.bands <= 2

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """These rows and columns: (bottom - top, right - left, C) float32 in [0, 1]."""
        pixels = self._rows(top, bottom)[:, left:right]
        if self.header.bands == 2:
            pixels = pixels[:, :, [0, 0, 0, 1]]
        highest = np.float32(2**self.header.bits - 1)
        return np.divide(pixels, highest, dtype=np.float32)

    def _rows(self, top: int, bottom: int) -> np.ndarray:
        """Rows (h, W, bands) as they are in the file. Tiles beside each other share them."""
        with self._lock:
            first, band = self._band
            if not first <= top <= bottom <= first + len(band):
                first, band = top, self._read(top, bottom)
                self._band = first, band
            return band[top - first : bottom - first]

    def _read(self, top: int, bottom: int) -> np.ndarray:
        band = np.empty((bottom - top, self.width, self.header.bands), self._dtype)
        self._file.seek(top * self._row)
        room = memoryview(band).cast("B")
        while room:
            count = self._file.readinto(room)
            if not count:
                raise PictureError("the picture's rows on disk have been cut off")
            room = room[count:]
        return band

    def _is_opaque(self) -> bool:
        step = max(1, _BAND_BYTES // self._row)
        highest = 2**self.header.bits - 1
        return all(
            (self._read(top, min(top + step, self.height))[..., -1] == highest).all()
            for top in range(0, self.height, step)
        )

    def _metadata(self, source: pyvips.Image, path: Path) -> Metadata:
        size = self.width, self.height
        data = _without_pixels(path, self.header.file_format)
        metadata, lost = metadata_of(source, data, self.header.file_format, size)  # pyright: ignore
        tell_of_lost(lost, path)
        return metadata

    def _write(self, source: pyvips.Image, spooled: Path) -> None:
        """Write the upright picture's rows; the file appears when it is complete."""
        lying, upright = (spooled.with_name(f"{spooled.name}-{part}") for part in ("lying", "part"))
        turn = field_of(source, "orientation") or 1
        try:
            source.rawsave(os.fsencode(upright if turn == 1 else lying))
            if turn != 1:  # which needs rows from anywhere
                image = pyvips.Image.rawload(
                    os.fsencode(lying),
                    source.width,
                    source.height,
                    source.bands,
                    format=source.format,
                ).copy(interpretation=source.interpretation)
                image.set_type(pyvips.GValue.gint_type, "orientation", turn)
                image.autorot().rawsave(os.fsencode(upright))
                del image  # it holds the file open
            if upright.stat().st_size != self._row * self.height:
                raise PictureError("its rows do not fit on the disk")
            put_in_place(upright, spooled)
        finally:
            for path in (lying, upright):
                clear_away(path)


def _without_pixels(path: Path, file_format: Format) -> bytes | mmap.mmap:
    """The file, of which only those parts come into memory that are looked at; of a PNG, whose
    chunks are looked at one by one, the others than those of the pixels."""
    with path.open("rb") as file:
        if file_format is not PNG:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        found = [file.read(len(PNG_START))]
        with contextlib.suppress(struct.error):  # where it is cut off
            while True:
                length, kind = struct.unpack(">I4s", file.read(8))
                if kind in (b"IDAT", b"fdAT"):
                    file.seek(length + 4, 1)
                else:
                    found.append(png_chunk(kind, file.read(length)))
                    file.seek(4, 1)
                if kind == b"IEND":
                    found.append(file.read(1))  # of what is behind the picture, if anything
                    break
        return b"".join(found)
