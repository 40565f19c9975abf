"""Precisions by name, and copies of a model in another precision."""

from __future__ import annotations

import copy
from itertools import chain
from weakref import WeakKeyDictionary

import torch
from spandrel import ImageModelDescriptor
from torch import nn

from ..common.fingerprint import Fingerprint, fingerprint
from . import accelerator
from .protocol import Placement

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


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
            f"precision {precision!r} is not known; use one of auto, {', '.join(DTYPES)}"
        )
    dtype = DTYPES[precision]
    if not supports(model, dtype):
        raise ValueError(
            f"{model.architecture.name} does not support {precision}; use precision 'auto' or "
            + " or ".join(repr(name) for name, other in DTYPES.items() if supports(model, other))
        )
    return dtype


def precision_name(precision: str, model: ImageModelDescriptor, placement: Placement) -> str:
    """The name of the dtype that ``precision`` means in that placement."""
    dtype = resolve_precision(precision, model, placement.auto_dtype(model))
    return next(name for name, other in DTYPES.items() if other == dtype)


def supports(model: ImageModelDescriptor, dtype: torch.dtype) -> bool:
    """Whether the architecture is known to work in ``dtype``."""
    return {torch.float16: model.supports_half, torch.bfloat16: model.supports_bfloat16}.get(
        dtype, True
    )


def best_dtype(model: ImageModelDescriptor, device: torch.device) -> torch.dtype:
    """float16 or bfloat16 if both the device and the model support it, else float32."""
    if model.supports_half and accelerator.computes_half(device):
        return torch.float16
    if model.supports_bfloat16 and accelerator.computes_bfloat16(device):
        return torch.bfloat16
    return torch.float32


_copies: WeakKeyDictionary[
    nn.Module, tuple[Fingerprint, dict[torch.dtype, ImageModelDescriptor]]
] = WeakKeyDictionary()


def in_precision(model: ImageModelDescriptor, dtype: torch.dtype) -> ImageModelDescriptor:
    """The descriptor itself if it is in ``dtype``, else a copy in that precision.

    A copy is made once and lives as long as the model. It is made again only after weights of the
    model were written to, replaced, cast or moved.
    """
    if model.dtype == dtype:
        return model
    state = fingerprint(chain(model.model.parameters(), model.model.buffers()))
    known = _copies.get(model.model)
    if known is None or known[0] != state:
        known = _copies[model.model] = (state, {})
    copies = known[1]
    if dtype not in copies:
        copies[dtype] = cast_copy(model, dtype)
    return copies[dtype]


def forget_copies(model: ImageModelDescriptor) -> None:
    """Drop the copies that `in_precision` made."""
    _copies.pop(model.model, None)


def cast_copy(model: ImageModelDescriptor, dtype: torch.dtype) -> ImageModelDescriptor:
    """A copy of the descriptor with its own weights in ``dtype``, in eval mode.

    The original is not changed; what a host attached to it (``patcher``) is not copied.
    """
    untouched = [model.architecture, getattr(model, "patcher", None)]
    duplicate = copy.deepcopy(model, {id(value): value for value in untouched})
    vars(duplicate).pop("patcher", None)
    hooks = duplicate.model._forward_hooks
    for key, hook in list(hooks.items()):  # that of a call in another thread is not the copy's
        if getattr(hook, "of_one_call", False):
            del hooks[key]
    duplicate.model.requires_grad_(False).to(dtype)
    return duplicate.eval()
