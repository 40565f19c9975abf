"""What a worker of `cluster` does for the command line: pictures, and parts of videos."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..cluster.checkpoint import scratch, written
from ..cluster.parts import UNSEEN, PartWorker, Stamp, stamp_of
from ..cluster.worker import named
from ..common.printable import printable
from ..picture.files import Job
from ..picture.formats import DEEPZOOM, PictureError, format_to_write
from .automatic import choosing
from .console import reason
from .model import Upscaler, load_upscaler
from .work import FileOptions, upscale_file

logger = logging.getLogger(__name__)


class FileWorker(PartWorker):
    """A model on one device, and files for it; or two, of which one is chosen for each file.

    Args:
        checkpoints: the files of each model by their names, the model first.
        model_options, options, device, threads: as for `load_upscaler`.
        folder: the one in which the command was called, which relative paths belong to.
        files: how files are read and written.
    """

    reason = staticmethod(reason)

    def __init__(
        self,
        checkpoints: Sequence[dict[str, bytes]],
        *,
        model_options: list[str],
        options: dict[str, Any],
        device: str,
        threads: int,
        folder: str,
        files: FileOptions,
    ) -> None:
        super().__init__()
        os.environ.setdefault("VIPS_CONCURRENCY", str(threads))
        with contextlib.suppress(OSError):  # not on this machine: then files come by value
            os.chdir(folder)
        import_files()
        load = partial(
            load_upscaler,
            model_options=model_options,
            device=device,
            threads=threads,
            options=options,
        )
        with scratch() as place:
            paths = [written(one, place) for one in checkpoints]
            self.by_file: Upscaler = choosing(load, *paths) if len(paths) > 1 else load(*paths)
            for one in self.by_file.choices:
                _ = one.digest  # while the file is there
        self.upscaler, _ = self.by_file.suited_to_videos(Path())
        self.files = files
        self._by_value = False

    def picture(
        self, job: Job, token: str | None, stamp: Stamp | None, content: bytes | None
    ) -> tuple[str, bytes | None]:
        """Upscale a picture; the line that says what was done, and the result where this machine
        cannot write it to its place.

        Args:
            token: a file that exists where the folder of the results is seen; None: by value.
            stamp: of the source.
            content: of the source, for workers that do not see it.
        """
        self.aliases.clear()
        if content is None and stamp != stamp_of(job.source):
            return UNSEEN, None
        if token is not None and not self._by_value and os.path.exists(token):
            try:
                return self._upscaled(job, content, job.target), None
            except (OSError, ValueError) as error:
                if not isinstance(error.__cause__ or error, OSError):
                    raise
                self._by_value = True  # this machine cannot write there, maybe the driver can
        if format_to_write(job.target) is DEEPZOOM:
            raise PictureError(
                f"{job.target} is many files, which a machine writes that sees their folder"
            )
        with scratch() as place:
            target = self._alias(place, job.target)
            return self._upscaled(job, content, target), target.read_bytes()

    def _upscaled(self, job: Job, content: bytes | None, target: Path) -> str:
        with contextlib.ExitStack() as cleanup:
            source = job.source
            if content is not None:
                source = self._alias(cleanup.enter_context(scratch()), job.source)
                source.write_bytes(content)
            here = replace(job, source=source, target=target)
            line, _ = upscale_file(here, self.by_file, self.files, _untold, _tell)
            return named(line, self.aliases)

    def _alias(self, folder: Path, path: Path) -> Path:
        """A file in ``folder`` that is called ``path`` in what is said."""
        self.aliases[f"{folder}{os.sep}"] = printable(str(path).removesuffix(path.name))
        return folder / path.name


def import_files() -> None:
    """Import now what reads and writes files, or the first of them would wait for it."""
    for name in ("..picture.animation", "..picture.large.job", "..video.parts", "psutil"):
        with contextlib.suppress(ImportError):  # told where it is needed
            importlib.import_module(name, __package__)


def _untold(done: int, total: int) -> None:
    """Progress within a picture, which nobody sees."""


def _tell(kind: str, text: str) -> None:
    """As `console.show`, where the driver shows it."""
    logger.warning("%s", text, extra={"kind": kind})
