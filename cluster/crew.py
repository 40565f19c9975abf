"""Workers, and the tasks that they do.

A task goes to whichever worker is free. Ray makes a new process where one dies, on another machine
if need be (``max_restarts``); the task that it was doing is handed out again, and if that kills a
second worker, it has failed. So there is no limit to what may die, but to what one task may kill.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .connection import ClusterError
from .places import Place
from .worker import Answer, failure

logger = logging.getLogger(__name__)

_PATIENCE = 0.5  # seconds between looking whether the user wants to stop
_BREAK = 0.05  # between looks at the others while this process works itself
DEADLY = 2
"""So many workers may die of one task."""


@dataclass(eq=False)
class Task:
    """A call of a method of the workers' object.

    ``deaths`` counts the workers that died of it.
    """

    method: str
    arguments: tuple[Any, ...] = ()
    about: Any = None
    deaths: int = field(default=0, init=False)


@dataclass(frozen=True)
class Done:
    """A task that has ended: the answer, and a reference to the payload in Ray's object store.

    lost: something that it needed went with a node.
    raised: what a task in this process raised.
    """

    task: Task
    answer: Answer
    payload: Any = None
    lost: bool = False
    raised: Exception | None = None


class Own(Protocol):
    """An object in this process that does tasks, too, in the thread that runs the crew.

    reason: what an exception says.
    ends: whether an exception is no failure of a task, but ends all work.
    between: is set by the crew. The object calls it again and again while it works, which gives
        tasks to the others; what it raises ends the work.
    """

    between: Callable[[], None]

    def reason(self, error: Exception) -> str: ...

    def ends(self, error: Exception) -> bool: ...


class Crew:
    """Some workers; a context manager, which ends them.

    Args:
        ray: the package, connected.
        places: where they are.
        factory, arguments: as for `worker.Worker`; ``shared`` goes once to every node.
        environment: variables of their processes.
        on_wait: called again and again while a task runs; what it raises ends the work.
        own: works beside them.
    """

    def __init__(
        self,
        ray: Any,
        places: Sequence[Place],
        factory: str,
        arguments: dict[str, Any],
        shared: Sequence[Any] = (),
        *,
        environment: dict[str, str] | None = None,
        on_wait: Callable[[], None] = lambda: None,
        own: Own | None = None,
    ) -> None:
        self._ray, self._on_wait, self._own = ray, on_wait, own
        self.size = len(places) + (own is not None)
        """How many workers there are."""
        # in a list, so that a process asks for them itself, also when it was made anew
        self._shared = [ray.put(one) for one in shared]
        self._workers = [
            ray.remote(_worker_class())
            .options(
                num_cpus=place.threads,
                num_gpus=place.gpus,
                max_restarts=-1,
                runtime_env={"env_vars": environment} if environment else None,
            )
            .remote(
                factory,
                arguments | {"device": place.device, "threads": place.threads},
            )
            for place in places
        ]
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._running: dict[Any, tuple[Any, Task | None, Any]] = {}  # None: passed over
        self._waiting: deque[Task] = deque()
        self._found: list[Done] = []  # while this process worked
        self._looked = 0.0
        self.deaths = 0
        """Workers that died so far."""
        self.done = self.done_here = 0
        """Tasks that the workers did, and that this process did."""
        for worker in self._workers:
            self._await(worker)
        if own is not None:
            own.between = self._tend

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            self._ray.kill(worker)

    def wait(self) -> None:
        """Wait until every worker is ready, or cannot be made; benchmarks begin then."""
        while self._starting:
            self._look(_PATIENCE)

    def shared(self, value: Any) -> Any:
        """A reference that tasks may have in the place of ``value``, which goes once to a node."""
        return self._ray.put(value)

    def value(self, reference: Any) -> Any:
        """What a payload is."""
        known = isinstance(reference, self._ray.ObjectRef)
        return self._ray.get(reference) if known else reference

    def run(self, waiting: deque[Task]) -> Iterator[Done]:
        """Do all tasks, and give each when it is done, in any order.

        They are taken from the left when a worker is free. The caller may add others meanwhile.
        """
        self._waiting = waiting
        while waiting or self._running or self._found:
            self._hand_out()
            if self._own is not None and waiting:
                task = waiting.popleft()
                found = [self._done_here(task)]
            elif self._found or self._running or self._starting:
                found = [] if self._found else self._look(_PATIENCE)
            else:
                raise ClusterError("no worker is left")
            found, self._found = [*self._found, *found], []
            yield from found

    def forget(self) -> None:
        """Pass over the results of what still runs."""
        self._found = []
        self._running = {
            head: (worker, None, payload) for head, (worker, _, payload) in self._running.items()
        }

    def _await(self, worker: Any) -> None:
        """It gets tasks when it answers; after it has died, that is when it was made anew."""
        self._starting[worker.ready.options(max_task_retries=-1).remote(self._shared)] = worker

    def _start(self, worker: Any, task: Task) -> None:
        head, payload = worker.call.options(num_returns=2).remote(
            self._shared, task.method, *task.arguments
        )
        self._running[head] = worker, task, payload

    def _hand_out(self) -> None:
        """Tasks to those who have none."""
        while self._waiting and self._idle:
            self._start(self._idle.pop(), self._waiting.popleft())

    def _done_here(self, task: Task) -> Done:
        """A task that this process does."""
        assert self._own is not None
        arguments = [self.value(one) for one in task.arguments]
        try:
            value, payload = getattr(self._own, task.method)(*arguments)
        except Exception as error:
            if self._own.ends(error):
                raise
            return Done(task, failure(error, self._own.reason(error)), raised=error)
        self.done_here += 1
        return Done(task, Answer(value), payload)

    def _tend(self) -> None:
        """Look after the others while this process works."""
        now = time.monotonic()
        if now - self._looked < _BREAK:
            return
        self._looked = now
        self._found += self._look(0)
        self._hand_out()

    def _look(self, patience: float) -> list[Done]:
        """What has ended, after so many seconds at most."""
        references = [*self._running, *self._starting]
        if not references:
            self._on_wait()
            return []
        ended, _ = self._ray.wait(references, num_returns=1, timeout=patience)
        more, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        self._on_wait()
        found = []
        for reference in dict.fromkeys([*ended, *more]):
            if reference in self._starting:
                self._started(reference, self._starting.pop(reference))
            elif one := self._ended(reference):
                found.append(one)
        return found

    def _started(self, reference: Any, worker: Any) -> None:
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._workers.remove(worker)
            self.size -= 1
            cause = getattr(error, "cause", None) or error
            if not self.size:
                raise ClusterError(f"no worker could be started: {cause}") from error
            logger.warning("a worker could not be started: %s", cause)
        else:
            self._idle.append(worker)

    def _ended(self, reference: Any) -> Done | None:
        worker, task, payload = self._running.pop(reference)
        errors = self._ray.exceptions
        try:
            answer = Answer(**self._ray.get(reference))
        except errors.RayActorError:
            # of the others that wait some may have died with it, of which nobody has heard yet
            for one in (worker, *self._idle):
                self._await(one)
            self._idle = []
            self.deaths += 1
            if task is None:
                return None
            task.deaths += 1
            if task.deaths < DEADLY:
                self._waiting.appendleft(task)
                return None
            return Done(task, Answer(error=f"{DEADLY} workers died while they worked on it"))
        except errors.RayError as error:
            self._idle.append(worker)
            text = " ".join(str(error).split())
            return task and Done(task, Answer(error=text), lost=True)
        self._idle.append(worker)
        self.done += 1
        return task and Done(task, answer, payload)


def _worker_class() -> type:
    """`worker.Worker` as a class that Ray sends by value, so that it does not matter how this pack
    is called in this process."""

    class Proxy:
        def __init__(self, *arguments: Any) -> None:
            self._arguments, self._worker = arguments, None

        def ready(self, shared: list[Any]) -> None:
            if self._worker is None:
                ray = importlib.import_module("ray")
                module = importlib.import_module("fdat_dense_iso.cluster.worker")
                self._worker = module.Worker(*self._arguments, *ray.get(shared))

        def call(self, shared: list[Any], method: str, *arguments: Any) -> Any:
            self.ready(shared)  # it may be a process of which nobody knew that it is new
            return self._worker.call(method, *arguments)

    return Proxy
