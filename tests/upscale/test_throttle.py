"""The throttle of previews, with a clock that only moves when it is told to."""

from __future__ import annotations

import itertools

import pytest

from fdat_dense_iso.upscale.throttle import Throttle


class Clock:
    def __init__(self) -> None:
        self.now = 1234.5

    def __call__(self) -> float:
        return self.now


def run(step: float, cost: float, seconds: float) -> tuple[list[float], float]:
    """The seconds at which something of ``cost`` was due, asked every ``step``, and the largest
    share it ever had."""
    clock = Clock()
    throttle = Throttle(0.5, 0.02, clock, clock)
    start, times, share = clock.now, [], 0.0
    while clock.now - start < seconds:
        clock.now += step
        if throttle.due():
            times.append(clock.now - start)
            clock.now += cost
            throttle.done()
            share = max(share, len(times) * cost / (clock.now - start))
    return times, share


@pytest.mark.parametrize("step", [0.001, 0.3, 2.0])
@pytest.mark.parametrize("cost", [0.0, 0.001, 0.01])
def test_what_is_cheap_is_done_at_the_interval(step: float, cost: float) -> None:
    times, share = run(step, cost, 30)
    assert all(after - before >= 0.5 - 1e-9 for before, after in itertools.pairwise([0, *times]))
    assert len(times) >= 30 / (0.5 + step + cost) - 1
    assert share <= 0.02 + 1e-9


@pytest.mark.parametrize(("step", "cost"), [(0.01, 0.05), (0.5, 0.2), (3.0, 1.0)])
def test_what_is_dear_is_done_for_the_share(step: float, cost: float) -> None:
    """The first cannot know what it costs; after it the share is kept."""
    times, _ = run(step, cost, 1000)
    total = len(times) * cost
    assert 0.02 * 1000 - cost - 1 <= total <= 0.02 * 1000 + cost
    for count, time in enumerate(times[1:], 1):
        assert (count + 1) * cost <= 0.02 * time + 1e-6


def test_waiting_is_no_cost() -> None:
    clock, meter = Clock(), Clock()
    throttle = Throttle(0.5, 0.02, clock, meter)
    for _ in range(10):
        clock.now += 0.5
        assert throttle.due()
        clock.now += 3.0  # other programs had the processor
        meter.now += 0.001
        throttle.done()


def test_what_was_once_slow_does_not_stop_for_good() -> None:
    clock = Clock()
    throttle = Throttle(0.5, 0.02, clock, clock)
    clock.now += 0.5
    assert throttle.due()
    clock.now += 1.0  # the machine was busy
    throttle.done()
    waited = clock.now
    while not throttle.due():
        clock.now += 0.1
    assert 95 <= clock.now - waited <= 105  # both it and an equal one after it are paid for
    clock.now += 0.001
    throttle.done()
    clock.now += 0.5
    assert throttle.due()
