"""The command line on many devices: its files as tasks of `cluster.crew`."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..cluster.checkpoint import files_of
from ..cluster.connection import ClusterError, connected
from ..cluster.crew import Crew, Done, Task
from ..cluster.parts import UNSEEN, stamp_of
from ..cluster.places import cluster_places, local_places
from ..cluster.segments import Segments, value_of
from ..cluster.worker import Answer
from .console import reason, show
from .model import Upscaler, UsageError
from .run import Bar, Outcome
from .work import FileOptions, upscale_file

if TYPE_CHECKING:
    from ..picture.files import Job

WORKER = "fdat_dense_iso.command.worker:FileWorker"


@contextlib.contextmanager
def crew_for(
    upscaler: Upscaler,
    files: FileOptions,
    *,
    devices: str,
    address: str | None,
    threads: int | None,
    model_options: list[str],
    options: dict[str, Any],
    on_wait: Callable[[], None],
) -> Iterator[Crew]:
    """The workers that ``--devices`` and ``--cluster`` ask for, with the model loaded.

    ``options`` are those that `load_upscaler` takes. Raises UsageError.
    """
    checkpoints = [files_of(one.model) for one in upscaler.choices]
    try:
        places = None if address else local_places(devices, threads)
        cpus = sum(place.threads for place in places) if places else None
        with connected(address, cpus=cpus) as ray:
            found = places or cluster_places(ray, devices, threads)
            machines = sum(node["Alive"] for node in ray.nodes()) if address else 1
            arguments = {
                "model_options": model_options,
                "options": options,
                "folder": os.getcwd(),
                "files": replace(files, sharing=-(-len(found) // machines)),
            }
            with Crew(ray, found, WORKER, arguments, [checkpoints], on_wait=on_wait) as crew:
                yield crew
    except ClusterError as error:
        raise UsageError(str(error)) from error


def together(
    jobs: Sequence[Job],
    crew: Crew,
    upscaler: Upscaler,
    files: FileOptions,
    bar: Bar,
    console: Console,
) -> Iterator[Outcome]:
    """Upscale pictures all at a time, the largest first, then videos, each by all workers."""
    from ..picture.files import is_video

    pictures = [job for job in jobs if not is_video(job.target)]
    yield from upscale_pictures(pictures, crew, files, bar)
    done = len(pictures)
    for job in jobs:
        if not is_video(job.target):
            continue
        bar.workers(f"{job.source.name}, frames", crew.size, done)
        progress = partial(bar.within, done)
        segments = partial(Segments, crew)
        try:
            line, whole = upscale_file(
                job, upscaler, files, progress, partial(show, console), elsewhere=segments
            )
            yield Outcome(job, line, whole)
        except Exception as error:
            yield Outcome(job, error=error)
        done += 1


def upscale_pictures(
    jobs: Sequence[Job], crew: Crew, files: FileOptions, bar: Bar
) -> Iterator[Outcome]:
    """Upscale pictures; each outcome when it is known."""
    from ..picture.write import write_whole

    with contextlib.ExitStack() as cleanup:
        tokens = {
            folder: cleanup.enter_context(token_in(folder))
            for folder in {job.target.parent for job in jobs}
        }

        def task(job: Job, content: bytes | None = None) -> Task:
            arguments = (job, tokens[job.target.parent], stamp_of(job.source), content)
            return Task("picture", arguments, job)

        waiting = deque(task(job) for job in sorted(jobs, key=pixels, reverse=True))
        bar.workers("pictures", crew.size, 0)
        for number, done in enumerate(_answered(crew, waiting, task), 1):
            job = done.task.about
            try:
                line = value_of(done)
                result = crew.value(done.payload)
                if result is not None:
                    write_whole(job.target, result, files.overwrite)
                yield Outcome(job, line)
            except Exception as error:
                yield Outcome(job, error=error)
            bar.workers("pictures", crew.size, number)


def _answered(
    crew: Crew, waiting: deque[Task], again: Callable[[Job, bytes], Task]
) -> Iterator[Done]:
    """What the workers answer; to those that do not see a picture its content is sent."""
    for done in crew.run(waiting):
        if done.answer.value != UNSEEN:
            yield done
            continue
        try:
            waiting.appendleft(again(done.task.about, done.task.about.source.read_bytes()))
        except OSError as error:
            yield Done(done.task, Answer(error=reason(error)))


@contextlib.contextmanager
def token_in(folder: Path) -> Iterator[str | None]:
    """A file by which workers know that they see the folder, or the one above it that exists; None
    where none can be made."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    token = folder / f".{secrets.token_hex(8)}.part"
    try:
        token.touch()
    except OSError:
        yield None
        return
    try:
        yield str(token)
    finally:
        token.unlink(missing_ok=True)


def pixels(job: Job) -> int:
    """How large a picture is, as its header says; where it does not, as many as the file has
    bytes."""
    from ..picture.large.spool import read_header

    with contextlib.suppress(OSError, ValueError):
        if header := read_header(job.source):
            return header.width * header.height
    stamp = stamp_of(job.source)
    return stamp[0] if stamp else 0
