"""What the processor of this machine is, where the quickest of several equal ways depends on it."""

from __future__ import annotations

from functools import cache

import torch


@cache
def _capabilities() -> dict[str, object]:
    """As torch names them; none where it is too old to, or can't tell."""
    try:
        return dict(torch.cpu.get_capabilities())
    except (AttributeError, RuntimeError):
        return {}


def has_matrix_unit() -> bool:
    """Whether it has AMX: products in bfloat16 then cost next to nothing, and all that saves them
    costs more."""
    return bool(_capabilities().get("amx_bf16", False))


def is_intel() -> bool:
    """Whether MKL, which is behind torch's attention and plain matrix products, gives it its best
    kernels."""
    return "intel" in str(_capabilities().get("cpu_name", "")).lower()
