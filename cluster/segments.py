"""The segments of one video, made by many workers."""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ..video import VideoFile, VideoJob
from ..video.write import SEGMENT_FRAMES
from .crew import Crew, Done, Task
from .parts import UNSEEN, stamp_of
from .worker import ElsewhereError

logger = logging.getLogger(__name__)

AHEAD = 2
"""So many segments are begun per worker where it is not known how many there are."""
PIECE = 6
"""Frames of a piece of a segment."""
Times = list[tuple[int, int]]  # pts and durations


class Segments:
    """The segments of a video, decoded, upscaled and encoded by workers: a `video.Elsewhere`.

    Whole segments go to one worker each. Where they do not come out even at the end, those that are
    left over are cut into pieces, whose samples stay in Ray's object store until one worker encodes
    them: the result does not depend on how many workers there are.

    Args:
        work: the `video.VideoJob`, whose source is a `video.VideoFile` of a path or of bytes in
            memory.
        target: what the frames are upscaled to.
    """

    def __init__(self, crew: Crew, work: VideoJob, target: Any) -> None:
        self._crew = crew
        source = work.source
        assert isinstance(source, VideoFile)
        file = source.file
        path = Path(file) if isinstance(file, str | Path) else None
        self._source = source
        times = source.times()
        self._video = {
            "key": secrets.token_hex(8),
            "source": str(source),
            "stamp": path and stamp_of(path),
            "selected": source.selected,
            "encoding": asdict(work.encoding),
            "size": work.upscaled_size,
            "target": target,
            "max_pixels": source.max_pixels,
            "times": times and (times.shown, times.keys),
        }
        self._path = path
        self._content = None if isinstance(file, str | Path) else crew.shared(file.getvalue())
        self._waiting: deque[Task] = deque()
        self._told: set[str] = set()
        self._count = len(times.shown) if times else None
        self._shared = crew.shared(self._video)

    def __call__(self, first: int, progress: Callable[[int, int], None]) -> Iterator[Any]:
        from ..video.assembly import EncodedSegment

        try:
            for times, data in self._in_order(first, progress):
                yield EncodedSegment(times, data)
        finally:
            self._waiting.clear()
            self._crew.forget()

    def _in_order(
        self, first: int, progress: Callable[[int, int], None]
    ) -> Iterator[tuple[Times, bytes]]:
        """The segments from ``first`` on, in their order. Raises what a worker raised when it is
        that segment's turn."""
        number, finished = first, first * SEGMENT_FRAMES
        self._submit(first)
        for done in self._crew.run(self._waiting):
            if done.task.about is None:  # of a reading that was given up
                continue
            if done.answer.value == UNSEEN:
                self._send(done.task)
                continue
            if done.answer.kind == "TimesDifferError":
                self._count_frames(number)
                continue
            finished += self._take(done)
            progress(finished, max(self._count or 0, finished))
            while number in self._ready:
                times, data = self._ready.pop(number)()
                if times:
                    yield times, data
                if len(times) < SEGMENT_FRAMES and self._count is None:
                    return
                number += 1
                if self._count is None:
                    self._whole(number + AHEAD * self._crew.size - 1)

    def _submit(self, first: int) -> None:
        """Tasks for the segments from ``first`` on, or some of them where the end is not known."""
        self._ready: dict[int, Callable[[], tuple[Times, bytes]]] = {}
        self._pieces: dict[int, list[Done | None]] = {}
        if self._count is None:
            for number in range(first, first + AHEAD * self._crew.size):
                self._whole(number)
            return
        numbers = range(first, -(-self._count // SEGMENT_FRAMES))
        whole = len(numbers) // self._crew.size * self._crew.size
        for number in numbers[:whole]:
            self._whole(number)
        for number in numbers[whole:]:
            begin = number * SEGMENT_FRAMES
            end = min(begin + SEGMENT_FRAMES, self._count)
            starts = range(begin, end, PIECE)
            self._pieces[number] = [None] * len(starts)
            for index, start in enumerate(starts):
                count = min(PIECE, end - start)
                self._waiting.append(self._task("part", (number, index), start, count, False))

    def _whole(self, number: int) -> None:
        first = number * SEGMENT_FRAMES
        self._waiting.append(self._task("part", (number, None), first, SEGMENT_FRAMES, True))

    def _task(self, method: str, about: Any, *arguments: Any) -> Task:
        return Task(method, (self._shared, self._content, *arguments), about)

    def _send(self, task: Task) -> None:
        """Do a task again, with the content of the video."""
        if self._content is None and self._path:
            self._content = self._crew.shared(self._path.read_bytes())
        video, _, *arguments = task.arguments
        self._waiting.appendleft(Task(task.method, (video, self._content, *arguments), task.about))

    def _count_frames(self, first: int) -> None:
        """Begin anew with the segment ``first``, in a reading that takes frames as they come."""
        self._waiting.clear()
        self._crew.forget()
        self._video |= {"key": secrets.token_hex(8), "times": None}
        self._shared, self._count = self._crew.shared(self._video), None
        self._submit(first)

    def _take(self, done: Done) -> int:
        """Note what came of a task; how many frames are done by it."""
        number, index = done.task.about
        if done.lost:  # pieces went with a node
            self._pieces.pop(number, None)
            self._whole(number)
            return 0
        if done.answer.error is not None or index is None:
            result = partial(self._result, done)
            self._ready.setdefault(number, result)
            return len(times_in(done))
        if index == "encoded":
            times = [pair for piece in self._pieces.pop(number) for pair in times_in(piece)]
            self._ready[number] = lambda: (times, self._result(done)[1])
            return 0
        pieces = self._pieces[number]
        pieces[index] = done
        if all(pieces):
            payloads = [piece.payload for piece in pieces]
            self._waiting.appendleft(self._task("encode", (number, "encoded"), *payloads))
        return len(times_in(done))

    def _result(self, done: Done) -> tuple[Times, bytes]:
        value_of(done, self._told)
        if done.answer.value and (damage := done.answer.value[1]):
            self._source.damage = damage
        return times_in(done), self._crew.value(done.payload)


def times_in(done: Done) -> Times:
    """Pts and durations of a part's frames."""
    return done.answer.value[0] if done.answer.value else []


def value_of(done: Done, told: set[str] | None = None) -> Any:
    """What a task returned, after its messages were logged, but for those that were ``told``.
    Raises what it raised."""
    told = set() if told is None else told
    for level, text, kind in done.answer.messages:
        if text not in told:
            logger.log(level, "%s", text, extra={"kind": kind} if kind else None)
            told.add(text)
    if done.raised is not None:
        raise done.raised
    if done.answer.error is not None:
        raise ElsewhereError(done.answer.error, done.answer.trace)
    return done.answer.value
