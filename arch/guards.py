"""Facts about a network's surroundings that every engine must respect, one helper for each.

- `without_autocast`: engines choose their precision themselves.
- `is_altered`: engines read weights in place of calling layers, so they must know of hooks.
- `fingerprint`: what was made of weights is made again once they changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

_OWN_CODE = ("torch.nn.", f"{__name__.rpartition('.')[0]}.")

Fingerprint = tuple[tuple[int, torch.dtype, int], ...]


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


def fingerprint(tensors: Iterable[Tensor]) -> Fingerprint:
    """Changes when a tensor is replaced, cast, moved or written to in place.

    Address, type and version of each. Inference tensors count no versions, and neither do writes
    through ``.data`` or by fused optimisers: after those, forget what was made by hand.
    """
    return tuple((t.data_ptr(), t.dtype, 0 if t.is_inference() else t._version) for t in tensors)
