"""Precisions by name, and copies of a model in another one."""

from __future__ import annotations

import copy

import torch
from spandrel import ImageModelDescriptor

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
PRECISIONS = ("auto", *DTYPES)


def resolve_precision(
    precision: str, model: ImageModelDescriptor, auto: torch.dtype
) -> torch.dtype:
    """The dtype that ``precision`` names for this model; ``auto`` is what "auto" means.

    Raises:
        ValueError: an unknown name, or one that the model doesn't support.
    """
    if precision == "auto":
        return auto
    if precision not in DTYPES:
        raise ValueError(
            f"precision {precision!r} is not known; use one of {', '.join(PRECISIONS)}"
        )
    dtype = DTYPES[precision]
    if not supports(model, dtype):
        raise ValueError(
            f"{model.architecture.name} does not support {precision}; use precision 'auto' or "
            + " or ".join(repr(name) for name, other in DTYPES.items() if supports(model, other))
        )
    return dtype


def supports(model: ImageModelDescriptor, dtype: torch.dtype) -> bool:
    """Whether the architecture is known to work in ``dtype``."""
    return {torch.float16: model.supports_half, torch.bfloat16: model.supports_bfloat16}.get(
        dtype, True
    )


def best_dtype(model: ImageModelDescriptor, device: torch.device) -> torch.dtype:
    """float16 or bfloat16 on CUDA devices that compute in it and models that support it, else
    float32."""
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        if model.supports_half and major >= 7:
            return torch.float16
        if model.supports_bfloat16 and major >= 8:
            return torch.bfloat16
    return torch.float32


def cast_copy(model: ImageModelDescriptor, dtype: torch.dtype) -> ImageModelDescriptor:
    """A copy of the descriptor with its own weights in ``dtype``, in eval mode; the original is not
    touched.

    What a host attached to the original (``patcher``) stays with it.
    """
    untouched = [model.architecture, getattr(model, "patcher", None)]
    duplicate = copy.deepcopy(model, {id(value): value for value in untouched})
    vars(duplicate).pop("patcher", None)
    duplicate.model.requires_grad_(False).to(dtype)
    return duplicate.eval()
