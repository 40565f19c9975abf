"""Measures time and memory for the benchmarks, and describes the machine."""

from __future__ import annotations

import ctypes
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.page import command

MIB = 2**20

UNPRINTED = "spread", "rounds"
"""Entries of a row of figures that are not columns of its table."""


def machine() -> str:
    """Processor, cores, threads and versions, for the head of a table."""
    model = platform.processor() or platform.machine()
    for line in (
        Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    ):
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    load = psutil.getloadavg()[0]
    return (
        f"{model}, {psutil.cpu_count()} cores, {torch.get_num_threads()} torch threads, load {load:.1f}{gpu}, "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


def write_figures(file: Path | None, module: str, figures: dict[str, Any]) -> None:
    """Write figures as JSON, with command, day and machine; does nothing if ``file`` is None."""
    if file is not None:
        about = {
            "command": command(module),
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**about, **figures}, indent=1) + "\n", encoding="utf-8")


M_MMAP_THRESHOLD = -3


def peak_above_base(work: Callable[[], object]) -> int:
    """Bytes by which resident memory rises during ``work`` at most (Linux with glibc only).

    The allocator is set to return freed memory at once, so that the figure does not include memory
    that it would keep.
    """
    gc.collect()
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**16)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    base = psutil.Process().memory_info().rss
    result = work()
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    del result
    return peak - base


def interleaved(
    works: dict[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every run by ``clock``; works run in turn, ``repeats`` times after one warm-up."""
    return interleaved_beside(works, repeats, lambda: 0.0, clock)[0]


def interleaved_beside(
    works: dict[str, Callable[[], object]],
    repeats: int,
    probe: Callable[[], float],
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, list[float]], list[float]]:
    """As `interleaved`; also returns the least value of ``probe`` in each round.

    ``probe`` is called before and after each work.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    least = []
    for round_ in range(repeats + 1):
        probed = [probe()]
        for name, work in works.items():
            started = clock()
            work()
            if round_:
                seconds[name].append(clock() - started)
            probed.append(probe())
        if round_:
            least.append(min(probed))
    return seconds, least


def spread(values: list[float]) -> list[float]:
    """Least, median and largest value, which show the noise of a measurement."""
    return [min(values), statistics.median(values), max(values)]


def median_ratio(a: list[float], b: list[float]) -> float:
    """Median of the ratios a / b, pair by pair, so that a drift of the machine cancels."""
    return statistics.median(x / y for x, y in zip(a, b))
