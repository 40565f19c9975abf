"""Protects against a default device that a host has set for new tensors."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def cpu_by_default() -> AbstractContextManager[object]:
    """A context in which tensors are made on the CPU where no device is named.

    A host may call ``torch.set_default_device``. But code here that makes small tensors (indices,
    ramps) expects the CPU, and so do constructors of networks that are loaded there.
    """
    return nullcontext() if torch.empty(0).device.type == "cpu" else torch.device("cpu")
