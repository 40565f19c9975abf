"""What the kernels share: places in a band, LayerNorm of a tile with its halo, depthwise 3x3."""

import triton
import triton.language as tl


@triton.jit
def gelu(x):
    """GELU by the error function, as everywhere in FDAT."""
    return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))


@triton.jit
def is_inside(row, column, rows, width, above, below):
    """Which places are in the image: rows of the band count from 0, its halo is around them."""
    return (row >= -above) & (row < rows + below) & (column >= 0) & (column < width)


@triton.jit
def channels_at(row, column, width, C: tl.constexpr):
    """Offset of a place's first channel, in 64 bits: maps have more than 2**31 values."""
    return (row.to(tl.int64) * width + column) * C


@triton.jit
def moments(values, valid, c, eps, C: tl.constexpr):
    """Mean and reciprocal deviation over the channels of (T, CP); 0 where not ``valid``."""
    mean = tl.sum(values, 1) / C
    centred = tl.where(valid[:, None] & (c < C)[None, :], values - mean[:, None], 0.0)
    return mean, tl.rsqrt(tl.sum(centred * centred, 1) / C + eps)


@triton.jit
def depthwise_tile(
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
    C: tl.constexpr,
    CP: tl.constexpr,
    TH: tl.constexpr,
    TW: tl.constexpr,
    HALO: tl.constexpr,
):
    """Depthwise 3x3 of n = LayerNorm(x) on a tile of TH x TW tokens: (T, CP) each of it, n, x.

    The moments of the tile and its halo are taken once, in ``HALO`` places, and picked for each of
    the nine taps; x is loaded again for each, from the nearest cache. Holding n with its halo and
    picking rows of it would need shared memory that wide networks in float32 do not find.
    """
    c = tl.arange(0, CP)
    slot = tl.arange(0, HALO)
    row, column = top - 1 + slot // (TW + 2), left - 1 + slot % (TW + 2)
    valid = is_inside(row, column, rows, width, above, below) & (slot < (TH + 2) * (TW + 2))
    place = x + channels_at(row, column, width, C)[:, None] + c[None, :]
    values = tl.load(place, mask=valid[:, None] & (c < C)[None, :], other=0.0).to(tl.float32)
    mean, deviation = moments(values, valid, c, eps, C)

    weight = tl.load(norm_weight + c, mask=c < C, other=0.0).to(tl.float32)
    bias = tl.load(norm_bias + c, mask=c < C, other=0.0).to(tl.float32)
    token = tl.arange(0, TH * TW)
    mixed = tl.zeros((TH * TW, CP), tl.float32)
    own = mixed
    normed = mixed
    for tap in tl.static_range(9):
        row = top + token // TW + tap // 3 - 1
        column = left + token % TW + tap % 3 - 1
        valid = is_inside(row, column, rows, width, above, below)
        place = x + channels_at(row, column, width, C)[:, None] + c[None, :]
        values = tl.load(place, mask=valid[:, None] & (c < C)[None, :], other=0.0).to(tl.float32)
        slot = (token // TW + tap // 3) * (TW + 2) + token % TW + tap % 3
        centred = values - tl.gather(mean, slot, 0)[:, None]
        n = centred * tl.gather(deviation, slot, 0)[:, None] * weight[None, :] + bias[None, :]
        n = tl.where(valid[:, None], n, 0.0)
        mixed += n * tl.load(kernel + c * 9 + tap, mask=c < C, other=0.0).to(tl.float32)[None, :]
        if tap == 4:
            own = values
            normed = n
    return mixed, normed, own
