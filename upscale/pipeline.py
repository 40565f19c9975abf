"""Work in main memory that runs beside the network.

The network's results have to be checked, brought to main memory, laid out and blended. In the
network's own thread the device would wait for all of that. `HostWork` does it in one thread of its
own, piece by piece, in the order in which the pieces were handed over, so nothing there needs a
lock. What belongs to the caller (progress, previews, decisions after a piece) is called in the
caller's thread, in the same order.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from types import TracebackType
from typing import Any

import torch

from ..common.defaults import cpu_by_default
from .memory import OutOfMemoryError, first_line, is_out_of_memory

AHEAD = 2
"""Pieces that may wait: one at work and one behind it. More would only hold more memory."""
WAITS = 0.1, 0.5, 2.0
"""Seconds before the next attempts of a task that ran out of main memory. What the network takes
there comes and goes, and the results that wait here are not lost meanwhile."""


class HostWork:
    """A context manager around the thread; leaving it waits for the piece at work.

    After an exception, what waits is dropped. No thread outlives the context.

    Args:
        behind: pieces that may be unfinished when the caller goes on; 0 where it has to see every
            one of them, as live previews do.
    """

    def __init__(self, behind: int = AHEAD) -> None:
        self.behind = behind
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upscale-host")
        self._waiting: deque[tuple[Future, Callable[[Any], None] | None, bool]] = deque()

    def __enter__(self) -> HostWork:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.drain()
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)
            self._waiting.clear()

    def do(
        self,
        task: Callable[[], Any],
        then: Callable[[Any], None] | None = None,
        *,
        piece: bool = False,
    ) -> None:
        """Run ``task()`` in the thread; then ``then(its result)`` here, before a later call returns.

        Args:
            task: the work; it may use what earlier tasks have left. It is done again after running
                out of main memory, so until then it must not have changed what it would read.
            then: the caller's part.
            piece: the task holds a result of the network. It waits until fewer than ``behind``
                others are unfinished, so that their memory stays bounded.

        Raises:
            Exception: what an earlier task raised, or an earlier ``then``.
        """
        while self._waiting and (
            self._waiting[0][0].done() or (piece and self._pieces >= self.behind)
        ):
            self._finish_first()
        # a result of the network is ready in the order of the caller's stream
        stream = torch.cuda.current_stream() if torch.cuda.is_initialized() else None
        self._waiting.append((self._thread.submit(_run, task, stream), then, piece))
        if not self.behind:
            self.drain()

    @property
    def _pieces(self) -> int:
        return sum(piece for _, _, piece in self._waiting)

    def drain(self) -> None:
        """Wait until everything is done.

        Raises:
            Exception: what a task raised, or its ``then``.
        """
        while self._waiting:
            self._finish_first()

    def _finish_first(self) -> None:
        future, then, _ = self._waiting.popleft()
        result = future.result()
        if then is not None:
            then(result)


def _run(task: Callable[[], Any], stream: torch.cuda.Stream | None) -> Any:
    """Modes and streams of torch are a thread's own, so the caller's are entered again."""
    on_stream = torch.cuda.stream(stream) if stream is not None else nullcontext()
    with torch.inference_mode(), cpu_by_default(), on_stream:
        for wait in (*WAITS, None):
            try:
                return task()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = first_line(error)
            if wait is not None:
                time.sleep(wait)
    raise OutOfMemoryError(
        f"out of main memory while putting the result together ({reason}); close other programs, choose "
        "output_dtype 'fp16', or upscale fewer images at a time"
    )
