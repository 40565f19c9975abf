"""oneDNN's fused operators: a product or convolution with GELU, and one that is added to a tensor.

They are internal operators of torch, made for its compiler. Where they are missing, public
operators compute the same.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def has_internal_operators(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether oneDNN's fused operators are there for such tensors."""
    if device.type != "cpu" or torch.compiler.is_compiling():  # the compiler does its own fusing
        return False
    return torch.backends.mkldnn.enabled and _computes(dtype)


@cache
def _computes(dtype: torch.dtype) -> bool:
    convolutions = (
        "_convolution_pointwise",
        "_convolution_pointwise_",
        "_convolution_transpose_pointwise",
    )
    packing = "_reorder_convolution_weight", "_reorder_linear_weight"
    names = *convolutions, *packing, "_linear_pointwise", "_is_mkldnn_bf16_supported"
    if not torch.backends.mkldnn.is_available() or not all(
        hasattr(torch.ops.mkldnn, name) for name in names
    ):
        return False
    return dtype == torch.float32 or (
        dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def convolve_gelu(
    image: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], groups: int
) -> Tensor:
    """gelu of a convolution: (B, C, H, W), channels last -> (B, O, h, w).

    ``padding`` is the zero padding in (rows, columns).
    """
    if not has_internal_operators(image.dtype, image.device):
        return F.gelu(F.conv2d(image, weight, bias, padding=padding, groups=groups))
    return torch.ops.mkldnn._convolution_pointwise(
        image, weight, bias, list(padding), [1, 1], [1, 1], groups, "gelu", [], "none"
    )


def transposed_gelu(
    image: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int]
) -> Tensor:
    """gelu of a transposed convolution of stride 2: (B, C, H, W), channels last -> (B, O, h, w)."""
    if not has_internal_operators(image.dtype, image.device):
        return F.gelu(F.conv_transpose2d(image, weight, bias, stride=2, padding=padding))
    return torch.ops.mkldnn._convolution_transpose_pointwise(
        image, weight, bias, list(padding), [0, 0], [2, 2], [1, 1], 1, "gelu", [], "none"
    )


TYPICAL_ROWS = 64, 256
"""Rows and columns of the image for which weights of 1x1 convolutions are packed; in float32 other
sizes are as fast."""


def pack_pointwise(weight: Tensor) -> Tensor:
    """Pack the weight (O, C) of a product as that of a 1x1 convolution, for `add_convolution_`."""
    kernel = weight.detach()[:, :, None, None].contiguous(memory_format=torch.channels_last)
    size = [1, weight.shape[1], *TYPICAL_ROWS]
    return torch.ops.mkldnn._reorder_convolution_weight(kernel, [0, 0], [1, 1], [1, 1], 1, size)


def add_convolution_(rows: Tensor, x: Tensor, packed: Tensor, bias: Tensor | None) -> None:
    """rows (h, W, O) += 1x1 convolution of x (h, W, C), with a weight from `pack_pointwise`."""
    into, image = (tensor[None].permute(0, 3, 1, 2) for tensor in (rows, x))
    torch.ops.mkldnn._convolution_pointwise_.binary(
        into, image, packed, bias, [0, 0], [1, 1], [1, 1], 1, "add", 1.0, None, [], None
    )
