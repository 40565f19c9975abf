"""Which workers there are: one for each GPU, or CPU workers with some threads each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ..common.devices import accelerators
from .connection import ClusterError

_THREADS = 4  # of a CPU worker, where nobody says how many


@dataclass(frozen=True)
class Place:
    """Where a worker runs.

    Attributes:
        device: the name that torch has for it.
        threads: of torch, beside the network or for it.
        gpus: how many Ray has to reserve; 0 where the name says which one it is.
    """

    device: str
    threads: int
    gpus: int = 0

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.device} ({threads})"


def local_places(devices: str, threads: int | None) -> list[Place]:
    """The workers that ``--devices`` asks for on this machine: "all", "cpu:4" for four CPU workers,
    or names with commas between them. Raises ClusterError for what is not available."""
    cores = _cores()
    if devices == "all" and not accelerators():
        each = min(threads or _THREADS, cores)
        return [Place("cpu", each)] * max(cores // each, 1)
    names = _names(devices)
    return [Place(name, threads or max(cores // len(names), 1)) for name in names]


def other_places(devices: str, own: str) -> list[Place]:
    """The same for workers beside a process that uses the device ``own`` itself; none where there
    is no other one."""
    names = [name for name in _names(devices) if name == "cpu" or name != own]
    return [Place(name, max(_cores() // (len(names) + 1), 1)) for name in names]


def _names(devices: str) -> list[str]:
    """The devices that are asked for; "cpu" for every CPU worker."""
    known = accelerators()
    if devices == "all":
        return known
    names = [name.strip() for name in devices.split(",")]
    if len(names) == 1 and names[0].startswith("cpu:"):
        return ["cpu"] * _count(names[0])
    # without a number it is the first
    names = [f"{name}:0" if f"{name}:0" in known else name for name in names]
    if len(set(names)) < len(names):
        raise ClusterError(f"devices {devices}: a device is named twice")
    for name in names:
        if name not in known:
            there = ", ".join(known) or "no GPU"
            raise ClusterError(
                f"devices {devices}: {name} is not available here, where there is {there}; use all, cpu:N "
                "for N CPU workers, or names as cuda:0,cuda:1"
            )
    return names


def _count(name: str) -> int:
    text = name.removeprefix("cpu:")
    if not text.isdecimal() or int(text) < 1:
        raise ClusterError(f"devices {name}: the number of CPU workers was expected after cpu:")
    return int(text)


def cluster_places(ray: Any, devices: str, threads: int | None) -> list[Place]:
    """The same in a cluster, for "all" and "cpu:N": one worker for each GPU that it has, or as many
    CPU workers as its nodes have room for."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(node.get("CPU", 0)) for node in alive]
    gpus = [int(node.get("GPU", 0)) for node in alive]
    if devices.startswith("cpu:"):
        count = _count(devices)
        each = threads or max(sum(cpus) // count, 1)
        while threads is None and each > 1 and sum(one // each for one in cpus) < count:
            each -= 1
        if sum(one // each for one in cpus) < count:
            raise ClusterError(
                f"devices {devices}: the cluster has {sum(cpus)} CPUs on {len(cpus)} nodes, too few "
                f"for {count} workers of {each} threads"
            )
        return [Place("cpu", each)] * count
    if devices != "all":
        raise ClusterError(
            f"devices {devices}: of a cluster all GPUs are taken (all), or CPU workers (cpu:N)"
        )
    if sum(gpus):
        each = min(cpu // gpu for cpu, gpu in zip(cpus, gpus) if gpu)
        return [Place("cuda", max(threads or each, 1), gpus=1)] * sum(gpus)
    each = threads or max(min(_THREADS, *cpus) if cpus else 1, 1)
    found = [Place("cpu", each)] * sum(one // each for one in cpus)
    if not found:
        raise ClusterError(f"the cluster has no node with {each} CPUs")
    return found


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
