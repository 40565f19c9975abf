"""Writes the file of a result while its rows grow, through libvips, in a thread of its own."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyvips
from pyvips.enums import ForeignKeep

from ...common.leftovers import put_in_place
from ..container import jpeg_segments
from ..embed import Beside, embedded, tiff_tags
from ..exif import directory_with_exif
from ..formats import DEEPZOOM, JPEG, PNG, TIFF, VIPS_ERRORS, Format, PictureError, reason_of
from ..tiff import ExifError
from ..write import PNG_OPTIONS, jpeg_options, tiff_options
from .growing import GrowingRows

FORMATS = (PNG, JPEG, TIFF, DEEPZOOM)
"""Formats that libvips writes row by row. It builds WebP and GIF in memory."""
_TILES = {"tile": True, "tile_width": 256, "tile_height": 256, "pyramid": True}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What file is written.

    Attributes:
        pyramid: a TIFF in tiles, with smaller copies of the picture behind it.
        quality: of JPEG.
    """

    file_format: Format
    pyramid: bool
    quality: int | None

    def bytes_of(self, samples: int) -> int:
        """Bytes of the file at most, for so many of pixels; noise does not shrink."""
        return (samples * 4 // 3 if self.pyramid or self.file_format is DEEPZOOM else samples) + (
            samples // 100 + 2**20
        )


class Encoder:
    """Writes a file from rows that grow; it begins at once.

    Args:
        path: the file, or of DeepZoom the folder's and the file's name without a suffix.
        beside: what the file gets beside the pixels.

    Attributes:
        failed: whether it has ended with an error, which `finish` raises.
    """

    def __init__(self, rows: GrowingRows, path: Path, kind: Kind, beside: Beside) -> None:
        self.rows, self.path, self.kind, self.beside = rows, path, kind, beside
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="picture-encode", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> bool:
        return self._error is not None

    def finish(self) -> None:
        """Wait until the file is complete. Raises PictureError."""
        while self._thread.is_alive():
            self._thread.join(0.2)  # so that Ctrl-C is heard
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End early, without an error; the file is not complete, or of no use."""
        self.rows.give_up()
        self._thread.join()

    def _run(self) -> None:
        try:
            source = self.rows.as_source()  # its callbacks live as long as this name
            image = pyvips.Image.tiffload_source(source, access="sequential", fail_on="error")
            self._write(image)
            del image, source
        except VIPS_ERRORS as error:
            name = self.kind.file_format.name
            self._error = PictureError(f"cannot be encoded as {name}{reason_of(error)}")
        except ExifError as error:
            self._error = PictureError(f"its metadata cannot be written: {error}")
        except BaseException as error:  # raised in the thread that waits
            self._error = error

    def _write(self, image: pyvips.Image) -> None:
        file_format, quality = self.kind.file_format, self.kind.quality
        if file_format is DEEPZOOM:
            suffix = ".png" if quality is None else f".jpg[Q={quality}]"
            image.dzsave(os.fsencode(self.path), suffix=suffix, keep=ForeignKeep.NONE)
        elif file_format is TIFF:
            options = tiff_options(self._samples * 4 // 3 if self.kind.pyramid else self._samples)
            options |= _TILES if self.kind.pyramid else {}
            image.tiffsave(os.fsencode(self.path), **options)
            self._append_directory()
        else:
            with self.path.open("xb") as file:
                changed = HeadFilter(file, _HEAD_ENDS[file_format], self._with_beside)
                target = changed.as_target()  # its callbacks live as long as this name
                with changed:
                    if file_format is PNG:
                        image.pngsave_target(target, **PNG_OPTIONS)
                    else:
                        image.jpegsave_target(target, **jpeg_options(quality))
                del target

    @property
    def _samples(self) -> int:
        width, channels = self.rows.shape
        return self.rows.height * width * channels * self.rows.dtype.itemsize

    def _with_beside(self, head: bytes) -> bytes:
        width, channels = self.rows.shape
        sides = {"width": width, "height": self.rows.height}
        alpha = channels in (2, 4)
        return bytes(embedded(head, self.beside, self.kind.file_format, **sides, alpha=alpha))

    def _append_directory(self) -> None:
        """As `exif.tiff_with_exif`, but the file stays where it is."""
        with self.path.open("r+b") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as tiff:
                about: Any = tiff
                layout, at, directory = directory_with_exif(
                    about, self.beside.exif, tiff_tags(self.beside)
                )
            file.seek(at)
            file.write(directory)
            file.seek(layout.first_at)
            file.write(struct.pack(layout.offset, at))


def _png_head_ends(data: bytes) -> bool:
    return b"IDAT" in data


def _jpeg_head_ends(data: bytes) -> bool:
    _, at = jpeg_segments(data)
    return data[at : at + 2] == b"\xff\xda"


_HEAD_ENDS = {PNG: _png_head_ends, JPEG: _jpeg_head_ends}


class HeadFilter:
    """Writes what libvips encodes to a file, the head changed, which is small.

    A context manager, which raises what went wrong here instead of what libvips says of it.

    Args:
        ends: whether the head is complete in what has come so far.
        change: from the head, and perhaps more, to what is written instead.
    """

    def __init__(
        self, file: BinaryIO, ends: Callable[[bytes], bool], change: Callable[[bytes], bytes]
    ) -> None:
        self.file, self.ends, self.change = file, ends, change
        self._head: bytes | None = b""
        self._error: BaseException | None = None

    def as_target(self) -> pyvips.TargetCustom:
        """For libvips."""
        target = pyvips.TargetCustom()
        target.on_write(self._write)
        return target

    def _write(self, data: bytes) -> int:
        try:
            if self._head is None:
                self.file.write(data)
            else:
                self._head += bytes(data)
                if self.ends(self._head):
                    self.file.write(self.change(self._head))
                    self._head = None
        except Exception as error:
            self._error = self._error or error
            return -1
        return len(data)

    def __enter__(self) -> HeadFilter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._error is not None:
            raise self._error


def move_in_place(written: Path, target: Path, file_format: Format) -> None:
    """Move a complete result to its place, which it replaces. Raises OSError."""
    if file_format is not DEEPZOOM:
        put_in_place(written, target)
        return
    # the small file is last: where it is, all of it is
    target.unlink(missing_ok=True)
    folder = target.with_name(f"{target.stem}_files")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
    put_in_place(written.with_name(f"{written.name}_files"), folder)
    put_in_place(written.with_name(f"{written.name}.dzi"), target)
