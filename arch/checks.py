"""Whether tensors of a file can be weights, and whether a network got them as they are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .errors import ModelLoadError

QUANTISED_TYPES = (torch.int8, torch.uint8, torch.int16)  # index tensors have larger types
SCALES = (  # how names of what quantised weights are multiplied by end, and of their marks
    *("scale_weight", "weight_scale", "weight_scale_inv", "weight_scale_2", "scaled_fp8"),
    *("weight.absmax", "weight.quant_map", ".qweight", ".qzeros"),
)


def check_kinds(tensors: Mapping[str, Tensor]) -> None:
    """Raise ModelLoadError for a tensor that is no plain array of numbers in memory, and for weights
    that are to be multiplied by others beside them."""
    if scale := next((key for key in tensors if key.endswith(SCALES)), None):
        raise ModelLoadError(
            f"the tensor {scale!r} belongs to quantised weights; floating-point ones were expected"
        )
    for key, value in tensors.items():
        if value.is_nested:
            raise ModelLoadError(f"the tensor {key!r} is nested; no usable weight")
        if value.layout is not torch.strided or value.is_meta or value.is_complex():
            raise ModelLoadError(
                f"the tensor {key!r} is {value.layout}, {value.dtype}, on {value.device}; no usable weight"
            )
        if value.is_quantized or (value.dtype in QUANTISED_TYPES and value.ndim > 1):
            raise ModelLoadError(
                f"the tensor {key!r} is {value.dtype}: quantised or packed weights; floating-point ones were expected"
            )
        if value.untyped_storage().nbytes() < value.numel() * value.element_size():
            raise ModelLoadError(
                f"the tensor {key!r} claims {tuple(value.shape)} but stores less; the checkpoint is damaged"
            )


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise ModelLoadError for NaN and infinity. A tensor under several names is read once."""
    for key, value in {id(value): (key, value) for key, value in tensors.items()}.values():
        numbers = value.float() if value.element_size() == 1 else value
        if value.is_floating_point() and not numbers.isfinite().all():
            raise ModelLoadError(
                f"the tensor {key!r} holds NaN or infinite values; the checkpoint is damaged"
            )


def check_precision(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Raise ModelLoadError where the network has fractions and the file whole numbers.

    Casting a whole checkpoint to integers leaves hardly anything of its weights.
    """
    for key, value in network.state_dict().items():
        given = tensors.get(key)
        if given is not None and value.is_floating_point() and not given.is_floating_point():
            raise ModelLoadError(
                f"the tensor {key!r} is {given.dtype}, where the network has fractions: its weights were cast to "
                "whole numbers and are destroyed; use the original file"
            )
