"""Tells torch of the device, once per process: torch can't forget it again.

From then on the device's name is known and `torch.accelerator` means it, but it is available only
while it is pretended.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from torch.utils.backend_registration import (
    _DummyPrivateUse1Hook,
    _setup_privateuseone_for_python_backend,
)

from .memory import DOUBLE, NAME
from .operators import SPECIAL, run
from .state import ACTIVE, active
from .streams import Event, Stream, current_stream, set_stream, synchronize


class Module:
    """``torch.pretended``, with the names that ``torch.cuda`` has."""

    Stream, Event = Stream, Event
    current_stream = staticmethod(current_stream)
    set_stream = staticmethod(set_stream)
    synchronize = staticmethod(synchronize)

    def is_available(self) -> bool:
        return bool(ACTIVE)

    is_initialized = is_available

    def device_count(self) -> int:
        return len(ACTIVE)

    def current_device(self) -> int:
        return 0

    def set_device(self, device: Any) -> None:
        pass

    def stream(self, stream: Stream) -> Stream:
        return stream

    def empty_cache(self) -> None:
        active().cache_emptied += 1

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        return active().memory.free, active().memory.total

    def memory_allocated(self, device: Any = None) -> int:
        return active().memory.used

    memory_reserved = memory_allocated

    def max_memory_allocated(self, device: Any = None) -> int:
        return active().memory.peak

    max_memory_reserved = max_memory_allocated

    def reset_peak_memory_stats(self, device: Any = None) -> None:
        active().memory.reset_peak()

    def memory_stats(self, device: Any = None) -> dict[str, int]:
        used, peak = active().memory.used, active().memory.peak
        kinds = "allocated_bytes", "reserved_bytes"
        return {f"{k}.all.{of}": n for k in kinds for of, n in (("current", used), ("peak", peak))}

    def get_device_capability(self, device: Any = None) -> dict[str, Any]:
        refused = () if active().memory.float64 else DOUBLE
        types = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
        return {"supported_dtypes": types.difference(refused)}

    def manual_seed_all(self, seed: int) -> None:
        pass

    def _is_in_bad_fork(self) -> bool:
        return False


class Hook(_DummyPrivateUse1Hook):
    def is_available(self) -> bool:
        return bool(ACTIVE)


LIBRARIES: list[torch.library.Library] = []
"""Kernels are registered for as long as these live."""


@cache
def module() -> Module:
    """Register the device; its module."""
    made = Module()
    _setup_privateuseone_for_python_backend(NAME, backend_module=made, hook=Hook())
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(lambda op, *a, **k: run(active(), op, *a, **k), "PrivateUse1")
    special = torch.library.Library("aten", "IMPL")
    for name, function in SPECIAL.items():
        special.impl(name, partial(_special, function), "PrivateUse1")
    LIBRARIES.extend([everything, special])
    return made


def _special(function: Any, *args: Any, **kwargs: Any) -> Any:
    return function(active(), *args, **kwargs)
