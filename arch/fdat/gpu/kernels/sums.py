"""Sums over the image, in parts: one per program, added up in a fixed order when they are folded.

A program adds to its part what the bands before left there, so that a band is one launch. Atomic
additions would save the parts, but not be the same from run to run.
"""

import triton
import triton.language as tl

from .common import depthwise_tile, gelu, moments


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
    CP: tl.constexpr,
    TH: tl.constexpr,
    TW: tl.constexpr,
    HALO: tl.constexpr,
):
    """Part p of the sum of gelu(depthwise(LayerNorm(x))): every nth tile from tile p on."""
    across = tl.cdiv(width, TW)
    tiles = tl.cdiv(rows, TH) * across
    c = tl.arange(0, CP)
    t = tl.arange(0, TH * TW)
    total = tl.zeros((CP,), tl.float32)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        top = tile // across * TH
        left = tile % across * TW
        mixed, _, _ = depthwise_tile(
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
        inside = (top + t // TW < rows) & (left + t % TW < width)
        total += tl.sum(tl.where(inside[:, None], gelu(mixed), 0.0), 0)
    place = parts + tl.program_id(0) * C + c
    if begins == 0:
        total += tl.load(place, mask=c < C, other=0.0)
    tl.store(place, total, mask=c < C)


@triton.jit
def normed_mean(x, t, valid, c, mean, deviation, weight, bias, share, C: tl.constexpr):
    """Mean of channels ``c`` of LayerNorm(x) over tokens ``t``, each of this ``share``."""
    place = x + t.to(tl.int64)[:, None] * C + c[None, :]
    values = tl.load(place, mask=valid[:, None] & (c < C)[None, :], other=0.0).to(tl.float32)
    n = (values - mean[:, None]) * deviation[:, None] * weight[None, :] + bias[None, :]
    return tl.sum(tl.where(valid[:, None], n, 0.0), 0) * share


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
    CP: tl.constexpr,
    SIDE: tl.constexpr,
    TOKENS: tl.constexpr,
    PILOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Part p of d^T d and, as its last row, of 1^T d, for columns [i, i + SIDE) x [j, j + SIDE).

    One program holds SIDE x SIDE sums; wider networks have several for the same tokens, which run
    next to each other and find them in the cache. The pilot is made of a few tokens of the first band,
    by every program alike, and kept for the next bands.
    """
    part, i, j = tl.program_id(2), tl.program_id(0) * SIDE, tl.program_id(1) * SIDE
    c = tl.arange(0, CP)
    ci = i + tl.arange(0, SIDE)
    cj = j + tl.arange(0, SIDE)
    kind = x.dtype.element_ty
    wi = tl.load(norm_weight + ci, mask=ci < C, other=0.0).to(tl.float32)
    bi = tl.load(norm_bias + ci, mask=ci < C, other=0.0).to(tl.float32)
    wj = tl.load(norm_weight + cj, mask=cj < C, other=0.0).to(tl.float32)
    bj = tl.load(norm_bias + cj, mask=cj < C, other=0.0).to(tl.float32)
    if begins:
        t = tl.arange(0, PILOT) * tl.maximum(tokens // PILOT, 1)
        few = t < tokens
        begin = x + t.to(tl.int64)[:, None] * C
        values = tl.load(begin + c[None, :], mask=few[:, None] & (c < C)[None, :], other=0.0)
        mean, deviation = moments(values.to(tl.float32), few, c, eps, C)
        share = 1.0 / tl.minimum(tokens, PILOT).to(tl.float32)
        pi = normed_mean(x, t, few, ci, mean, deviation, wi, bi, share, C)
        pj = normed_mean(x, t, few, cj, mean, deviation, wj, bj, share, C)
        if part + tl.program_id(0) == 0:
            tl.store(pilot + cj, pj, mask=cj < C)
    else:
        pi = tl.load(pilot + ci, mask=ci < C, other=0.0)
        pj = tl.load(pilot + cj, mask=cj < C, other=0.0)
    bi -= pi
    bj -= pj
    gram = tl.zeros((SIDE, SIDE), tl.float32)
    total = tl.zeros((SIDE,), tl.float32)
    for first in range(part * TOKENS, tokens, tl.num_programs(2) * TOKENS):
        t = first + tl.arange(0, TOKENS)
        valid = t < tokens
        begin = x + t.to(tl.int64)[:, None] * C
        values = tl.load(begin + c[None, :], mask=valid[:, None] & (c < C)[None, :], other=0.0)
        mean, deviation = moments(values.to(tl.float32), valid, c, eps, C)
        values = tl.load(begin + ci[None, :], mask=valid[:, None] & (ci < C)[None, :], other=0.0)
        di = (values.to(tl.float32) - mean[:, None]) * deviation[:, None] * wi[None, :]
        di = tl.where(valid[:, None], di + bi[None, :], 0.0)
        values = tl.load(begin + cj[None, :], mask=valid[:, None] & (cj < C)[None, :], other=0.0)
        dj = (values.to(tl.float32) - mean[:, None]) * deviation[:, None] * wj[None, :]
        dj = tl.where(valid[:, None], dj + bj[None, :], 0.0)
        gram += tl.dot(tl.trans(di.to(kind)), dj.to(kind), input_precision=PRECISION)
        total += tl.sum(dj, 0)
    place = parts + part * (C + 1) * C
    inside = (ci < C)[:, None] & (cj < C)[None, :]
    if begins == 0:
        gram += tl.load(place + ci[:, None] * C + cj[None, :], mask=inside, other=0.0)
    tl.store(place + ci[:, None] * C + cj[None, :], gram, mask=inside)
    if tl.program_id(0) == 0:
        if begins == 0:
            total += tl.load(place + C * C + cj, mask=cj < C, other=0.0)
        tl.store(place + C * C + cj, total, mask=cj < C)
