"""Encodes behind the model, so that it does not wait for the encoder."""

from __future__ import annotations

import contextlib
from collections import deque
from concurrent.futures import Future
from types import TracebackType

from torch import Tensor

from ..common.threads import half_of_the_cores, thread_beside
from .assembly import Assembly
from .source import SourceFrame

WAITING = 2
"""Pictures that may wait to be encoded; more would only hold more memory."""


class EncodingThread:
    """A context manager around the thread in which an `Assembly` works.

    At its end all that was added is written, also after an exception.
    """

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._thread = thread_beside("upscale-encode", half_of_the_cores())
        self._tasks: deque[Future[None]] = deque()
        self.added = 0
        """Frames that were added."""

    def __enter__(self) -> EncodingThread:
        return self

    def add(self, frame: SourceFrame, picture: Tensor | None) -> None:
        """Add the next frame, as `Assembly.add`; waits until few others are left to encode.

        Raises what encoding an earlier one has raised.
        """
        while self._tasks and (self._tasks[0].done() or len(self._tasks) >= WAITING):
            self._tasks.popleft().result()
        add = self._assembly.add
        self._tasks.append(self._thread.submit(add, frame.pts, frame.duration, picture))
        self.added += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end = self._thread.submit(self._assembly.end)
        try:
            if error is not None:
                with contextlib.suppress(Exception):  # of two errors the first one is raised
                    end.result()
                return
            for task in self._tasks:
                task.result()
            end.result()
        finally:
            self._thread.shutdown()
