"""The attention halves of the two kinds of blocks: one read and one write of the map each."""

import triton
import triton.language as tl

from .common import channels_at, depthwise_tile, gelu, normed_tile


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
    CP: tl.constexpr,
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
    mixed, mean, deviation = depthwise_tile(
        x,
        norm_weight,
        norm_bias,
        kernel,
        eps,
        top,
        left,
        rows,
        width,
        above,
        below,
        C,
        CP,
        WINDOW,
        WINDOW,
        HALO,
    )
    c = tl.arange(0, CP)
    d = tl.arange(0, DP)
    t = tl.arange(0, TOKENS)
    row, column = top + t // WINDOW, left + t % WINDOW
    inside = (row < rows) & (column < width)
    kind = qkv.dtype.element_ty
    begin = channels_at(row, column, width, C)
    mask = inside[:, None] & (c < C)[None, :]
    total = tl.load(x + begin[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
    total += gelu(mixed)
    total += tl.load(projection_bias + c, mask=c < C, other=0.0).to(tl.float32)[None, :]

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
        place = projection + c[None, :] * (HEADS * D) + (head * D + d)[:, None]  # (DP, CP)
        back = tl.load(place, mask=(c < C)[None, :] & (d < D)[:, None], other=0.0)
        total += tl.dot(attended.to(kind), back, input_precision=PRECISION)

    tl.store(out + begin[:, None] + c[None, :], total.to(out.dtype.element_ty), mask=mask)


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
    CP: tl.constexpr,
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
    mixed, mean, deviation = depthwise_tile(
        x,
        norm_weight,
        norm_bias,
        kernel,
        eps,
        top,
        left,
        rows,
        width,
        above,
        below,
        C,
        CP,
        TH,
        TW,
        HALO,
    )
    c = tl.arange(0, CP)
    t = tl.arange(0, TH * TW)
    row, column = top + t // TW, left + t % TW
    inside = (row < rows) & (column < width)
    kind = matrix.dtype.element_ty
    begin = channels_at(row, column, width, C)
    mask = inside[:, None] & (c < C)[None, :]
    logit = tl.zeros((TH * TW,), tl.float32) + tl.load(gate_bias).to(tl.float32)
    for first in range(0, C, KC):
        k = first + tl.arange(0, KC)
        n = normed_tile(x, norm_weight, norm_bias, begin, inside, first, mean, deviation, C, KC)
        gate = tl.load(gate_weight + k, mask=k < C, other=0.0).to(tl.float32)
        logit += tl.sum(n * gate[None, :], 1)
    total = gelu(mixed) * tl.sigmoid(logit)[:, None]
    total += tl.load(x + begin[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
    total += tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    for first in range(0, C, KC):
        n = normed_tile(x, norm_weight, norm_bias, begin, inside, first, mean, deviation, C, KC)
        k = first + tl.arange(0, KC)
        place = matrix + c[None, :] * C + k[:, None]  # (KC, CP)
        part = tl.load(place, mask=(c < C)[None, :] & (k < C)[:, None], other=0.0)
        total += tl.dot(n.to(kind), part, input_precision=PRECISION)
    tl.store(out + begin[:, None] + c[None, :], total.to(out.dtype.element_ty), mask=mask)
