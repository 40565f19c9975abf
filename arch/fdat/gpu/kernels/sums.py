"""Sums over the image, in parts: one per program, added up in a fixed order when they are folded.

A program adds to its part what the bands before left there, so that a band is one launch. Atomic
additions would save the parts, but not be the same from run to run.
"""

import triton
import triton.language as tl

from .common import depthwise_tile, gelu, halo_moments, moments


@triton.jit
def gate_sum(
    x,
    parts,
    norm_weight,
    norm_bias,
    kernel,
    eps,
    rows,
    width,
    above,
    below,
    begins,
    C: tl.constexpr,
    CA: tl.constexpr,
    CB: tl.constexpr,
    TH: tl.constexpr,
    TW: tl.constexpr,
    HALO: tl.constexpr,
):
    """Part p of the sum of gelu(depthwise(LayerNorm(x))): every nth tile from tile p on."""
    across = tl.cdiv(width, TW)
    tiles = tl.cdiv(rows, TH) * across
    c = tl.arange(0, CA)
    t = tl.arange(0, TH * TW)
    total = tl.zeros((CA,), tl.float32)
    if CB > 0:
        tail = tl.zeros((CB,), tl.float32)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        top = tile // across * TH
        left = tile % across * TW
        mean, deviation = halo_moments(
            x, eps, top, left, rows, width, above, below, C, TH, TW, HALO
        )
        inside = ((top + t // TW < rows) & (left + t % TW < width))[:, None]
        mixed = depthwise_tile(
            x,
            norm_weight,
            norm_bias,
            kernel,
            mean,
            deviation,
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
        total += tl.sum(tl.where(inside, gelu(mixed), 0.0), 0)
        if CB > 0:
            mixed = depthwise_tile(
                x,
                norm_weight,
                norm_bias,
                kernel,
                mean,
                deviation,
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
            tail += tl.sum(tl.where(inside, gelu(mixed), 0.0), 0)
    place = parts + tl.program_id(0) * C
    if begins == 0:
        total += tl.load(place + c, mask=c < C, other=0.0)
    tl.store(place + c, total, mask=c < C)
    if CB > 0:
        b = CA + tl.arange(0, CB)
        if begins == 0:
            tail += tl.load(place + b, mask=b < C, other=0.0)
        tl.store(place + b, tail, mask=b < C)


@triton.jit
def less_pilot(x, pilot, norm_weight, norm_bias, begin, valid, c, mean, deviation, C: tl.constexpr):
    """Channels ``c`` of LayerNorm(x) less the pilot."""
    values = tl.load(
        x + begin[:, None] + c[None, :], mask=valid[:, None] & (c < C)[None, :], other=0.0
    ).to(tl.float32)
    weight = tl.load(norm_weight + c, mask=c < C, other=0.0).to(tl.float32)
    bias = tl.load(norm_bias + c, mask=c < C, other=0.0).to(tl.float32)
    d = (values - mean[:, None]) * deviation[:, None] * weight[None, :]
    return tl.where(valid[:, None], d + (bias - pilot)[None, :], 0.0)


@triton.jit
def pilot_of(
    x, pilot, norm_weight, norm_bias, eps, tokens, begins, c, C: tl.constexpr, PILOT: tl.constexpr
):
    """Channels ``c`` of the pilot: made of the first rows, else as they are kept."""
    if begins:
        t = tl.arange(0, PILOT) * tl.maximum(tokens // PILOT, 1)
        valid = t < tokens
        begin = t.to(tl.int64) * C
        mean, deviation = moments(x + begin, valid, eps, PILOT, C)
        zero = tl.zeros_like(c).to(tl.float32)
        n = less_pilot(x, zero, norm_weight, norm_bias, begin, valid, c, mean, deviation, C)
        found = tl.sum(n, 0) / tl.minimum(tokens, PILOT)
    else:
        found = tl.load(pilot + c, mask=c < C, other=0.0)
    return found


@triton.jit
def add_block(place, gram, ci, cj, begins, C: tl.constexpr):
    """Add a block of sums to what the bands before left."""
    inside = (ci < C)[:, None] & (cj < C)[None, :]
    place += ci[:, None] * C + cj[None, :]
    if begins == 0:
        gram += tl.load(place, mask=inside, other=0.0)
    tl.store(place, gram, mask=inside)


@triton.jit
def add_row(place, total, c, begins, C: tl.constexpr):
    """Add a row of sums to what the bands before left."""
    place += C * C + c
    if begins == 0:
        total += tl.load(place, mask=c < C, other=0.0)
    tl.store(place, total, mask=c < C)


@triton.jit
def gram(
    x,
    parts,
    pilot,
    norm_weight,
    norm_bias,
    eps,
    tokens,
    begins,
    C: tl.constexpr,
    SIDE: tl.constexpr,
    CA: tl.constexpr,
    CB: tl.constexpr,
    TOKENS: tl.constexpr,
    PILOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Part p of d^T d and, as its last row, of 1^T d: SIDE rows, and CA + CB columns of them.

    Wider networks have several programs for the same tokens, which run next to each other and find
    them in the cache. The pilot is made of a few tokens of the first band, by every program alike,
    and kept for the next bands.
    """
    part, first_j = tl.program_id(2), tl.program_id(1) * (CA + CB)
    ci = tl.program_id(0) * SIDE + tl.arange(0, SIDE)
    ca = first_j + tl.arange(0, CA)
    kind = x.dtype.element_ty
    pi = pilot_of(x, pilot, norm_weight, norm_bias, eps, tokens, begins, ci, C, PILOT)
    pa = pilot_of(x, pilot, norm_weight, norm_bias, eps, tokens, begins, ca, C, PILOT)
    gram = tl.zeros((SIDE, CA), tl.float32)
    total = tl.zeros((CA,), tl.float32)
    if CB > 0:
        cb = first_j + CA + tl.arange(0, CB)
        pb = pilot_of(x, pilot, norm_weight, norm_bias, eps, tokens, begins, cb, C, PILOT)
        gram_b = tl.zeros((SIDE, CB), tl.float32)
        total_b = tl.zeros((CB,), tl.float32)
    for first in range(part * TOKENS, tokens, tl.num_programs(2) * TOKENS):
        t = first + tl.arange(0, TOKENS)
        valid = t < tokens
        begin = t.to(tl.int64) * C
        mean, deviation = moments(x + begin, valid, eps, TOKENS, C)
        d = less_pilot(x, pi, norm_weight, norm_bias, begin, valid, ci, mean, deviation, C)
        d = tl.trans(d.to(kind))
        da = less_pilot(x, pa, norm_weight, norm_bias, begin, valid, ca, mean, deviation, C)
        gram += tl.dot(d, da.to(kind), input_precision=PRECISION)
        total += tl.sum(da, 0)
        if CB > 0:
            db = less_pilot(x, pb, norm_weight, norm_bias, begin, valid, cb, mean, deviation, C)
            gram_b += tl.dot(d, db.to(kind), input_precision=PRECISION)
            total_b += tl.sum(db, 0)
    place = parts + part * (C + 1) * C
    add_block(place, gram, ci, ca, begins, C)
    if CB > 0:
        add_block(place, gram_b, ci, cb, begins, C)
    if tl.program_id(0) == 0:
        add_row(place, total, ca, begins, C)
        if CB > 0:
            add_row(place, total_b, cb, begins, C)
        if (part == 0) & (begins != 0):
            tl.store(pilot + ca, pa, mask=ca < C)
            if CB > 0:
                tl.store(pilot + cb, pb, mask=cb < C)
