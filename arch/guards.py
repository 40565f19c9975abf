"""Helpers against what a host program may have set or changed around a network.

- `without_autocast`: engines choose their precision themselves.
- `is_altered`: engines read weights instead of calling layers, so they would miss hooks.
- `usual_defaults`: networks are built and loaded the same way, whatever defaults the host has set.
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
    """A context in which operators on this device keep the types of their inputs.

    Packed weights work with tensors of one type only.
    """
    if device.type in ("cpu", "cuda", "mps", "xpu"):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def is_hooked(module: nn.Module) -> bool:
    """Whether a module has hooks, or a ``forward`` that was set on this instance.

    Modules inside it are not checked.
    """
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def is_altered(network: nn.Module) -> bool:
    """Whether any module of a network is hooked, or its class is neither PyTorch's nor ours."""
    return any(
        is_hooked(module) or not type(module).forward.__module__.startswith(_OWN_CODE)
        for module in network.modules()
    )


@contextmanager
def usual_defaults() -> Iterator[None]:
    """A context in which new tensors are on the CPU, in float32, and no inference tensors.

    Writes to inference tensors are not counted, so changes of weights would go unnoticed. torch has
    one default dtype for all threads: a lock lets one load at a time change it and restore it.
    """
    with _loading, torch.inference_mode(False), cpu_by_default():
        dtype = torch.get_default_dtype()
        try:
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(dtype)
