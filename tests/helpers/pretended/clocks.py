"""Who has waited for whom: streams, late copies, and the places in our code where the host waits.

Work on the pretended device is done at once, but its order is only as certain as on a real one.
Every stream and the host have a clock (how far of every stream they have waited for). Work that
touches memory which another stream has not provably finished with is a fault, even if it went well
this time. Copies that need not block are late: their values come when somebody waits for them.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
Clock = dict[int, int]
"""For every stream, the number of its last piece of work that is known to be done before."""


def place() -> str:
    """Where in our code the caller is: the innermost frame of the repository, as path:line."""
    frame = sys._getframe(1)
    while frame is not None:
        if path := _ours(frame.f_code.co_filename):
            return f"{path}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return "outside of the repository"


@cache
def _ours(filename: str) -> str | None:
    path = Path(filename)
    if not path.is_relative_to(ROOT) or "site-packages" in path.parts or path.parent == HERE:
        return None
    return path.relative_to(ROOT).as_posix()


class DeviceFault(RuntimeError):
    """Code that a real device would let run, and whose result there is a matter of luck."""


@dataclass(frozen=True)
class Wait:
    """One time that the host waited for the device.

    Attributes:
        kind: "copy to main memory", "copy to the device" (without non_blocking, or of memory that
            is not pinned), "value" (item, bool, int), "shape" (nonzero and what depends on values),
            "event", "stream" or "device" (synchronize).
        place: where in our code.
        thread: name of the thread that waited.
    """

    kind: str
    place: str
    thread: str


@dataclass(frozen=True)
class Work:
    """One piece of work: number ``step`` of ``stream``, given by ``place``."""

    stream: int
    step: int
    place: str

    def before(self, clock: Clock) -> bool:
        return clock.get(self.stream, 0) >= self.step


@dataclass(eq=False)
class Marks:
    """What was last done with a piece of memory, and who besides ``stream`` was told to keep it."""

    stream: int
    written: Work | None = None
    read: dict[int, Work] = field(default_factory=dict)
    kept_for: set[int] = field(default_factory=set)

    def unfinished(self, clock: Clock) -> list[Work]:
        """What may still be at work on this memory at that time."""
        last = [self.written] if self.written else []
        return [work for work in (*last, *self.read.values()) if not work.before(clock)]


@dataclass(eq=False)
class LateCopy:
    """A copy that was asked for and has not been done."""

    work: Work
    clock: Clock
    memory: Marks
    into_device: bool
    run: Callable[[], None]


class Timeline:
    """The clocks of one pretended device. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.waits: list[Wait] = []
        self.faults: list[str] = []
        self.late: list[LateCopy] = []
        self.launches: Counter[str] = Counter()
        self._streams: defaultdict[int, Clock] = defaultdict(dict)
        self._host: Clock = {}
        self._numbers = count(1)
        self._local = threading.local()

    @property
    def current(self) -> int:
        """The calling thread's stream; 0 is the default one."""
        return getattr(self._local, "stream", 0)

    @current.setter
    def current(self, stream: int) -> None:
        self._local.stream = stream

    def new_stream(self) -> int:
        return next(self._numbers)

    def clock(self, stream: int) -> Clock:
        """What is done before anything that is given to ``stream`` now (a copy)."""
        with self.lock:
            _merge(self._streams[stream], self._host)
            return dict(self._streams[stream])

    def launch(
        self,
        name: str,
        reads: Iterable[Marks],
        writes: Iterable[Marks],
        late: Callable[[], None] | None = None,
    ) -> Work:
        """One piece of work on the current stream, which the caller does right afterwards.

        Args:
            name: counted in ``launches``.
            reads, writes: the memory that it touches.
            late: the copy, if it is one to be done later.

        Raises:
            DeviceFault: another stream may still be at work on that memory.
        """
        with self.lock:
            stream, reads, writes = self.current, list(reads), list(writes)
            _merge(self._streams[stream], self._host)
            clock = self._streams[stream]
            self.launches[name] += 1
            work = Work(stream, clock.get(stream, 0) + 1, place())
            clock[stream] = work.step
            for marks in reads:
                if marks.written and not marks.written.before(clock):
                    self.fault(f"stream {stream} reads what {_named(marks.written)} has written")
            for marks in writes:
                for other in marks.unfinished(clock):
                    self.fault(f"stream {stream} overwrites what {_named(other)} has touched")
            touched = {id(marks) for marks in (*reads, *writes)}
            for copy in list(self.late):
                needed = copy.into_device or copy.memory in writes
                if id(copy.memory) in touched and needed:
                    self._finish(copy.clock)
            for marks in reads:
                marks.read[stream] = work
            for marks in writes:
                marks.written, marks.read = work, {}
            if late is not None:
                memory, into_device = (writes[0], True) if writes else (reads[0], False)
                self.late.append(LateCopy(work, dict(clock), memory, into_device, late))
            return work

    def _finish(self, clock: Clock) -> None:
        """Do the late copies that are done before that time, in the order of their streams."""
        for copy in list(self.late):
            if copy in self.late and copy.work.before(clock):
                self.late.remove(copy)
                copy.run()

    def wait(self, kind: str, clock: Clock | None) -> None:
        """The host waits until that time (None: until everything is done)."""
        with self.lock:
            self.waits.append(Wait(kind, place(), threading.current_thread().name))
            self.know(clock)

    def know(self, clock: Clock | None) -> None:
        """The host has learnt that all before that time is done."""
        with self.lock:
            for known in [clock] if clock is not None else list(self._streams.values()):
                self._finish(known)
                _merge(self._host, known)

    def is_done(self, clock: Clock) -> bool:
        with self.lock:
            return not any(copy.work.before(clock) for copy in self.late)

    def stream_waits(self, stream: int, clock: Clock) -> None:
        """What ``stream`` is given from now on comes after that time."""
        with self.lock:
            _merge(self._streams[stream], clock)

    def fault(self, text: str) -> None:
        """Note a fault, for the end of the test, and raise it: code may swallow what is raised."""
        self.faults.append(f"{place()}: {text}")
        raise DeviceFault(self.faults[-1])


def _named(work: Work) -> str:
    return f"stream {work.stream}, which it has not waited for since {work.place},"


def _merge(into: Clock, other: Clock) -> None:
    for stream, step in other.items():
        into[stream] = max(into.get(stream, 0), step)
