"""The fused operators, as torch.library knows them: each is a kernel or its twin (see choice.py).

Their arguments are described in twins.py. Annotations are not postponed in this file, because
``custom_op`` makes the schema of them.
"""

import torch
from torch import Tensor

from . import twins
from .choice import compute

NAMESPACE = "fdat_dense_iso"


@torch.library.custom_op(f"{NAMESPACE}::window_half", mutates_args=("out",))
def window_half(
    x: Tensor,
    out: Tensor,
    above: int,
    below: int,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    depthwise: Tensor,
    qkv: Tensor,
    position_bias: Tensor,
    projection: Tensor,
    projection_bias: Tensor,
    window: int,
    scale: float,
) -> None:
    """See `twins.window_half`."""
    weights = depthwise, qkv, position_bias, projection, projection_bias
    compute(
        twins.window_half,
        (x, out, above, below, norm_weight, norm_bias, eps, *weights, window, scale),
    )


@torch.library.custom_op(f"{NAMESPACE}::channel_half", mutates_args=("out",))
def channel_half(
    x: Tensor,
    out: Tensor,
    above: int,
    below: int,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    depthwise: Tensor,
    matrix: Tensor,
    bias: Tensor,
    gate_weight: Tensor,
    gate_bias: Tensor,
) -> None:
    """See `twins.channel_half`."""
    weights = depthwise, matrix, bias, gate_weight, gate_bias
    compute(twins.channel_half, (x, out, above, below, norm_weight, norm_bias, eps, *weights))


@torch.library.custom_op(f"{NAMESPACE}::feed_forward", mutates_args=("out",))
def feed_forward(
    x: Tensor,
    out: Tensor,
    above: int,
    below: int,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    expand: Tensor,
    mix: Tensor,
    contract: Tensor,
) -> None:
    """See `twins.feed_forward`."""
    weights = expand, mix, contract
    compute(twins.feed_forward, (x, out, above, below, norm_weight, norm_bias, eps, *weights))


@torch.library.custom_op(f"{NAMESPACE}::gate_sum", mutates_args=())
def gate_sum(
    x: Tensor,
    above: int,
    below: int,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    depthwise: Tensor,
) -> Tensor:
    """See `twins.gate_sum`."""
    return compute(twins.gate_sum, (x, above, below, norm_weight, norm_bias, eps, depthwise))


@torch.library.custom_op(f"{NAMESPACE}::gram", mutates_args=())
def gram(x: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float) -> Tensor:
    """See `twins.gram`."""
    return compute(twins.gram, (x, norm_weight, norm_bias, eps))


@torch.library.custom_op(f"{NAMESPACE}::corners", mutates_args=())
def corners(
    x: Tensor, above: int, below: int, kernel: Tensor, packed: Tensor, bias: Tensor, gelu: bool
) -> Tensor:
    """See `twins.corners`."""
    return compute(twins.corners, (x, above, below, kernel, packed, bias, gelu))


@window_half.register_fake
@channel_half.register_fake
@feed_forward.register_fake
def _nothing(*arguments) -> None:
    """They write to ``out``, whose shape is known."""


@gate_sum.register_fake
def _gate_sum(x, above, below, norm_weight, norm_bias, eps, depthwise):
    return torch.empty_like(norm_weight)


@gram.register_fake
def _gram(x, norm_weight, norm_bias, eps):
    dim = norm_weight.shape[0]
    return norm_weight.new_empty(dim + 1, dim)


@corners.register_fake
def _corners(x, above, below, kernel, packed, bias, gelu):
    height, width = x.shape[0] - above - below, x.shape[1]
    return x.new_empty(2 * height, 2 * width, kernel.shape[1])
