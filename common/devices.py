"""Which accelerator this machine has."""

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
