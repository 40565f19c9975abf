"""Limits how often a preview is shown: by a rate and by a share of the time, whichever is less."""

from __future__ import annotations

import time
from collections.abc import Callable

PREVIEW_SECONDS = 0.5
PREVIEW_SHARE = 0.015  # at most 0.02 with the encoding, which hosts do in another thread


class Throttle:
    """Decides when a preview may be made. Call `due` before each, and `done` after it.

    The cost of a preview is the processor time of the calling thread between the two calls, so
    that waiting on a busy machine does not count. Use it in one thread only.

    At every moment the previews so far cost at most ``share`` of the time since the start, if none
    costs more than the one before it (the first: ``share`` of ``interval``).

    Args:
        interval: least seconds from one preview to the next, and before the first.
        share: the share of the time that may be spent, from 0 to 1.
        clock: returns seconds, counted from any moment.
        meter: returns the seconds that this thread has worked.
    """

    def __init__(
        self,
        interval: float = PREVIEW_SECONDS,
        share: float = PREVIEW_SHARE,
        clock: Callable[[], float] = time.perf_counter,
        meter: Callable[[], float] = time.thread_time,
    ) -> None:
        self._interval = interval
        self._share = share
        self._clock, self._meter = clock, meter
        self._start = self._last = clock()
        self._spent = self._begun = 0.0
        self._expected = share * interval

    def due(self) -> bool:
        """Whether a preview may be made now; if so, its cost counts from here until `done`."""
        now = self._clock()
        affordable = self._spent + self._expected <= self._share * (now - self._start) + 1e-9
        if now - self._last < self._interval or not affordable:
            return False
        self._last = now
        self._begun = self._meter()
        return True

    def done(self) -> None:
        """Note that the preview that was due has been made."""
        self._expected = self._meter() - self._begun
        self._spent += self._expected
