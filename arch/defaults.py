"""What new tensors are where nothing is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def usual_defaults() -> Iterator[None]:
    """On the CPU and in float32, whatever device and precision the host has set for new tensors."""
    dtype = torch.get_default_dtype()
    with nullcontext() if torch.empty(0).device.type == "cpu" else torch.device("cpu"):
        try:
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(dtype)
