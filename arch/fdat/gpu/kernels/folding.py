"""The small matrices of a block, made of the sums over the image: engine/folding.py as kernels.

All in float32. A program of the first kernel of a channel block has one head, so that its logits and
their softmax stay where they are; one of the second has some rows of the result, which need all heads.
"""

import triton
import triton.language as tl

from .common import gelu


@triton.jit
def fold_gate(
    parts,
    out,
    down,
    up,
    projection,
    bias,
    count,
    share,
    C: tl.constexpr,
    CP: tl.constexpr,
    PADDED: tl.constexpr,
    REDUCED: tl.constexpr,
    RP: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Rows of the gated projection; every program makes the mean and the gate's hidden values."""
    c = tl.arange(0, CP)
    some = tl.arange(0, 16)
    mean = tl.zeros((CP,), tl.float32)
    for first in range(0, count, 16):
        p = first + some
        mask = (p < count)[:, None] & (c < C)[None, :]
        mean += tl.sum(tl.load(parts + p[:, None] * C + c[None, :], mask=mask, other=0.0), 0)
    mean = mean * share
    r = tl.arange(0, RP)
    mask = (r < REDUCED)[:, None] & (c < C)[None, :]
    matrix = tl.load(down + r[:, None] * C + c[None, :], mask=mask, other=0.0).to(tl.float32)
    hidden = gelu(tl.sum(matrix * mean[None, :], 1))
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    mask = (row < C)[:, None] & (r < REDUCED)[None, :]
    matrix = tl.load(up + row[:, None] * REDUCED + r[None, :], mask=mask, other=0.0).to(tl.float32)
    gate = tl.sigmoid(tl.sum(matrix * hidden[None, :], 1))
    for first in range(0, PADDED, 64):
        k = first + tl.arange(0, 64)
        inside = (row < C)[:, None] & (k < PADDED)[None, :]
        place = row[:, None] * PADDED + k[None, :]
        values = tl.load(projection + place, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + place, (values * gate[:, None]).to(out.dtype.element_ty), mask=inside)
    values = tl.load(bias + row, mask=row < C, other=0.0).to(tl.float32) * gate
    tl.store(out + C * PADDED + row, values.to(out.dtype.element_ty), mask=row < C)


@triton.jit
def attended(
    sums,
    out,
    pilot,
    query,
    key,
    value,
    temperature,
    tokens,
    C: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
):
    """softmax(q^T k) V of one head: (D, C), rows of ``out``."""
    KC: tl.constexpr = 32
    head = tl.program_id(0)
    d = tl.arange(0, DP)
    own = (head * D + d)[:, None] * C
    common_q = tl.zeros((DP,), tl.float32)
    common_k = tl.zeros((DP,), tl.float32)
    square_q = tl.zeros((DP,), tl.float32)
    square_k = tl.zeros((DP,), tl.float32)
    logits = tl.zeros((DP, DP), tl.float32)
    for first in range(0, C, KC):
        j = first + tl.arange(0, KC)
        total_j = tl.load(sums + C * C + j, mask=j < C, other=0.0)
        mean_j = total_j / tokens
        # columns j of Wq (D - t t^T / N) and of the same with Wk
        q = tl.zeros((DP, KC), tl.float32)
        k = tl.zeros((DP, KC), tl.float32)
        for start in range(0, C, KC):
            i = start + tl.arange(0, KC)
            total_i = tl.load(sums + C * C + i, mask=i < C, other=0.0)
            mask = (i < C)[:, None] & (j < C)[None, :]
            part = tl.load(sums + i[:, None] * C + j[None, :], mask=mask, other=0.0)
            part -= total_i[:, None] * mean_j[None, :]
            mask = (d < D)[:, None] & (i < C)[None, :]
            weight = tl.load(query + own + i[None, :], mask=mask, other=0.0).to(tl.float32)
            q += tl.dot(weight, part, input_precision="ieee")
            weight = tl.load(key + own + i[None, :], mask=mask, other=0.0).to(tl.float32)
            k += tl.dot(weight, part, input_precision="ieee")
        mean_j += tl.load(pilot + j, mask=j < C, other=0.0)
        mask = (d < D)[:, None] & (j < C)[None, :]
        weight = tl.load(query + own + j[None, :], mask=mask, other=0.0).to(tl.float32)
        square_q += tl.sum(q * weight, 1)
        common_q += tl.sum(weight * mean_j[None, :], 1)
        weight = tl.load(key + own + j[None, :], mask=mask, other=0.0).to(tl.float32)
        square_k += tl.sum(k * weight, 1)
        common_k += tl.sum(weight * mean_j[None, :], 1)
        logits += tl.dot(q, tl.trans(weight), input_precision="ieee")
    logits += tokens * common_q[:, None] * common_k[None, :]
    norm_q = tl.sqrt(tl.maximum(square_q + tokens * common_q * common_q, 0.0))
    norm_k = tl.sqrt(tl.maximum(square_k + tokens * common_k * common_k, 0.0))
    logits = logits / tl.maximum(norm_q, 1e-12)[:, None] / tl.maximum(norm_k, 1e-12)[None, :]
    logits *= tl.load(temperature + head).to(tl.float32)
    logits = tl.where((d < D)[None, :], logits, float("-inf"))
    share = tl.exp(logits - tl.max(logits, 1)[:, None])
    share = share / tl.sum(share, 1)[:, None]
    for first in range(0, C, KC):
        j = first + tl.arange(0, KC)
        mask = (d < D)[:, None] & (j < C)[None, :]
        part = tl.load(value + own + j[None, :], mask=mask, other=0.0).to(tl.float32)
        tl.store(out + own + j[None, :], tl.dot(share, part, input_precision="ieee"), mask=mask)


@triton.jit
def mapped(attended, out, outputs, C: tl.constexpr, ROWS: tl.constexpr):
    """Rows of ``outputs`` times the attended values of all heads; there are C + 1 rows."""
    KC: tl.constexpr = 32
    NC: tl.constexpr = 64
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n = tl.program_id(1) * NC + tl.arange(0, NC)
    total = tl.zeros((ROWS, NC), tl.float32)
    for first in range(0, C, KC):
        k = first + tl.arange(0, KC)
        mask = (row < C + 1)[:, None] & (k < C)[None, :]
        weight = tl.load(outputs + row[:, None] * C + k[None, :], mask=mask, other=0.0)
        mask = (k < C)[:, None] & (n < C)[None, :]
        part = tl.load(attended + k[:, None] * C + n[None, :], mask=mask, other=0.0)
        total += tl.dot(weight.to(tl.float32), part, input_precision="ieee")
    mask = (row < C + 1)[:, None] & (n < C)[None, :]
    tl.store(out + row[:, None] * C + n[None, :], total.to(out.dtype.element_ty), mask=mask)
