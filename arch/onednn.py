"""oneDNN's operators that take GELU into a product or a convolution, and public ones where they are missing.

The former are internal to torch: those of its own compiler.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def has_internal_operators(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether oneDNN's fused operators are there for such tensors."""
    if device.type != "cpu" or torch.compiler.is_compiling():  # which finds its own operators
        return False
    return torch.backends.mkldnn.enabled and _computes(dtype)


@cache
def _computes(dtype: torch.dtype) -> bool:
    names = "_convolution_pointwise", "_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported"
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def convolve_gelu(image: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], groups: int) -> Tensor:
    """gelu of a convolution: (B, C, H, W), channels last -> (B, O, h, w), with zeros around it (rows, columns)."""
    if not has_internal_operators(image.dtype, image.device):
        return F.gelu(F.conv2d(image, weight, bias, padding=padding, groups=groups))
    return torch.ops.mkldnn._convolution_pointwise(
        image, weight, bias, list(padding), [1, 1], [1, 1], groups, "gelu", [], "none"
    )
