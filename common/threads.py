"""Threads beside the network, with a share of the cores of their own."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache

import torch


def thread_beside(name: str, cores: int) -> ThreadPoolExecutor:
    """One thread, in which operators of torch use so many cores.

    Each thread that calls operators would have a team of threads as large as the machine, and teams
    that share cores wait for each other: on two cores three of them took four times as long.

    torch counts for each thread, but setting a thread's count also sets that of threads to come,
    which is put back here.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=_yield_to_the_network)
    usual = torch.get_num_threads()
    if cores < usual and _counts_for_each_thread():
        thread.submit(torch.set_num_threads, cores).result()
        torch.set_num_threads(usual)
    return thread


def _yield_to_the_network() -> None:
    """Let the network's thread run first where cores are short; so it hands over the next piece.

    As batch work, this thread and those that it starts (of encoders) don't interrupt the network's
    when they wake up; a lower priority alone cost a video on two cores 5 % more time.
    """
    if sys.platform == "linux":  # elsewhere that is the priority of the whole process
        with suppress(OSError):  # a sandbox may forbid it
            os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + 10)
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def half_of_the_cores() -> int:
    """Where the network runs on a device and needs few."""
    return max(torch.get_num_threads() // 2, 1)


@cache
def _counts_for_each_thread() -> bool:
    """Only with OpenMP; torch's own pool has one count for all and can't change it later."""
    return "parallel backend: OpenMP" in torch.__config__.parallel_info()
