"""Facts about a network's surroundings that every engine must respect, one helper for each.

- `without_autocast`: engines choose their precision themselves.
- `is_altered`: engines read weights in place of calling layers, so they must know of hooks.
- `usual_defaults`: networks are made and loaded alike, whatever the host has set for new tensors.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from ..common.defaults import cpu_by_default

_OWN_CODE = ("torch.nn.", f"{__name__.rpartition('.')[0]}.")
_loading = threading.RLock()


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which operators on this device keep the types of what they are given.

    Packed weights fit tensors of one type only.
    """
    if device.type in ("cpu", "cuda", "mps", "xpu"):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def is_hooked(module: nn.Module) -> bool:
    """Whether hooks or a ``forward`` of its own make this module do something else.

    Modules inside it are not looked at.
    """
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def is_altered(network: nn.Module) -> bool:
    """Whether any part of a network is hooked, or of a class of neither PyTorch nor this
    package."""
    return any(
        is_hooked(module) or not type(module).forward.__module__.startswith(_OWN_CODE)
        for module in network.modules()
    )


@contextmanager
def usual_defaults() -> Iterator[None]:
    """New tensors are on the CPU, in float32, and no inference tensors, whose writes are not counted.

    torch has one default dtype for all threads, so two loads that wait for each other leave the
    host's own behind.
    """
    with _loading, torch.inference_mode(False), cpu_by_default():
        dtype = torch.get_default_dtype()
        try:
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(dtype)
