"""Workers that misbehave on demand, and a crew of workers in this process."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fdat_dense_iso.cluster.crew import Done, Task
from fdat_dense_iso.cluster.worker import Answer, Worker
from fdat_dense_iso.command.worker import FileWorker
from fdat_dense_iso.picture.formats import PictureError

FAULTY = "tests.helpers.crews:FaultyWorker"


class FaultyWorker(FileWorker):
    """Does what files in the folder of the command say, and notes there every call.

    A picture called poison kills its worker, one called unlucky only the first. ``kill-part``: the
    next part of a video kills its worker. ``slow``: each call takes so many seconds longer.
    ``full``: the node of this id writes no results.
    """

    def picture(self, job, token, stamp, content):
        note(f"picture {job.source.name}")
        if job.source.stem == "poison" or (job.source.stem == "unlucky" and taken("spared")):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().picture(job, token, stamp, content)

    def _upscaled(self, job, content, target):
        if target == job.target and Path("full").exists() and Path("full").read_text() == node():
            note(f"full {job.source.name}")
            error = PictureError(f"{target} cannot be written: No space left on device")
            raise error from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super()._upscaled(job, content, target)

    def part(self, video, content, first, count, whole):
        note(f"part {first} {count}")
        if taken("kill-part"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().part(video, content, first, count, whole)


def note(text: str) -> None:
    """Write a line into ``calls``, then wait as long as ``slow`` says."""
    with Path("calls").open("a") as file:
        file.write(f"{text} {os.getpid()} {node()}\n")
    if Path("slow").exists():
        time.sleep(float(Path("slow").read_text()))


def taken(name: str) -> bool:
    """Whether there is such a file, which then is none any more."""
    try:
        Path(name).unlink()
    except FileNotFoundError:
        return False
    return True


def node() -> str:
    import ray

    return ray.get_runtime_context().get_node_id()


class InlineCrew:
    """A `cluster.crew.Crew` of workers in this process, that answer in a random order.

    ``lost``: numbers of calls whose answer is that something went with a node.
    """

    def __init__(self, workers: Sequence[FileWorker], lost: Sequence[int] = ()) -> None:
        self.workers, self.size, self.lost = workers, len(workers), set(lost)
        self.calls: list[tuple[Any, ...]] = []
        self._running: list[Task] = []
        self._random = random.Random(0)

    def shared(self, value: Any) -> Any:
        return value

    def value(self, reference: Any) -> Any:
        return reference

    def forget(self) -> None:
        self._running = []

    def run(self, waiting: deque[Task]) -> Iterator[Done]:
        while waiting or self._running:
            while waiting and len(self._running) < self.size:
                self._running.append(waiting.popleft())
            task = self._running.pop(self._random.randrange(len(self._running)))
            self.calls.append((task.method, *task.arguments[2:]))
            if len(self.calls) in self.lost:
                yield Done(task, Answer(error="lost"), lost=True)
                continue
            worker = Worker.__new__(Worker)
            worker._object = self._random.choice(self.workers)
            answer, payload = worker.call(task.method, *task.arguments)
            yield Done(task, Answer(**answer), payload)
