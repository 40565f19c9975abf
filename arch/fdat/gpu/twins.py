"""What the fused operators compute, in plain PyTorch: these functions define them.

All work on rows of one image, channels last. ``x`` (above + h + below, W, C) are the rows that an
operator reads, with at most one halo row ``above`` and ``below``; where one is missing the image
ends there, and zeros take its place after the norm (or, in the feed-forward half, after GELU).
``out`` is (h, W, C). ``norm_weight`` and ``norm_bias`` (C,) are in at least float32.

They run wherever no kernel is to be had, so they take few passes: LayerNorm of float16 is the
device's own, which sums in float32 whatever the type of its input. In bfloat16 it is float32, because
rounded weights cost more than a decibel there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.attention import attend
from ..engine.rows import add_windows_, as_image, as_rows, convolve_band, to_windows

WINDOWS = 2**11
"""Windows whose attention is computed at a time, which bounds the memory for q, k and v."""


def _normalise(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    if x.dtype == torch.bfloat16:
        return F.layer_norm(x.to(weight.dtype), weight.shape, weight, bias, eps).to(x.dtype)
    return F.layer_norm(x, weight.shape, weight.to(x.dtype), bias.to(x.dtype), eps)


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
    normed = _normalise(x, norm_weight, norm_bias, eps)
    torch.add(x[above : above + height], _gelu_depthwise(normed, above, below, depthwise), out=out)
    normed = normed[above : above + height]
    rows = max(1, WINDOWS // -(-out.shape[1] // window)) * window
    for start in range(0, height, rows):
        place = slice(start, start + rows)
        sides = F.linear(to_windows(normed[place], window), qkv).unflatten(-1, (3, heads, -1))
        attended = attend(sides, scale, position_bias[None], products=False)
        add_windows_(out[place], F.linear(attended, projection, projection_bias), window)


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
    normed = _normalise(x, norm_weight, norm_bias, eps)
    mixed = _gelu_depthwise(normed, above, below, depthwise)
    normed = normed[above : above + height]
    gate = torch.sigmoid(F.linear(normed, gate_weight, gate_bias))  # (h, W, 1)
    torch.addcmul(x[above : above + height], mixed, gate, out=out)
    out += F.linear(normed, matrix, bias)


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
    hidden = F.gelu(F.linear(_normalise(x, norm_weight, norm_bias, eps), expand))
    hidden = convolve_band(hidden, not above, not below, mix, groups=mix.shape[0])
    torch.add(x[above : above + out.shape[0]], F.linear(hidden, contract), out=out)


def gate_sum(
    x: Tensor,
    above: int,
    below: int,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    depthwise: Tensor,
) -> Tensor:
    """Sum of gelu(depthwise(LayerNorm(x))) over the rows without the halo: (C,).

    In float32, or in float64 for float64.
    """
    normed = _normalise(x, norm_weight, norm_bias, eps)
    mixed = _gelu_depthwise(normed, above, below, depthwise)
    return mixed.sum((0, 1), dtype=norm_weight.dtype)


def gram(x: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float) -> Tensor:
    """d^T d, and below it 1^T d, for the tokens d = LayerNorm(x): (C + 1, C).

    The pilot is part of ``norm_bias``. d is not rounded to half precision, only the products' inputs
    are, in a kernel; the sums are in float32, or in float64 for float64.
    """
    tokens = F.layer_norm(x.to(norm_weight.dtype), norm_weight.shape, norm_weight, norm_bias, eps)
    tokens = tokens.flatten(0, 1)  # (N, C)
    return torch.cat([tokens.T @ tokens, tokens.sum(0, keepdim=True)])


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
