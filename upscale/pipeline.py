"""Work in main memory that runs beside the network: before it, and behind it.

In the network's own thread the device would wait while pictures are cut, laid out, blended. So the
next inputs are prepared in a thread of their own (`Pipeline.ahead`), and results are put together
in another one (`Pipeline.do`), piece by piece in the order in which they were handed over, so
nothing there needs a lock. What belongs to the caller (progress, previews, decisions after a piece)
is called in the caller's thread, in the same order.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

import torch

from ..common.defaults import cpu_by_default
from ..common.threads import thread_beside
from .memory import OutOfMemoryError, first_line, is_out_of_memory

AHEAD = 2
"""Pieces that may wait on either side of the network: one at work and one behind it. More would
only hold more memory."""
WAITS = 0.1, 0.5, 2.0
"""Seconds before the next attempts of a task that ran out of main memory. What the network takes
there comes and goes, and the results that wait here are not lost meanwhile."""

T = TypeVar("T")
_END: Any = object()


class _Waiting:
    """A task, and what follows it. The thread that runs it also frees what it holds."""

    def __init__(
        self, task: Callable[[], Any], then: Callable[[Any], None] | None, piece: bool
    ) -> None:
        self.task: Callable[[], Any] | None = task
        self.then, self.piece = then, piece
        self.calls: deque[tuple[Callable[[], None], bool]] = deque()
        """What is called afterwards, and whether it delivers something that is finished."""
        self.future: Future[Any]

    def run(self) -> Any:
        task, self.task = self.task, None
        assert task is not None
        return _run_patiently(task)


class Pipeline:
    """A context manager around the threads; leaving it waits for all that was handed over.

    After an exception, what waits is dropped. No thread outlives the context.

    Attributes:
        cores: that each thread uses; set before the context is entered. One, where the network runs
            on the CPU and needs the others.
    """

    cores = 1

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self._news: SimpleQueue[tuple[Callable[[], Any], Future] | None] = SimpleQueue()
        self._preparing: list[ThreadPoolExecutor] = []
        self._closed = False
        self._broken = False
        """Whether nothing may be delivered any more."""

    def __enter__(self) -> Pipeline:
        self._caller = threading.get_ident()
        self._thread = thread_beside("upscale-finish", self.cores)
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
            self._closed = True
            while not self._news.empty():  # nobody is left who could answer
                question = self._news.get()
                if question is not None:
                    question[1].cancel()
            for thread in (self._thread, *self._preparing):
                thread.shutdown(wait=True, cancel_futures=True)
            self._waiting.clear()

    def ahead(self, calls: Iterator[Callable[[], T]], *, single: bool = False) -> Iterator[T]:
        """What the ``calls`` return, each made at most `AHEAD` before it is wanted.

        The first, which is wanted at once, is made here; then the others are drawn and made in a
        thread of their own. So they are made one after the other, and may share what they know.
        What they raise surfaces where the result would be wanted.

        ``single``: there is only one, and so no need for a thread.
        """
        first = next(calls, None)
        if first is None:
            return
        made = _run_patiently(first)
        if single:
            yield made
            return
        thread = thread_beside("upscale-prepare", self.cores)
        self._preparing.append(thread)

        def make() -> T:
            call = _run(lambda: next(calls, None))
            return _END if call is None else _run_patiently(call)

        waiting = deque(thread.submit(make) for _ in range(AHEAD))
        yield made
        del made
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(thread.submit(make))
            yield item
        self._preparing.remove(thread)
        thread.shutdown()

    def do(
        self,
        task: Callable[[], Any],
        then: Callable[[Any], None] | None = None,
        *,
        piece: bool = False,
    ) -> None:
        """Run ``task()`` behind the network; then ``then(its result)`` here, in a later call.

        Args:
            task: the work; it may use what earlier tasks have left. It is done again after running
                out of main memory, so until then it must not have changed what it would read.
            then: the caller's part.
            piece: the task holds a result of the network. It waits until fewer than `AHEAD` others
                are unfinished, so that their memory stays bounded.

        Raises:
            Exception: what an earlier task raised, or an earlier ``then``.
        """
        while self._waiting and (
            self._waiting[0].future.done() or (piece and self._pieces >= AHEAD)
        ):
            self._finish_first()
        one = _Waiting(task, then, piece)
        one.future = self._thread.submit(one.run)
        one.future.add_done_callback(lambda _: self._news.put(None))
        self._waiting.append(one)

    def after(self, call: Callable[[], None], *, delivers: bool = False) -> None:
        """Call ``call()`` here when all is finished that was handed over: at once, if it is.

        ``delivers``: it hands something finished to the caller; `rescue` makes those calls, too.
        """
        while self._waiting and self._waiting[0].future.done():
            self._finish_first()
        if self._waiting:
            self._waiting[-1].calls.append((call, delivers))
        else:
            self._call(call, delivers)

    def ask(self, question: Callable[[], T]) -> T:
        """Within a task: what ``question()`` returns in the caller's thread.

        The task waits meanwhile, and so do all behind it. The question must not call `do`.

        Raises:
            Exception: what the question raised; concurrent.futures.CancelledError if the work has
                ended.
        """
        if threading.get_ident() == self._caller:  # which does what is left at the end
            return question()
        answer: Future[T] = Future()
        self._news.put((question, answer))
        if self._closed:
            answer.cancel()
        return answer.result()

    @property
    def _pieces(self) -> int:
        return sum(one.piece for one in self._waiting)

    def drain(self) -> None:
        """Wait until everything is done. What has not begun is done here, with all cores.

        Raises:
            Exception: what a task raised, or its ``then``.
        """
        for one in reversed(self._waiting):
            if not one.future.cancel():
                break
        while self._waiting:
            self._finish_first()

    def rescue(self) -> None:
        """After an exception: deliver what is finished, in its order and without a gap.

        Nothing is delivered behind a task that failed, nor once a delivery has raised.
        """
        while self._waiting and not self._broken:
            one = self._waiting[0]
            with suppress(Exception):  # the first one will be raised
                self._wait_for(one)
                while one.calls:
                    call, delivers = one.calls.popleft()
                    if delivers:
                        self._call(call, delivers)
                self._waiting.popleft()

    def _finish_first(self) -> None:
        one = self._waiting[0]
        result = self._wait_for(one)
        then, one.then = one.then, None
        if then is not None:
            then(result)
        while one.calls:
            self._call(*one.calls.popleft())
        if self._waiting and self._waiting[0] is one:  # a call may have come here again
            self._waiting.popleft()

    def _wait_for(self, one: _Waiting) -> Any:
        """The result of a task: done here, if the thread was told to leave it."""
        while not one.future.done():
            self._answer(self._news.get())
        try:
            if one.future.cancelled():
                return one.run() if one.task else None
            return one.future.result()
        except BaseException:
            self._broken = True
            raise

    def _call(self, call: Callable[[], None], delivers: bool) -> None:
        try:
            call()
        except BaseException:
            self._broken |= delivers
            raise

    @staticmethod
    def _answer(news: tuple[Callable[[], Any], Future] | None) -> None:
        """Answer a question of the thread; None only says that a task has ended."""
        if news is None:
            return
        question, answer = news
        if answer.set_running_or_notify_cancel():
            try:
                answer.set_result(question())
            except BaseException as error:
                answer.set_exception(error)


def _run(task: Callable[[], T]) -> T:
    """Modes of torch are a thread's own, so the caller's are entered again."""
    with torch.inference_mode(), cpu_by_default():
        return task()


def _run_patiently(task: Callable[[], Any]) -> Any:
    """Run a task, and again after a shortage of main memory."""
    for wait in (*WAITS, None):
        try:
            return _run(task)
        except Exception as error:
            if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
                raise
            reason = first_line(error)
        if wait is not None:
            time.sleep(wait)
    raise OutOfMemoryError(
        f"out of main memory beside the network ({reason}); close other programs, choose "
        "output_dtype 'fp16', or upscale fewer images at a time"
    )
