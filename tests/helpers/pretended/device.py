"""`pretended_device`: an accelerator without hardware, while a test runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._device import _device_constructors

from .memory import NAME
from .registration import module
from .state import ACTIVE, Pretended
from .streams import Event, Stream, current_stream, set_stream, synchronize

CLONE = torch.UntypedStorage.clone
PINNABLE = "empty", "empty_like", "empty_strided", "zeros", "ones", "full"


@contextmanager
def pretended_device(
    *, memory: int = 2**40, float64: bool = True, pinning: bool = True
) -> Iterator[Pretended]:
    """A device that computes on the CPU and behaves like one that does not.

    Args:
        memory: its bytes; what is beyond raises `torch.OutOfMemoryError`.
        float64: False: it refuses float64 with a TypeError, as MPS does.
        pinning: False: main memory can't be pinned; asking for it raises the RuntimeError that
            torch raises where there is no accelerator.

    Raises:
        AssertionError: at the end, if something happened whose result on a real device would be a
            matter of luck (`DeviceFault`), even if the code under test has swallowed it.
    """
    if ACTIVE:
        raise RuntimeError("a device is pretended already; there is one at a time")
    made = module()
    pretended = Pretended(memory, float64, pinning)
    _device_constructors()  # a cache of torch: its functions, before they are replaced here
    replaced: dict[str, Any] = {"Stream": Stream, "Event": Event}
    replaced |= {name: _pinnable(getattr(torch, name), pretended) for name in PINNABLE}
    accelerator: dict[str, Any] = {
        name: getattr(made, name)
        for name in (
            *("current_stream", "set_stream", "synchronize", "empty_cache", "memory_allocated"),
            *("memory_reserved", "max_memory_allocated", "max_memory_reserved"),
            *("reset_peak_memory_stats", "memory_stats", "get_device_capability"),
        )
    }
    accelerator["get_memory_info"] = made.mem_get_info
    accelerator |= {"current_stream": current_stream, "set_stream": set_stream}
    accelerator["synchronize"] = synchronize
    ACTIVE.append(pretended)
    try:
        with (
            mock.patch.multiple(torch, **replaced),
            mock.patch.multiple(torch.accelerator, **accelerator),
            mock.patch.object(Tensor, "pin_memory", _pin_memory),
            mock.patch.object(Tensor, "is_pinned", _is_pinned),
            mock.patch.object(torch.UntypedStorage, "clone", _clone),
        ):
            yield pretended
    finally:
        ACTIVE.pop()
    if pretended.timeline.faults:
        raise AssertionError(
            "\n".join(["the device's results are luck:", *pretended.timeline.faults])
        )


def _pinnable(function: Callable[..., Tensor], pretended: Pretended) -> Callable[..., Tensor]:
    """A constructor of torch that can pin memory, which torch can't without hardware."""

    @wraps(function)
    def make(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Tensor:
        made = function(*args, **kwargs)
        return _pinned(made, pretended) if pin_memory else made

    return make


def _pinned(x: Tensor, pretended: Pretended) -> Tensor:
    if x.device.type != "cpu":
        raise RuntimeError(f"Only dense CPU tensors can be pinned, this one is on {x.device}")
    if not pretended.pinning:
        raise RuntimeError(
            "pin_memory=True requires a CUDA or other accelerator backend; no pinned memory allocator is available "
            "on this system."
        )
    return pretended.memory.pin(x)


def _pin_memory(self: Tensor, device: Any = None) -> Tensor:
    return self if _is_pinned(self) else _pinned(self.clone(), ACTIVE[-1])


def _is_pinned(self: Tensor, device: Any = None) -> bool:
    return ACTIVE[-1].memory.is_pinned(self)


def _clone(self: torch.UntypedStorage) -> torch.UntypedStorage:
    """Copies of whole storages (deepcopy of a buffer), which torch would crash on."""
    if self.device.type != NAME:
        return CLONE(self)
    whole = torch.empty(0, dtype=torch.uint8, device=self.device)
    return whole.set_(self, 0, (self.nbytes(),), (1,)).clone().untyped_storage()
