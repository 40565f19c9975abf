"""What a worker of `cluster` does for the command line: pictures, and parts of videos."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..picture.files import Job
from .console import error_console, reason
from .model import load_upscaler
from .work import FileOptions, upscale_file

UNSEEN = "unseen"
"""The answer of a worker that does not see the file at its path: it needs the content."""
_SHARED_MEMORY = Path("/dev/shm")

Stamp = tuple[int, int]


def stamp_of(path: Path) -> Stamp | None:
    """By what a worker knows that it sees the same file: size and time of change; None where it
    cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


class FileWorker:
    """A model on one device, and files for it.

    Args:
        checkpoint: the files of the model by their names, the model first.
        model_options, options, device, threads: as for `load_upscaler`.
        folder: the one in which the command was called, which relative paths belong to.
        files: how files are read and written.
    """

    reason = staticmethod(reason)

    def __init__(
        self,
        checkpoint: dict[str, bytes],
        *,
        model_options: list[str],
        options: dict[str, Any],
        device: str,
        threads: int,
        folder: str,
        files: FileOptions,
    ) -> None:
        os.environ.setdefault("VIPS_CONCURRENCY", str(threads))
        with contextlib.suppress(OSError):  # not on this machine: then files come by value
            os.chdir(folder)
        import_files()
        with scratch() as place:
            for name, content in checkpoint.items():
                (place / name).write_bytes(content)
            model = place / next(iter(checkpoint))
            self.upscaler = load_upscaler(model, model_options, device, threads, options)
        self.files = files
        self._by_value = False
        self._video: Any = None

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
        if content is None and stamp != stamp_of(job.source):
            return UNSEEN, None
        if token is not None and not self._by_value and os.path.exists(token):
            try:
                return self._upscaled(job, content, job.target), None
            except (OSError, ValueError) as error:
                if not isinstance(error.__cause__ or error, OSError):
                    raise
                self._by_value = True  # this machine cannot write there, maybe the driver can
        with scratch() as place:
            target = place / job.target.name
            line = self._upscaled(job, content, target)
            return line.replace(str(target), str(job.target)), target.read_bytes()

    def _upscaled(self, job: Job, content: bytes | None, target: Path) -> str:
        with contextlib.ExitStack() as cleanup:
            source = job.source
            if content is not None:
                source = cleanup.enter_context(scratch()) / job.source.name
                source.write_bytes(content)
            here = replace(job, source=source, target=target)
            line, _ = upscale_file(here, self.upscaler, self.files, _untold, error_console())
            return line.replace(str(source), str(job.source))

    def part(
        self, video: dict[str, Any], content: bytes | None, first: int, count: int, whole: bool
    ) -> tuple[Any, Any]:
        """Upscale some frames of a video.

        Args:
            video: see `many.Segments`.
            first, count: which frames.
            whole: encode them as a segment, which is the payload; else it is their samples.

        The value is pts and duration of the frames, fewer than ``count`` at the end, and what of
        the video is damaged, where it was read to its end.
        """
        from ..video.parts import samples_of, upscaled_part

        lead = min(self.upscaler.context, first)
        begin = first - lead
        reading = self._reading(video, content, begin)
        if reading is None:
            return UNSEEN, None
        encoder, samples = reading.form.encoder, []
        upscale = partial(self._frames(video), target=video["target"])
        add = encoder.add if whole else lambda frame: samples.append(samples_of(frame))
        try:
            times = upscaled_part(
                reading.parts.read(begin, lead + count + self.upscaler.context),
                reading.form,
                reading.source.orientation,
                upscale,
                video["size"],
                add,
                lead=lead,
                count=count,
            )
        except BaseException:
            self._close()
            raise
        payload: Any = samples
        if whole:
            payload = encoder.close() if times else b""
        return (times, reading.source.damage), payload

    def encode(
        self, video: dict[str, Any], content: bytes | None, *parts: Any
    ) -> tuple[Any, bytes]:
        """Encode the samples of the frames of a segment."""
        from ..video.parts import frame_of

        reading = self._reading(video, content, None)
        if reading is None:
            return UNSEEN, b""
        for samples in (one for part in parts for one in part):
            reading.form.encoder.add(frame_of(samples, video["encoding"]["pixel_format"]))
        return None, reading.form.encoder.close()

    def _frames(self, video: dict[str, Any]) -> Any:
        return self.upscaler.frames

    def _reading(self, video: dict[str, Any], content: bytes | None, first: int | None) -> Any:
        """The video, opened; None where this machine does not see it."""
        if self._video and self._video.key == video["key"]:
            if first is None or self._video.parts.reaches(first):
                return self._video
            content = content or self._video.content
        self._close()
        path = Path(video["source"])
        if content is None and stamp_of(path) != video["stamp"]:
            return None
        self._video = _Reading(path, content, video)
        return self._video

    def _close(self) -> None:
        if self._video:
            self._video.close()
            self._video = None


class _Reading:
    """A video that is read in parts, and what its result is like."""

    def __init__(self, path: Path, content: bytes | None, video: dict[str, Any]) -> None:
        from ..video import Encoding, VideoFile
        from ..video.form import ResultForm
        from ..video.parts import PartReader, Times

        self.key, self.content = video["key"], content
        file = path if content is None else io.BytesIO(content)
        self.source = VideoFile(file, max_pixels=video["max_pixels"])
        self.form = ResultForm(self.source, Encoding(**video["encoding"]), video["size"])
        times = video["times"]
        self.parts = PartReader(self.source, times and Times(*times))

    def close(self) -> None:
        self.source.__exit__(None, None, None)


def import_files() -> None:
    """Import now what reads and writes files, or the first of them would wait for it."""
    for name in ("..picture.animation", "..picture.large.job", "..video.parts", "psutil"):
        with contextlib.suppress(ImportError):  # told where it is needed
            importlib.import_module(name, __package__)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for what is not seen by others, in memory where there is such a place."""
    memory = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="upscale-", dir=memory) as folder:
        yield Path(folder)


def _untold(done: int, total: int) -> None:
    """Progress within a picture, which nobody sees."""
