"""Convolutions and what stands around them, written where the picture has the pixels."""

import triton
import triton.language as tl

from .common import channels_at, gelu, is_inside


@triton.jit
def corners(
    x,
    out,
    packed,
    bias,
    rows,
    width,
    above,
    below,
    C: tl.constexpr,
    KC: tl.constexpr,
    OUTPUTS: tl.constexpr,
    NC: tl.constexpr,
    TH: tl.constexpr,
    TW: tl.constexpr,
    GELU: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """TH x TW corners of input pixels: the four output pixels around each, ``NC`` values at a time.

    The four outputs are linear functions of the four pixels that meet at the corner, so this is a
    product, without the zeros that a strided convolution multiplies with; GELU and the shuffle
    take no pass of their own.
    """
    across = tl.cdiv(width + 1, TW)
    top = tl.program_id(0) // across * TH - 1
    left = tl.program_id(0) % across * TW - 1
    t = tl.arange(0, TH * TW)
    row, column = top + t // TW, left + t % TW
    kind = x.dtype.element_ty
    for first in range(0, 4 * OUTPUTS, NC):
        n = first + tl.arange(0, NC)
        total = tl.zeros((TH * TW, NC), tl.float32)
        total += tl.load(bias + n % OUTPUTS, mask=n < 4 * OUTPUTS, other=0.0).to(tl.float32)[
            None, :
        ]
        for pixel in range(4):
            down, right = row + pixel // 2, column + pixel % 2
            valid = is_inside(down, right, rows, width, above, below)
            begin = x + channels_at(down, right, width, C)[:, None]
            for start in range(0, C, KC):
                k = start + tl.arange(0, KC)
                values = tl.load(
                    begin + k[None, :], mask=valid[:, None] & (k < C)[None, :], other=0.0
                )
                place = packed + n[None, :] * (4 * C) + pixel * C + k[:, None]  # (KC, NC)
                part = tl.load(place, mask=(n < 4 * OUTPUTS)[None, :] & (k < C)[:, None], other=0.0)
                total += tl.dot(values, part, input_precision=PRECISION)
        if GELU:
            total = gelu(total)
        down = 2 * row[:, None] + 1 + n[None, :] // (2 * OUTPUTS)
        right = 2 * column[:, None] + 1 + n[None, :] // OUTPUTS % 2
        valid = (down >= 0) & (down < 2 * rows) & (right >= 0) & (right < 2 * width)
        place = out + channels_at(down, right, 2 * width, OUTPUTS) + n[None, :] % OUTPUTS
        tl.store(place, total.to(kind), mask=valid & (n < 4 * OUTPUTS)[None, :])


@triton.jit
def convolve(
    x,
    out,
    weight,
    bias,
    skip,
    slope,
    rows,
    width,
    above,
    below,
    C: tl.constexpr,
    KC: tl.constexpr,
    OUTPUTS: tl.constexpr,
    NC: tl.constexpr,
    TH: tl.constexpr,
    TW: tl.constexpr,
    ENLARGE: tl.constexpr,
    LEAKY: tl.constexpr,
    SHUFFLE: tl.constexpr,
    BIAS: tl.constexpr,
    SKIP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``NC`` outputs of a dense 3x3 convolution for TH x TW places, as nine products.

    ``rows`` and ``width`` are those of the enlarged image, whose halo is at most one row. What a place
    of the enlarged image holds is looked up, what is shuffled is written where it belongs.
    """
    across = tl.cdiv(width, TW)
    top = tl.program_id(0) // across * TH
    left = tl.program_id(0) % across * TW
    t = tl.arange(0, TH * TW)
    row, column = top + t // TW, left + t % TW
    n = tl.program_id(1) * NC + tl.arange(0, NC)
    kind = weight.dtype.element_ty
    total = tl.zeros((TH * TW, NC), tl.float32)
    for tap in range(9):
        down, right = row + tap // 3 - 1, column + tap % 3 - 1
        valid = is_inside(down, right, rows, width, above, below)
        source = (down + ENLARGE) // ENLARGE - 1  # rounds down, also above the first row
        begin = x + channels_at(source, right // ENLARGE, width // ENLARGE, C)[:, None]
        for first in range(0, C, KC):
            k = first + tl.arange(0, KC)
            values = tl.load(begin + k[None, :], mask=valid[:, None] & (k < C)[None, :], other=0.0)
            place = weight + (n[None, :] * 9 + tap) * C + k[:, None]  # (KC, NC)
            part = tl.load(place, mask=(n < OUTPUTS)[None, :] & (k < C)[:, None], other=0.0)
            total += tl.dot(values.to(kind), part, input_precision=PRECISION)
    if BIAS:
        total += tl.load(bias + n, mask=n < OUTPUTS, other=0.0).to(tl.float32)[None, :]
    if LEAKY:
        total = tl.where(total < 0, total * slope, total)
    WRITTEN: tl.constexpr = OUTPUTS // (SHUFFLE * SHUFFLE)
    down = row[:, None] * SHUFFLE + n[None, :] // SHUFFLE % SHUFFLE
    right = column[:, None] * SHUFFLE + n[None, :] % SHUFFLE
    place = channels_at(down, right, width * SHUFFLE, WRITTEN) + n[None, :] // (SHUFFLE * SHUFFLE)
    mask = ((row < rows) & (column < width))[:, None] & (n < OUTPUTS)[None, :]
    if SKIP:
        total += tl.load(skip + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=mask)
