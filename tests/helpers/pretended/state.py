"""The device of one test, and which one that is now."""

from __future__ import annotations

from collections import Counter

import torch

from .clocks import Clock, Timeline, Wait
from .memory import NAME, Memory


class Pretended:
    """The device of one test.

    Attributes:
        device: its `torch.device`.
        memory: what is allocated (`Memory`): used, peak, total, fail_at, pinned_peak.
        timeline: streams, late copies, and what the host waited for (`Timeline`).
        pinning: whether main memory can be pinned.
        cache_emptied: how often ``empty_cache`` was called.
    """

    def __init__(self, memory: int, float64: bool, pinning: bool) -> None:
        self.device = torch.device(NAME, 0)
        self.timeline = Timeline()
        self.memory = Memory(self.timeline, memory, float64)
        self.pinning = pinning
        self.cache_emptied = 0

    @property
    def clock(self) -> Clock:
        """What is done when everything is that the calling thread's stream has been given."""
        return self.timeline.clock(self.timeline.current)

    @property
    def waits(self) -> list[Wait]:
        """Every time that the host waited for the device, in order."""
        return self.timeline.waits

    def count(self, *kinds: str) -> int:
        """How often the host waited: for these kinds (`Wait`), or at all."""
        return sum(not kinds or wait.kind in kinds for wait in self.waits)

    def places(self) -> Counter[tuple[str, str]]:
        """How often the host waited, by kind and place in our code."""
        return Counter((wait.kind, wait.place) for wait in self.waits)

    def forget(self) -> None:
        """Count waits, launches and the peak of memory from now on."""
        self.timeline.waits.clear()
        self.timeline.launches.clear()
        self.memory.reset_peak()


ACTIVE: list[Pretended] = []
"""The device that is pretended now, if any."""


def active() -> Pretended:
    """The device that is pretended now; RuntimeError if there is none."""
    if not ACTIVE:
        raise RuntimeError(f"no device {NAME!r} exists now; it does within pretended_device()")
    return ACTIVE[-1]
