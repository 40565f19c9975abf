"""What decides on this machine's processor which of several equal algorithms is the fastest."""

from __future__ import annotations

from functools import cache

import torch


@cache
def _capabilities() -> dict[str, object]:
    """The processor's capabilities as torch names them; empty if this torch can't tell."""
    try:
        return dict(torch.cpu.get_capabilities())
    except (AttributeError, RuntimeError):
        return {}


def has_matrix_unit() -> bool:
    """Whether the processor has AMX.

    Products in bfloat16 then cost next to nothing, so algorithms that save products are slower.
    """
    return bool(_capabilities().get("amx_bf16", False))


def is_intel() -> bool:
    """Whether the processor is Intel's, for which MKL has its fastest kernels.

    MKL is behind torch's attention and plain matrix products.
    """
    return "intel" in str(_capabilities().get("cpu_name", "")).lower()
