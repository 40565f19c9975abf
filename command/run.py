"""Goes through the files of the command line: one after the other, and what is told of each."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..cluster.worker import ElsewhereError
from .console import printable, reason, say, show
from .model import Upscaler
from .work import FileOptions, upscale_file

if TYPE_CHECKING:
    from ..picture.files import Job


@dataclass(frozen=True)
class Outcome:
    """What became of a file: a line that says what was done and whether all of it was there, or
    what was raised."""

    job: Job
    line: str = ""
    whole: bool = True
    error: Exception | None = None


class Bar:
    """The bar of progress over all files; shown in a terminal."""

    def __init__(
        self, console: Console, total: int, check_interrupt: Callable[[], None], *, shown: bool
    ) -> None:
        self._check, self._total = check_interrupt, total
        self._shown = shown and console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._bar.add_task("", total=total)
        self._what, self._workers, self._begun, self._counted = "", 0, 0.0, 0

    def __enter__(self) -> Bar:
        if self._shown:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._bar.stop()

    def at(self, name: str, completed: int) -> None:
        """A file begins after so many others."""
        self._check()
        self._bar.update(self._task, description=printable(name), completed=completed)

    def within(self, completed: int, done: int, total: int) -> None:
        """A file has come so far after so many others; raises where the user wants to stop."""
        self._check()
        self._bar.update(self._task, completed=completed + done / max(total, 1))
        self._rate(done)

    def workers(self, what: str, workers: int, done: int) -> None:
        """So many files are done, by so many workers; ``what`` is counted from here on."""
        if what != self._what:
            self._what, self._begun, self._counted = what, time.monotonic(), 0
        self._workers = workers
        self._bar.update(self._task, completed=done)
        self._rate(done if what == "pictures" else 0)

    def _rate(self, done: int) -> None:
        """Tell how fast the workers are."""
        if self._workers:
            rate = done / max(time.monotonic() - self._begun, 1e-3)
            workers = "1 worker" if self._workers == 1 else f"{self._workers} workers"
            text = f"{printable(self._what)}: {rate:.1f}/s, {workers}"
            self._bar.update(self._task, description=text)


def one_after_the_other(
    jobs: Sequence[Job], upscaler: Upscaler, files: FileOptions, bar: Bar, console: Console
) -> Iterator[Outcome]:
    """Upscale files in this process."""
    for index, job in enumerate(jobs):
        bar.at(job.source.name, index)

        def progress(done: int, total: int, index: int = index) -> None:
            bar.within(index, done, total)

        try:
            yield Outcome(
                job, *upscale_file(job, upscaler, files, progress, partial(show, console))
            )
        except Exception as error:
            yield Outcome(job, error=error)


def report(
    outcomes: Iterable[Outcome], console: Console, *, quiet: bool, debug: bool
) -> tuple[int, int]:
    """Tell what became of each file; how many failed, and how many were damaged."""
    failed = damaged = 0
    with contextlib.closing(outcomes):  # type: ignore[type-var]
        for outcome in outcomes:
            error = outcome.error
            if error is None:
                damaged += not outcome.whole
                if not quiet:
                    say(outcome.line)
                continue
            failed += 1
            show(console, "error", f"{outcome.job.source}: {reason(error)}")
            if debug and isinstance(error, ElsewhereError):
                console.print(error.trace)
            elif debug:
                try:
                    raise error
                except Exception:
                    console.print_exception()
    return failed, damaged
