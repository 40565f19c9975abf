"""What the command line says, one line each on the error stream, and how it is interrupted."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator

import typer
from rich.console import Console

from ..common.printable import printable, shortened

Tell = Callable[[str, str], None]
"""``tell(kind, text)`` says a line as `show` does."""
_CLOSED = 141  # the exit code: 128 + SIGPIPE


def error_console() -> Console:
    """The error stream, without colours or wrapping of what is said."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def escape_unprintable() -> None:
    """What the encoding of an output lacks is escaped, as Windows' cp1252 makes it necessary where
    output goes to a file, so that no name of a file ends a run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """A line of the output. Where nobody reads it any more, as behind ``| head``, the program ends
    without a word and with the code of a shell for SIGPIPE, as other programs do."""
    try:
        typer.echo(text)
    except BrokenPipeError:
        # what is still buffered goes nowhere, or Python complains when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_CLOSED)


def folded(text: str, columns: int) -> str:
    """Text whose lines end at this column where a space allows it, and go on further in."""
    lines = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        lines.append(
            textwrap.fill(
                line,
                columns,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    return "\n".join(lines)


def show(console: Console, kind: str, text: str) -> None:
    """One line ``kind: text`` without control characters, and not too long."""
    console.print(f"{kind}: {shortened(text)}")


def reason(error: Exception) -> str:
    """What an exception says, with its name where that alone tells what happened."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    if text and isinstance(
        error, ValueError | OSError | RuntimeError | ImportError | AssertionError
    ):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class ConsoleHandler(logging.Handler):
    """Shows log messages as the command line's own: `warning: ...`; the same one only once.

    A record with a ``kind`` is one of the other lines, which another process had to say.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if kind := getattr(record, "kind", None):
            show(self.console, kind, record.getMessage())
            return
        text = " ".join(record.getMessage().split())
        if text not in self._shown:
            self._shown.add(text)
            kind = record.levelname.lower()
            if record.levelno >= logging.WARNING:
                show(self.console, kind, text)
            else:  # which are asked for, and may say the whole of what was cut short
                self.console.print(f"{kind}: {printable(text)}")


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Ctrl-C raises KeyboardInterrupt at once, and where that got lost, the function given raises
    it again.

    Python drops what is raised in a finalizer, and libraries below do much in theirs.
    """
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    if (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):  # ignored, as in the background
        yield check
        return
    report = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if lost.exc_type is KeyboardInterrupt else report(lost)
    signal.signal(signal.SIGINT, ask)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = report


@contextlib.contextmanager
def messages_on(console: Console, debug: bool) -> Iterator[None]:
    """Logged warnings go to the console, and with debug all log messages; Python's own warnings
    only then."""
    handler = ConsoleHandler(console)
    root = logging.getLogger()
    level = root.level
    if not debug:
        handler.addFilter(
            lambda record: not record.name.startswith("pyvips")
        )  # what it says is in its errors
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.WARNING)
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
