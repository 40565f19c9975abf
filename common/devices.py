"""Which accelerators this machine has."""

from __future__ import annotations

import torch


def current_accelerator() -> torch.device | None:
    """The accelerator of this machine; None if there is none."""
    if hasattr(torch, "accelerator"):
        return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kinds = {"cuda": torch.cuda, "xpu": getattr(torch, "xpu", None), "mps": torch.backends.mps}
    return next(
        (torch.device(kind) for kind, of in kinds.items() if of and of.is_available()), None
    )


def accelerators() -> list[str]:
    """The names of all, of the kind of the current one: cuda:0, cuda:1."""
    current = current_accelerator()
    if current is None:
        return []
    module = getattr(torch, current.type)
    count = module.device_count() if hasattr(module, "device_count") else 1
    return [f"{current.type}:{number}" for number in range(count)]
