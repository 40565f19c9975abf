"""What the fused operators compute, in plain PyTorch: these functions define them.

All work on rows of one image, channels last. ``x`` (above + h + below, W, C) are the rows that an
operator reads, with at most one halo row ``above`` and ``below``; where one is missing the image
ends there, and zeros take its place after the norm (or, in the feed-forward half, after GELU).
``out`` is (h, W, C). ``norm_weight`` and ``norm_bias`` (C,) are in at least float32.

Values within an operator have the type of its weights, which may be more precise than the map's
(engine/weights.py). What a half adds to x is summed up first and then added to x, so that the map is
rounded once.

They run wherever no kernel is to be had, so they take few passes. LayerNorm of float16 is the
device's own, which sums in float32 whatever the type of its input, but its weight and bias stay in
float32 and take a pass more: rounded, they are wrong for all tokens alike, which costs up to seven
decibels. From other types it is computed in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.attention import attend
from ..engine.folding import channel_matrix, gated_projection
from ..engine.rows import (
    add_windows_,
    as_image,
    as_rows,
    convolve_band,
    repeat_rows,
    shuffle_rows,
    to_windows,
)

WINDOWS = 2**11
"""Windows whose attention is computed at a time, which bounds the memory for q, k and v."""

PILOT_TOKENS = 32
"""Tokens of the first rows whose mean is the pilot of a Gram matrix; it only has to be near."""


def _normalise(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    if x.dtype == dtype == torch.float16:
        normed = F.layer_norm(x, weight.shape, eps=eps)
        return torch.addcmul(bias, normed, weight, out=normed)
    return F.layer_norm(x.to(weight.dtype), weight.shape, weight, bias, eps).to(dtype)


def _gelu_depthwise(normed: Tensor, above: int, below: int, kernel: Tensor) -> Tensor:
    """gelu(depthwise(normed)) for the rows without the halo, by public operators alone."""
    return F.gelu(convolve_band(normed, not above, not below, kernel, groups=kernel.shape[0]))


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
    """out <- x + proj(attention(n)) + gelu(depthwise(n)) with n = LayerNorm(x), in windows.

    Args:
        depthwise: (C, 1, 3, 3).
        qkv: (3 * P, C), P: C with every head padded.
        position_bias: (heads, window**2, window**2).
        projection, projection_bias: (C, P), (C,), with AIM's channel gate folded in.
        window: side of a window; the first of ``out``'s rows begins one.
        scale: of the logits.
    """
    height, heads = out.shape[0], position_bias.shape[0]
    normed = _normalise(x, norm_weight, norm_bias, eps, qkv.dtype)
    branch = _gelu_depthwise(normed, above, below, depthwise)
    normed = normed[above : above + height]
    rows = max(1, WINDOWS // -(-out.shape[1] // window)) * window
    for start in range(0, height, rows):
        place = slice(start, start + rows)
        sides = F.linear(to_windows(normed[place], window), qkv).unflatten(-1, (3, heads, -1))
        attended = attend(sides, scale, position_bias[None], products=False)
        add_windows_(branch[place], F.linear(attended, projection, projection_bias), window)
    torch.add(x[above : above + height], branch, out=out)


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
    """out <- x + n M^T + b + sigmoid(n w^T + c) * gelu(depthwise(n)) with n = LayerNorm(x).

    Args:
        depthwise: (C, 1, 3, 3).
        matrix, bias: M (C, C) and b (C,): channel attention, folded.
        gate_weight, gate_bias: w (1, C) and c (1,): AIM's gate of the convolution's path.
    """
    height = out.shape[0]
    normed = _normalise(x, norm_weight, norm_bias, eps, matrix.dtype)
    mixed = _gelu_depthwise(normed, above, below, depthwise)
    normed = normed[above : above + height]
    gate = torch.sigmoid(F.linear(normed, gate_weight, gate_bias))  # (h, W, 1)
    branch = torch.addcmul(F.linear(normed, matrix, bias), mixed, gate)
    torch.add(x[above : above + height], branch, out=out)


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
    """out <- x + contract(depthwise(gelu(expand(LayerNorm(x))))).

    Args:
        expand: (hidden, C).
        mix: (hidden, 1, 3, 3).
        contract: (C, hidden).
    """
    hidden = F.gelu(F.linear(_normalise(x, norm_weight, norm_bias, eps, expand.dtype), expand))
    hidden = convolve_band(hidden, not above, not below, mix, groups=mix.shape[0])
    torch.add(x[above : above + out.shape[0]], F.linear(hidden, contract), out=out)


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
    """parts += gelu(depthwise(LayerNorm(x))), summed over the rows without the halo.

    Args:
        parts: (P, C), in float32, or in float64 for float64. Their sum is what counts: a kernel
            has many programs, each with a part of its own.
        first: whether ``parts`` hold nothing yet.
    """
    normed = _normalise(x, norm_weight, norm_bias, eps, depthwise.dtype)
    mixed = _gelu_depthwise(normed, above, below, depthwise)
    if first:
        parts.zero_()
    parts[0] += mixed.sum((0, 1), dtype=parts.dtype)


def gram(
    x: Tensor,
    parts: Tensor,
    pilot: Tensor,
    first: bool,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
) -> None:
    """parts += d^T d, and below it 1^T d, for the tokens d = LayerNorm(x) - pilot.

    d is not rounded to half precision, only the products' inputs are, in a kernel.

    Args:
        parts: (P, C + 1, C), see `gate_sum`.
        pilot: (C,), which the first rows set: LayerNorm's mean over a few of their tokens.
        first: whether ``parts`` and ``pilot`` hold nothing yet.
    """
    shape = norm_weight.shape
    tokens = x.flatten(0, 1)  # (N, C)
    if first:
        few = tokens[:: max(1, tokens.shape[0] // PILOT_TOKENS)][:PILOT_TOKENS]
        few = F.layer_norm(few.to(parts.dtype), shape, norm_weight, norm_bias, eps)
        pilot.copy_(few.mean(0))
        parts.zero_()
    tokens = F.layer_norm(tokens.to(parts.dtype), shape, norm_weight, norm_bias - pilot, eps)
    parts[0, :-1].addmm_(tokens.T, tokens)
    parts[0, -1] += tokens.sum(0)


def fold_gate(
    parts: Tensor,
    tokens: int,
    down: Tensor,
    up: Tensor,
    projection: Tensor,
    bias: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """`gated_projection` of (C, P) and of its bias (C,), one after the other: (C * P + C,).

    ``parts``: of `gate_sum`, for so many ``tokens``. The result is in ``dtype``.
    """
    mean = parts.sum(0) / tokens
    folded = (gated_projection(mean, down, up, weight) for weight in (projection, bias))
    return torch.cat([weight.flatten() for weight in folded]).to(dtype)


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
    """`channel_matrix` in ``dtype``: (C + 1, C). ``parts`` and ``pilot``: of `gram`."""
    weights = query, key, value, temperature, outputs
    return channel_matrix(parts.sum(0), pilot, tokens, *weights).to(dtype)


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
    """out <- skip + shuffled(leaky(convolution(enlarged(x)))).

    Args:
        out: (e * h * s, e * W * s, O / s**2).
        weight, bias: (O, C, 3, 3), channels last, and (O,).
        skip: as ``out``, or None for nothing to add.
        enlarge: e, the factor of a nearest-neighbour enlargement before the convolution.
        slope: of LeakyReLU behind it; 1 for none.
        shuffle: s, the factor of a pixel shuffle behind that.
    """
    rows = x.to(weight.dtype)
    if enlarge > 1:  # of the enlarged halo one row is enough
        rows = repeat_rows(rows, enlarge)
        rows = rows[above * (enlarge - 1) : rows.shape[0] - below * (enlarge - 1)]
    y = convolve_band(rows, not above, not below, weight, bias)
    if slope != 1:
        y = F.leaky_relu(y, slope)
    if shuffle > 1:
        y = shuffle_rows(y, shuffle)
    if skip is None:
        out.copy_(y)
    else:
        torch.add(skip, y, out=out)


def corners(
    x: Tensor, above: int, below: int, kernel: Tensor, packed: Tensor, bias: Tensor, gelu: bool
) -> Tensor:
    """ConvTranspose2d with (kernel, stride, padding) (4, 2, 1), and gelu if asked for.

    Args:
        kernel: (C, O, 4, 4), as the layer has it.
        packed: (4 * O, 4 * C), the same for the kernel: see `pack_corners`.
        bias: (O,).

    Returns:
        (2h, 2W, O)
    """
    y = as_rows(F.conv_transpose2d(as_image(x), kernel, bias, stride=2, padding=1))
    y = y[2 * above : y.shape[0] - 2 * below]
    return F.gelu(y) if gelu else y


def pack_corners(kernel: Tensor) -> Tensor:
    """(C, O, 4, 4) -> (4 * O, 4 * C): the map from four pixels that meet to four around there.

    Between input rows i and i + 1 lie output rows 2i + 1 + p; to each of them input row i + d
    contributes by kernel row 2 + p - 2d, and columns likewise. Rows of the matrix are (p, q, O), its
    columns (d, e, C).
    """
    by_row = torch.stack([kernel[:, :, 2:], kernel[:, :, :2]], 2)  # (C, O, d, p, 4)
    by_column = torch.stack([by_row[..., 2:], by_row[..., :2]], 4)  # (C, O, d, p, e, q)
    return by_column.permute(3, 5, 1, 2, 4, 0).flatten(3, 5).flatten(0, 2).contiguous()
