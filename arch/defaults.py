"""What new tensors are where nothing is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def usual_defaults() -> Iterator[None]:
    """On the CPU, in float32 and no inference tensors (whose changes are not counted), whatever the
    host has set."""
    dtype = torch.get_default_dtype()
    on_cpu = nullcontext() if torch.empty(0).device.type == "cpu" else torch.device("cpu")
    with torch.inference_mode(False), on_cpu:
        try:
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(dtype)
