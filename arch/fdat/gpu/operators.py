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


@torch.library.custom_op(f"{NAMESPACE}::gate_sum", mutates_args=("parts",))
def gate_sum(
    x: Tensor,
    parts: Tensor,
    first: bool,
    above: int,
    below: int,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    depthwise: Tensor,
) -> None:
    """See `twins.gate_sum`."""
    norm = norm_weight, norm_bias, eps
    compute(twins.gate_sum, (x, parts, first, above, below, *norm, depthwise))


@torch.library.custom_op(f"{NAMESPACE}::gram", mutates_args=("parts", "pilot"))
def gram(
    x: Tensor,
    parts: Tensor,
    pilot: Tensor,
    first: bool,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
) -> None:
    """See `twins.gram`."""
    compute(twins.gram, (x, parts, pilot, first, norm_weight, norm_bias, eps))


@torch.library.custom_op(f"{NAMESPACE}::fold_gate", mutates_args=())
def fold_gate(
    parts: Tensor,
    tokens: int,
    down: Tensor,
    up: Tensor,
    projection: Tensor,
    bias: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """See `twins.fold_gate`."""
    return compute(twins.fold_gate, (parts, tokens, down, up, projection, bias, dtype))


@torch.library.custom_op(f"{NAMESPACE}::fold_channel", mutates_args=())
def fold_channel(
    parts: Tensor,
    pilot: Tensor,
    tokens: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    temperature: Tensor,
    outputs: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """See `twins.fold_channel`."""
    weights = query, key, value, temperature, outputs
    return compute(twins.fold_channel, (parts, pilot, tokens, *weights, dtype))


@torch.library.custom_op(f"{NAMESPACE}::convolve", mutates_args=("out",))
def convolve(
    x: Tensor,
    out: Tensor,
    above: int,
    below: int,
    weight: Tensor,
    bias: Tensor | None,
    skip: Tensor | None,
    enlarge: int,
    slope: float,
    shuffle: int,
) -> None:
    """See `twins.convolve`."""
    how = enlarge, slope, shuffle
    compute(twins.convolve, (x, out, above, below, weight, bias, skip, *how))


@torch.library.custom_op(f"{NAMESPACE}::corners", mutates_args=())
def corners(
    x: Tensor, above: int, below: int, kernel: Tensor, packed: Tensor, bias: Tensor, gelu: bool
) -> Tensor:
    """See `twins.corners`."""
    return compute(twins.corners, (x, above, below, kernel, packed, bias, gelu))


@window_half.register_fake
@channel_half.register_fake
@feed_forward.register_fake
@gate_sum.register_fake
@gram.register_fake
@convolve.register_fake
def _nothing(*arguments) -> None:
    """They write to an argument, whose shape is known."""


@fold_gate.register_fake
def _fold_gate(parts, tokens, down, up, projection, bias, dtype):
    return parts.new_empty(projection.numel() + bias.numel(), dtype=dtype)


@fold_channel.register_fake
def _fold_channel(parts, pilot, tokens, query, key, value, temperature, outputs, dtype):
    return parts.new_empty(outputs.shape, dtype=dtype)


@corners.register_fake
def _corners(x, above, below, kernel, packed, bias, gelu):
    height, width = x.shape[0] - above - below, x.shape[1]
    return x.new_empty(2 * height, 2 * width, kernel.shape[1])
