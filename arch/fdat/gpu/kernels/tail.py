"""The upsampler's transposed convolutions of stride 2, written where the picture has the pixels."""

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
