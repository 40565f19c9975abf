"""Streams and events of the pretended device.

torch makes `torch.Stream(device)` for a device that is registered from Python, but always the same
one, which never waits. These are what it should make; `torch.Stream` and `torch.Event` are them
while a device is pretended.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from .memory import NAME
from .state import active

PLAIN_STREAM, PLAIN_EVENT = torch.Stream, torch.Event


def is_ours(device: Any) -> bool:
    return device is None or isinstance(device, int) or torch.device(device).type == NAME


class Stream(PLAIN_STREAM):
    """A queue of work on the device, numbered ``stream_id``."""

    def __new__(
        cls, device: Any = None, priority: int = 0, *, stream_id: int | None = None, **more
    ):
        if not is_ours(device):
            return PLAIN_STREAM(device, priority=priority)
        number = active().timeline.new_stream() if stream_id is None else stream_id
        kind = int(torch._C._autograd.DeviceType.PrivateUse1)
        return super().__new__(cls, stream_id=number, device_index=0, device_type=kind)

    @property
    def clock(self) -> dict[int, int]:
        return active().timeline.clock(self.stream_id)

    def synchronize(self) -> None:
        active().timeline.wait("stream", self.clock)

    def query(self) -> bool:
        done = active().timeline.is_done(self.clock)
        active().timeline.know(self.clock)  # done by the time that somebody asks again
        return done

    def wait_stream(self, stream: torch.Stream) -> None:
        active().timeline.stream_waits(self.stream_id, active().timeline.clock(stream.stream_id))

    def wait_event(self, event: Event) -> None:
        event.wait(self)

    def record_event(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def __enter__(self) -> Stream:
        self._before = [*getattr(self, "_before", []), active().timeline.current]
        active().timeline.current = self.stream_id
        return self

    def __exit__(self, *error: object) -> None:
        active().timeline.current = self._before.pop()


class Event(PLAIN_EVENT):
    """A moment of a stream."""

    def __new__(cls, device: Any = None, *, enable_timing: bool = False, **more: bool):
        if not is_ours(device):
            return PLAIN_EVENT(device, enable_timing=enable_timing, **more)
        return super().__new__(cls, device=torch.device(NAME, 0))

    def __init__(self, device: Any = None, *, enable_timing: bool = False, **more: bool) -> None:
        self._clock: dict[int, int] | None = None
        self._time = 0.0

    def record(self, stream: torch.Stream | None = None) -> None:
        timeline = active().timeline
        self._clock = timeline.clock(timeline.current if stream is None else stream.stream_id)
        self._time = time.perf_counter()

    def wait(self, stream: torch.Stream | None = None) -> None:
        timeline = active().timeline
        waiting = timeline.current if stream is None else stream.stream_id
        if self._clock is not None:
            timeline.stream_waits(waiting, self._clock)

    def synchronize(self) -> None:
        active().timeline.wait("event", self._clock or {})

    def query(self) -> bool:
        """Whether it is done; a copy that is not is done when somebody asks again."""
        if self._clock is None:
            return True
        done = active().timeline.is_done(self._clock)
        active().timeline.know(self._clock)
        return done

    def elapsed_time(self, end: Event) -> float:
        return (end._time - self._time) * 1000


def current_stream(device: Any = None) -> Stream:
    return Stream(stream_id=active().timeline.current)


def set_stream(stream: torch.Stream) -> None:
    active().timeline.current = stream.stream_id


def synchronize(device: Any = None) -> None:
    active().timeline.wait("device", None)
