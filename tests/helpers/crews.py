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
from types import SimpleNamespace
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


class FakeRay:
    """As much of the package ray as `cluster.crew` uses, in this process: of the calls that wait, one
    is done whenever somebody waits, or has looked twenty times."""

    exceptions = SimpleNamespace(
        RayError=type("RayError", (Exception,), {}),
        RayActorError=type("RayActorError", (Exception,), {}),
    )

    class ObjectRef:
        """A result that may not be there yet."""

        def __init__(self, value: Any = None, *, ready: bool = True) -> None:
            self.value, self.ready = value, ready

    def __init__(self) -> None:
        self._calls: deque[tuple[Any, tuple[Any, ...], list[FakeRay.ObjectRef]]] = deque()
        self._looks = 0

    def put(self, value: Any) -> ObjectRef:
        return self.ObjectRef(value)

    def get(self, reference: Any) -> Any:
        if isinstance(reference, list):
            return [self.get(one) for one in reference]
        while not reference.ready:
            self._do_one()
        return reference.value

    def wait(self, references: Any, *, num_returns: int, timeout: float) -> tuple[list, list]:
        self._looks += 1
        if timeout or self._looks % 20 == 0:
            self._do_one()
        ready = [one for one in references if one.ready][:num_returns]
        return ready, [one for one in references if one not in ready]

    def remote(self, kind: type) -> Any:
        make = lambda *arguments: _Actor(self, kind(*arguments))  # noqa: E731
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=make))

    def kill(self, actor: Any) -> None: ...

    def begin(self, method: Any, arguments: tuple[Any, ...], results: int) -> Any:
        references = [self.ObjectRef(ready=False) for _ in range(results)]
        self._calls.append((method, arguments, references))
        return references if results > 1 else references[0]

    def _do_one(self) -> None:
        if not self._calls:
            return
        method, arguments, references = self._calls.popleft()
        known = [self.get(one) if isinstance(one, self.ObjectRef) else one for one in arguments]
        value = method(*known)
        for reference, one in zip(references, value if len(references) > 1 else [value]):
            reference.value, reference.ready = one, True


class _Actor:
    def __init__(self, ray: FakeRay, made: Any) -> None:
        self._ray, self._made = ray, made

    def __getattr__(self, name: str) -> Any:
        def options(num_returns: int = 1, **_: Any) -> Any:
            def remote(*arguments: Any) -> Any:
                return self._ray.begin(getattr(self._made, name), arguments, num_returns)

            return SimpleNamespace(remote=remote)

        return SimpleNamespace(options=options)
