"""The attention halves of the two kinds of blocks: one read and one write of the map each."""

import triton
import triton.language as tl

from .common import channels_at, depthwise_tile, gelu, halo_moments, normed_tile, own_of


@triton.jit
def begun(x, bias, begin, inside, first, C: tl.constexpr, KC: tl.constexpr):
    """What the paths are added to: x and the bias, channels [first, first + KC)."""
    c = first + tl.arange(0, KC)
    mask = inside[:, None] & (c < C)[None, :]
    total = tl.load(x + begin[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
    return total + tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)[None, :]


@triton.jit
def finish(out, total, begin, inside, first, C: tl.constexpr, KC: tl.constexpr):
    """Write channels [first, first + KC)."""
    c = first + tl.arange(0, KC)
    mask = inside[:, None] & (c < C)[None, :]
    tl.store(out + begin[:, None] + c[None, :], total.to(out.dtype.element_ty), mask=mask)


@triton.jit
def window_half(
    x,
    out,
    norm_weight,
    norm_bias,
    kernel,
    qkv,
    position_bias,
    projection,
    projection_bias,
    eps,
    scale,
    rows,
    width,
    above,
    below,
    C: tl.constexpr,
    CA: tl.constexpr,
    CB: tl.constexpr,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    WINDOW: tl.constexpr,
    HALO: tl.constexpr,
    KC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One window: the sum of all paths is built up in registers, head after head.

    The convolution's path is in the same kernel, because it reads the same tokens: apart it would
    cost a map written and two read. Keys outside the image are zero and stay in the softmax.
    """
    TOKENS: tl.constexpr = WINDOW * WINDOW
    across = tl.cdiv(width, WINDOW)
    top = tl.program_id(0) // across * WINDOW
    left = tl.program_id(0) % across * WINDOW
    around, scales = halo_moments(
        x, eps, top, left, rows, width, above, below, C, WINDOW, WINDOW, HALO
    )
    mean, deviation = own_of(around, WINDOW, WINDOW), own_of(scales, WINDOW, WINDOW)
    c = tl.arange(0, CA)
    d = tl.arange(0, DP)
    t = tl.arange(0, TOKENS)
    row, column = top + t // WINDOW, left + t % WINDOW
    inside = (row < rows) & (column < width)
    kind = qkv.dtype.element_ty
    begin = channels_at(row, column, width, C)
    total = begun(x, projection_bias, begin, inside, 0, C, CA)
    total += gelu(
        depthwise_tile(
            x,
            norm_weight,
            norm_bias,
            kernel,
            around,
            scales,
            top,
            left,
            rows,
            width,
            above,
            below,
            0,
            C,
            CA,
            WINDOW,
            WINDOW,
        )
    )
    if CB > 0:
        tail = begun(x, projection_bias, begin, inside, CA, C, CB)
        tail += gelu(
            depthwise_tile(
                x,
                norm_weight,
                norm_bias,
                kernel,
                around,
                scales,
                top,
                left,
                rows,
                width,
                above,
                below,
                CA,
                C,
                CB,
                WINDOW,
                WINDOW,
            )
        )

    side = HEADS * D * C
    for head in range(HEADS):
        q = tl.zeros((TOKENS, DP), tl.float32)
        k = tl.zeros((TOKENS, DP), tl.float32)
        v = tl.zeros((TOKENS, DP), tl.float32)
        for first in range(0, C, KC):
            n = normed_tile(
                x, norm_weight, norm_bias, begin, inside, first, mean, deviation, C, KC
            ).to(kind)
            ck = first + tl.arange(0, KC)
            place = qkv + (head * D + d)[None, :] * C + ck[:, None]  # (KC, DP)
            matrix = (ck < C)[:, None] & (d < D)[None, :]
            part = tl.load(place, mask=matrix, other=0.0)
            q += tl.dot(n, part, input_precision=PRECISION)
            part = tl.load(place + side, mask=matrix, other=0.0)
            k += tl.dot(n, part, input_precision=PRECISION)
            part = tl.load(place + 2 * side, mask=matrix, other=0.0)
            v += tl.dot(n, part, input_precision=PRECISION)
        logits = tl.dot(q.to(kind), tl.trans(k.to(kind)), input_precision=PRECISION) * scale
        place = position_bias + (head * TOKENS + t)[:, None] * TOKENS + t[None, :]
        logits += tl.load(place).to(tl.float32)
        share = tl.exp(logits - tl.max(logits, 1)[:, None])
        share = share / tl.sum(share, 1)[:, None]
        attended = tl.dot(share.to(kind), v.to(kind), input_precision=PRECISION)
        place = projection + c[None, :] * (HEADS * D) + (head * D + d)[:, None]  # (DP, CA)
        back = tl.load(place, mask=(c < C)[None, :] & (d < D)[:, None], other=0.0)
        total += tl.dot(attended.to(kind), back, input_precision=PRECISION)
        if CB > 0:
            b = CA + tl.arange(0, CB)
            place = projection + b[None, :] * (HEADS * D) + (head * D + d)[:, None]
            back = tl.load(place, mask=(b < C)[None, :] & (d < D)[:, None], other=0.0)
            tail += tl.dot(attended.to(kind), back, input_precision=PRECISION)

    finish(out, total, begin, inside, 0, C, CA)
    if CB > 0:
        finish(out, tail, begin, inside, CA, C, CB)


@triton.jit
def channel_half(
    x,
    out,
    norm_weight,
    norm_bias,
    kernel,
    matrix,
    bias,
    gate_weight,
    gate_bias,
    eps,
    rows,
    width,
    above,
    below,
    C: tl.constexpr,
    CA: tl.constexpr,
    CB: tl.constexpr,
    TH: tl.constexpr,
    TW: tl.constexpr,
    HALO: tl.constexpr,
    KC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A tile of TH x TW tokens: one product with the folded matrix, the gate, the convolution."""
    across = tl.cdiv(width, TW)
    top = tl.program_id(0) // across * TH
    left = tl.program_id(0) % across * TW
    around, scales = halo_moments(x, eps, top, left, rows, width, above, below, C, TH, TW, HALO)
    mean, deviation = own_of(around, TH, TW), own_of(scales, TH, TW)
    c = tl.arange(0, CA)
    t = tl.arange(0, TH * TW)
    row, column = top + t // TW, left + t % TW
    inside = (row < rows) & (column < width)
    kind = matrix.dtype.element_ty
    begin = channels_at(row, column, width, C)
    logit = tl.zeros((TH * TW,), tl.float32) + tl.load(gate_bias).to(tl.float32)
    for first in range(0, C, KC):
        k = first + tl.arange(0, KC)
        n = normed_tile(x, norm_weight, norm_bias, begin, inside, first, mean, deviation, C, KC)
        weight = tl.load(gate_weight + k, mask=k < C, other=0.0).to(tl.float32)
        logit += tl.sum(n * weight[None, :], 1)
    gate = tl.sigmoid(logit)[:, None]
    total = begun(x, bias, begin, inside, 0, C, CA)
    total += gate * gelu(
        depthwise_tile(
            x,
            norm_weight,
            norm_bias,
            kernel,
            around,
            scales,
            top,
            left,
            rows,
            width,
            above,
            below,
            0,
            C,
            CA,
            TH,
            TW,
        )
    )
    if CB > 0:
        tail = begun(x, bias, begin, inside, CA, C, CB)
        tail += gate * gelu(
            depthwise_tile(
                x,
                norm_weight,
                norm_bias,
                kernel,
                around,
                scales,
                top,
                left,
                rows,
                width,
                above,
                below,
                CA,
                C,
                CB,
                TH,
                TW,
            )
        )
    for first in range(0, C, KC):
        n = normed_tile(x, norm_weight, norm_bias, begin, inside, first, mean, deviation, C, KC)
        k = first + tl.arange(0, KC)
        place = matrix + c[None, :] * C + k[:, None]  # (KC, CA)
        part = tl.load(place, mask=(c < C)[None, :] & (k < C)[:, None], other=0.0)
        total += tl.dot(n.to(kind), part, input_precision=PRECISION)
        if CB > 0:
            b = CA + tl.arange(0, CB)
            place = matrix + b[None, :] * C + k[:, None]
            part = tl.load(place, mask=(b < C)[None, :] & (k < C)[:, None], other=0.0)
            tail += tl.dot(n.to(kind), part, input_precision=PRECISION)
    finish(out, total, begin, inside, 0, C, CA)
    if CB > 0:
        finish(out, tail, begin, inside, CA, C, CB)
