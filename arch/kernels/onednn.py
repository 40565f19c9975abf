"""oneDNN's fused operators: a product or convolution with GELU, and one that is added to a tensor.

They are internal operators of torch, made for its compiler. Where they are missing, or take other
arguments than those of torch 2.5 to 2.15, public operators compute the same.
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


_CONVOLUTION = "Tensor X, Tensor W, Tensor? B, int[] padding"
_ATTRIBUTE = "str attr, Scalar?[] scalars, str? algorithm"
SCHEMAS = (
    f"mkldnn::_convolution_pointwise({_CONVOLUTION}, int[] stride, int[] dilation, int groups, "
    f"{_ATTRIBUTE}) -> Tensor",
    "mkldnn::_convolution_pointwise_.binary(Tensor(a!) other, "
    f"{_CONVOLUTION}, int[] stride, int[] dilation, int groups, str binary_attr, Scalar? alpha, "
    "str? unary_attr, Scalar?[] unary_scalars, str? unary_algorithm) -> Tensor(a!)",
    f"mkldnn::_convolution_transpose_pointwise({_CONVOLUTION}, int[] output_padding, int[] stride, "
    f"int[] dilation, int groups, {_ATTRIBUTE}) -> Tensor",
    "mkldnn::_reorder_convolution_weight(Tensor self, int[2] padding, int[2] stride, "
    "int[2] dilation, int groups, int[]? input_size) -> Tensor",
    "mkldnn::_reorder_linear_weight(Tensor self) -> Tensor",
    f"mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, {_ATTRIBUTE}) -> Tensor",
    "mkldnn::_is_mkldnn_bf16_supported() -> bool",
)
"""The operators as they are called here."""


@cache
def _computes(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available() or not all(map(_is_known, SCHEMAS)):
        return False
    return dtype == torch.float32 or (
        dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _is_known(schema: str) -> bool:
    """Whether torch has this operator, with these types of arguments; more of them have defaults."""
    wanted = torch._C.parse_schema(schema)
    operator = getattr(torch.ops.mkldnn, wanted.name.rpartition("::")[2], None)
    operator = getattr(operator, wanted.overload_name or "default", None)
    if operator is None:
        return False
    found = operator._schema.arguments
    types, expected = ([str(one.type) for one in some] for some in (found, wanted.arguments))
    rest = found[len(expected) :]
    return types[: len(expected)] == expected and all(one.has_default_value() for one in rest)


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
