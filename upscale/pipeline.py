"""Work in main memory that runs beside the network.

The network's results have to be checked, brought to main memory, laid out and blended. In the
network's own thread the device would wait for all of that. `HostWork` does it in one thread of its
own, piece by piece, in the order in which the pieces were handed over, so nothing there needs a
lock. What belongs to the caller (progress, previews, decisions after a piece) is called in the
caller's thread, in the same order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch

from ..common.defaults import cpu_by_default

AHEAD = 2
"""Pieces that may wait: one at work and one behind it. More would only hold more memory."""


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
            task: the work; it may use what earlier tasks have left.
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
        self._waiting.append((self._thread.submit(_run, task), then, piece))
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
        future, then, _ = self._waiting[0]
        result = future.result()
        self._waiting.popleft()
        if then is not None:
            then(result)


def _run(task: Callable[[], Any]) -> Any:
    """Modes of torch are a thread's own, so the caller's are entered again."""
    with torch.inference_mode(), cpu_by_default():
        return task()
