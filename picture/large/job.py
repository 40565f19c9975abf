"""One picture that is larger than memory: from its file to that of the result.

The result FILE appears when it is complete. Until then there is a folder FILE.partial beside it:

    state     what the result depends on, as JSON
    input     the picture's rows (`spool`)
    rows      the finished rows of the result (`growing`)
    result    the file, as far as it is encoded
    maps/     what the upscaling needs for itself

A run that resumes goes on behind the last row that is finished; the file is encoded anew, which
takes a small part of the time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyvips

from ...common.leftovers import clear_away
from ...common.lock import check_free, held
from ..convert import coloured_for
from ..embed import prepared
from ..formats import DEEPZOOM, Metadata, Picture, PictureError, format_to_write
from ..write import check_writable, coded_samples, tell_of_losses, teller
from .encode import FORMATS, Encoder, Kind, move_in_place
from .growing import GrowingRows
from .spool import Header, Spool

logger = logging.getLogger(__name__)

Upscale = Callable[[Spool, Callable[[int, np.ndarray], None], Path, int], None]
"""``upscale(picture, sink, folder, first)`` calls ``sink(top, rows)`` with the rows (h, W, C) float32
in [0, 1] of the result, from row ``first`` on, in order; its own files are in ``folder``."""
_SAMPLE = 2**20
GB = 10**9
TOLD = GB // 10
"""Bytes on the disk from which on they are said."""


def partial_folder(target: Path) -> Path:
    """Where the unfinished result of ``target`` is."""
    return target.with_name(f"{target.name}.partial")


def lock_path(target: Path) -> Path:
    """What the run holds that writes ``target``."""
    return target.with_name(f"{target.name}.partial.lock")


class LargeJob:
    """One picture to upscale into one file.

    Args:
        source: the picture.
        header: of it.
        size: height and width of the result.
        settings: what else the result depends on; resuming with other settings is refused.
        pyramid: of TIFF, a tiled pyramid.
        resume: go on with what an earlier run left, if there is something.
        overwrite: replace ``target``, and without ``resume`` also what an earlier run left.

    Raises PictureError for what cannot be done, before anything is written, and InUseError where
    another run writes ``target``; `run` does so, too.
    """

    def __init__(
        self,
        source: Path,
        target: Path,
        header: Header,
        *,
        size: tuple[int, int],
        settings: dict[str, Any] | None = None,
        quality: int | None = None,
        pyramid: bool = False,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.source, self.target, self.header, self.size = source, target, header, size
        self.overwrite = overwrite
        self.folder = partial_folder(target)
        height, width = size
        check_writable(target, width=width, height=height)
        file_format = format_to_write(target)
        assert file_format is not None
        if file_format not in FORMATS:
            raise PictureError(
                f"{file_format.name} is built in memory, for which this result is too large; write PNG, TIFF, JPEG "
                "or DeepZoom (.dzi)"
            )
        if target.exists() and not overwrite:
            raise PictureError(f"{target} exists and is not to be replaced")
        check_free(lock_path(target), target)
        self.kind = Kind(file_format=file_format, pyramid=pyramid, quality=quality)
        self._samples = Samples(self._blank(Metadata()), self.kind, lambda text: None)
        state = {
            "source": _identity(source),
            "size": list(size),
            "libvips": ".".join(str(pyvips.version(part)) for part in range(3)),
            "format": [file_format.name, self._samples.channels, self._samples.bits],
            **(settings or {}),
        }
        self._state = json.loads(json.dumps(state))
        self.done = 0
        """Rows of the result that are finished."""
        self.resumes = resume and self.folder.exists()
        if self.resumes:
            self._check_state()
            self.done = self._rows_done()
        elif (self.folder / "rows").exists() and not overwrite:
            raise PictureError(
                f"{self.folder} holds the unfinished result of an earlier run; resume it, or overwrite it"
            )

    @property
    def disk_required(self) -> int:
        """Bytes in the folder of the result, without what the upscaling needs for itself."""
        channels, bits = self._samples.channels, self._samples.bits
        rows = GrowingRows.bytes_of(*self.size, channels, bits)
        return self.header.spooled_bytes + rows + self.kind.bytes_of(rows)

    @property
    def disk_free(self) -> int:
        """Bytes that are free there, and those that an earlier run has taken."""
        folder = self.target.parent
        while not folder.exists():
            folder = folder.parent
        taken = 0
        if self.folder.exists():
            # blocks, because files may have holes
            files = (path for path in self.folder.rglob("*") if path.is_file())
            taken = sum(getattr(path.stat(), "st_blocks", 0) * 512 for path in files)
        return shutil.disk_usage(folder).free + taken

    def check_disk(self, more: int = 0) -> int:
        """Bytes that are needed, ``more`` of them by the upscaling; said in the log.

        Raises PictureError where they are not free.
        """
        needed = self.disk_required + more
        free = self.disk_free
        if needed > free:
            raise PictureError(
                f"needs {needed / GB:.1f} GB in the folder of the result, {self.target.parent}, where "
                f"{free / GB:.1f} GB are free; make room, or write to another disk"
            )
        level = logging.WARNING if needed >= TOLD else logging.INFO
        logger.log(
            level,
            "%s: needs %.1f GB in the folder of the result, where %.1f GB are free",
            *(self.source, needed / GB, free / GB),
        )
        return needed

    def run(self, upscale: Upscale) -> None:
        """Upscale the picture and write the file.

        After an exception the first ``done`` rows are in the folder, and what the upscaling has
        left for itself, and can be resumed; without either it is removed.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        with held(lock_path(self.target), self.target):
            self._run(upscale)

    def _run(self, upscale: Upscale) -> None:
        if not self.resumes:
            self._clear()
        self.folder.mkdir(parents=True, exist_ok=True)
        maps = self.folder / "maps"
        try:
            (self.folder / "state").write_text(json.dumps(self._state), encoding="utf-8")
            maps.mkdir(exist_ok=True)
            with contextlib.closing(
                Spool(self.source, self.folder / "input", self.header)
            ) as picture:
                self._write(picture, upscale, maps)
        except BaseException:
            with contextlib.suppress(OSError):
                maps.rmdir()  # only if it is empty
            if not self.done and not maps.exists():
                self._clear()
            raise
        self._clear()

    def _write(self, picture: Spool, upscale: Upscale, maps: Path) -> None:
        tell = teller(self.target)
        blank = self._blank(picture.metadata)
        tell_of_losses(blank, self.kind.file_format, tell)
        samples = Samples(blank, self.kind, tell)
        height, width = self.size
        beside = prepared(
            replace(picture.metadata, colour=samples.metadata.colour),
            self.kind.file_format,
            width=width,
            height=height,
            profile=samples.profile,
            tell=tell,
        )
        found = picture.metadata
        if self.kind.file_format is DEEPZOOM and (found.exif or found.xmp or found.png_text):
            tell("DeepZoom holds pixels alone: EXIF, XMP and texts are left out")
        written = self.folder / "result"
        self._remove(written)
        rows = GrowingRows(self.folder / "rows", *self.size, samples.channels, samples.bits)
        self.done = rows.done
        encoder = Encoder(rows, written, self.kind, beside)

        def sink(top: int, part: np.ndarray) -> None:
            if encoder.failed:
                encoder.finish()
            rows.write(top, samples.of(part))
            self.done = rows.done

        try:
            if rows.done < height:
                upscale(picture, sink, maps, rows.done)
            encoder.finish()
            if self.target.exists() and not self.overwrite:
                raise PictureError(f"{self.target} exists and is not to be replaced")
            move_in_place(written, self.target, self.kind.file_format)
        finally:
            encoder.stop()
            rows.close()
            self._remove(written)

    def _remove(self, written: Path) -> None:
        """Remove what an encoder has written."""
        for path in (written, written.with_name(f"{written.name}.dzi")):
            clear_away(path)
        shutil.rmtree(written.with_name(f"{written.name}_files"), ignore_errors=True)

    def _blank(self, metadata: Metadata) -> Picture:
        """A pixel of such a picture."""
        pixels = np.zeros((1, 1, self.header.channels), np.float32)
        grey = self.header.bands <= 2
        return Picture(pixels=pixels, bits=self.header.bits, grey=grey, metadata=metadata)

    def _rows_done(self) -> int:
        path = self.folder / "rows"
        if not path.exists():
            return 0
        samples = self._samples
        rows = GrowingRows(path, *self.size, samples.channels, samples.bits)
        rows.close()
        return rows.done

    def _check_state(self) -> None:
        """Raise PictureError if the earlier run would have made another result."""
        try:
            found = json.loads((self.folder / "state").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PictureError(
                f"{self.folder} is not the unfinished result of an earlier run; rename it"
            ) from error
        names = found.keys() | self._state.keys()
        differing = sorted(name for name in names if found.get(name) != self._state.get(name))
        if differing:
            raise PictureError(
                f"{self.folder} was made with other settings ({', '.join(differing)}); use the same ones, or "
                "overwrite it"
            )

    def _clear(self) -> None:
        """Remove what an earlier run left, or this one."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)


class Samples:
    """Turns rows into the integers of the file, as `write.write_picture` does it for pictures.

    Attributes:
        channels, bits: of the file.
        metadata, profile: that the file gets.
    """

    def __init__(self, blank: Picture, kind: Kind, tell: Callable[[str], None]) -> None:
        self.blank, self.kind = blank, kind
        self.bits = min(blank.bits, kind.file_format.bits)
        self._file_format = kind.file_format
        if kind.file_format is DEEPZOOM and kind.quality is not None:
            self._file_format = replace(kind.file_format, alpha=False)
        coloured, self.profile = coloured_for(blank, self._file_format, tell)
        self.metadata = coloured.metadata
        self.channels = coded_samples(coloured, self._file_format, self.bits).shape[2]

    def of(self, rows: np.ndarray) -> np.ndarray:
        """(h, W, C) float in [0, 1] -> (h, W, channels) uint8 or uint16."""
        picture = replace(self.blank, pixels=np.ascontiguousarray(rows))
        coloured, _ = coloured_for(picture, self._file_format, lambda text: None)
        return coded_samples(coloured, self._file_format, self.bits)


def _identity(path: Path) -> str:
    """A digest of the file's size, beginning and end."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_SAMPLE))
        size = file.seek(0, 2)
        file.seek(max(size - _SAMPLE, 0))
        digest.update(file.read())
    return f"{size}-{digest.hexdigest()}"
