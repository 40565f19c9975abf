"""One run at a time writes a file that grows over a long time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


class InUseError(ValueError):
    """Another run writes the same file."""


def check_free(lock: Path, target: Path) -> None:
    """Raise InUseError where another run holds ``lock``, which it does to write ``target``."""
    if lock.exists():
        with held(lock, target):
            pass


@contextlib.contextmanager
def held(lock: Path, target: Path) -> Iterator[None]:
    """Hold the file ``lock`` while ``target`` is written; it is gone afterwards.

    A process that is killed leaves the file, which nobody holds then. Raises InUseError where
    another run holds it.
    """
    file = FileLock(lock, timeout=0)
    try:
        file.acquire()
    except Timeout:
        raise InUseError(
            f"{target} is being written by another run; wait for it, or give another name"
        ) from None
    except NotImplementedError:  # a file system without locks
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows cannot yet, and FileLock does it there
            os.unlink(lock)  # as long as it is held: the next one would hold what is gone
        file.release()
