"""The feed-forward half: expand, GELU, depthwise 3x3, contract, in one read and one write."""

import triton
import triton.language as tl

from .attention import finish
from .common import channels_at, gelu, is_inside, moments, normed_tile


@triton.jit
def feed_forward(
    x,
    out,
    norm_weight,
    norm_bias,
    expand,
    mix,
    contract,
    eps,
    rows,
    width,
    above,
    below,
    C: tl.constexpr,
    CA: tl.constexpr,
    CB: tl.constexpr,
    HIDDEN: tl.constexpr,
    HC: tl.constexpr,
    TH: tl.constexpr,
    TW: tl.constexpr,
    KC: tl.constexpr,
    HOLD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A tile of TH x TW tokens with its halo, of which the inner ones are written.

    The hidden rows are ``HC`` channels at a time: made for the tile and its halo, mixed by picking
    each token's neighbours out of shared memory, and taken into the sum that is written. The halo's
    hidden rows are computed again by the neighbouring tiles: that costs products (a third more for
    16 x 16), where sharing them through memory would cost the hidden map written once and read once
    and a half, which is three to four maps of H x W x C. n is either held, or taken ``KC`` channels
    at a time for each piece of the hidden rows, where held it would not fit.
    """
    TOKENS: tl.constexpr = TH * TW
    across = tl.cdiv(width, TW - 2)
    top = tl.program_id(0) // across * (TH - 2) - 1
    left = tl.program_id(0) % across * (TW - 2) - 1
    c = tl.arange(0, CA)
    t = tl.arange(0, TOKENS)
    row, column = top + t // TW, left + t % TW
    valid = is_inside(row, column, rows, width, above, below)
    kind = expand.dtype.element_ty
    begin = channels_at(row, column, width, C)
    mean, deviation = moments(x + begin, valid, eps, TOKENS, C)
    b = CA + tl.arange(0, CB if CB > 0 else 16)
    if HOLD:
        # n is 0 outside the image, and so are the hidden rows there: gelu(0) = 0
        n = normed_tile(x, norm_weight, norm_bias, begin, valid, 0, mean, deviation, C, CA).to(kind)
        if CB > 0:
            m = normed_tile(x, norm_weight, norm_bias, begin, valid, CA, mean, deviation, C, CB)
            m = m.to(kind)

    total = tl.zeros((TOKENS, CA), tl.float32)
    if CB > 0:
        tail = tl.zeros((TOKENS, CB), tl.float32)
    for first in range(0, HIDDEN, HC):
        j = first + tl.arange(0, HC)
        made = tl.zeros((TOKENS, HC), tl.float32)
        if HOLD:
            place = expand + j[None, :] * C + c[:, None]  # (CA, HC)
            part = tl.load(place, mask=(c < C)[:, None] & (j < HIDDEN)[None, :], other=0.0)
            made += tl.dot(n, part, input_precision=PRECISION)
            if CB > 0:
                place = expand + j[None, :] * C + b[:, None]
                part = tl.load(place, mask=(b < C)[:, None] & (j < HIDDEN)[None, :], other=0.0)
                made += tl.dot(m, part, input_precision=PRECISION)
        else:
            for start in range(0, C, KC):
                k = start + tl.arange(0, KC)
                piece = normed_tile(
                    x, norm_weight, norm_bias, begin, valid, start, mean, deviation, C, KC
                )
                place = expand + j[None, :] * C + k[:, None]  # (KC, HC)
                part = tl.load(place, mask=(k < C)[:, None] & (j < HIDDEN)[None, :], other=0.0)
                made += tl.dot(piece.to(kind), part, input_precision=PRECISION)
        hidden = gelu(made).to(kind)
        mixed = tl.zeros((TOKENS, HC), tl.float32)
        for tap in tl.static_range(9):
            neighbour = t + (tap // 3 - 1) * TW + tap % 3 - 1
            neighbour = tl.minimum(
                tl.maximum(neighbour, 0), TOKENS - 1
            )  # of inner tokens: as it is
            picked = tl.gather(hidden, tl.broadcast_to(neighbour[:, None], (TOKENS, HC)), 0)
            taps = tl.load(mix + j * 9 + tap, mask=j < HIDDEN, other=0.0).to(tl.float32)
            mixed += picked.to(tl.float32) * taps[None, :]
        place = contract + c[None, :] * HIDDEN + j[:, None]  # (HC, CA)
        part = tl.load(place, mask=(c < C)[None, :] & (j < HIDDEN)[:, None], other=0.0)
        total += tl.dot(mixed.to(kind), part, input_precision=PRECISION)
        if CB > 0:
            place = contract + b[None, :] * HIDDEN + j[:, None]
            part = tl.load(place, mask=(b < C)[None, :] & (j < HIDDEN)[:, None], other=0.0)
            tail += tl.dot(mixed.to(kind), part, input_precision=PRECISION)

    inner = (t // TW > 0) & (t // TW < TH - 1) & (t % TW > 0) & (t % TW < TW - 1)
    inner = inner & (row < rows) & (column < width)
    mask = inner[:, None] & (c < C)[None, :]
    total += tl.load(x + begin[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
    finish(out, total, begin, inner, 0, C, CA)
    if CB > 0:
        mask = inner[:, None] & (b < C)[None, :]
        tail += tl.load(x + begin[:, None] + b[None, :], mask=mask, other=0.0).to(tl.float32)
        finish(out, tail, begin, inner, CA, C, CB)
