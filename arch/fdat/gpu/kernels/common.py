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
def moments(begin, valid, eps, T: tl.constexpr, C: tl.constexpr):
    """Mean and reciprocal deviation of the tokens that begin at pointers ``begin`` (T,).

    A few channels at a time, which the second pass finds in the nearest cache.
    """
    KM: tl.constexpr = 64
    mean = tl.zeros((T,), tl.float32)
    for first in range(0, C, KM):
        k = first + tl.arange(0, KM)
        mask = valid[:, None] & (k < C)[None, :]
        mean += tl.sum(tl.load(begin[:, None] + k[None, :], mask=mask, other=0.0).to(tl.float32), 1)
    mean = mean / C
    variance = tl.zeros((T,), tl.float32)
    for first in range(0, C, KM):
        k = first + tl.arange(0, KM)
        mask = valid[:, None] & (k < C)[None, :]
        values = tl.load(begin[:, None] + k[None, :], mask=mask, other=0.0).to(tl.float32)
        centred = tl.where(mask, values - mean[:, None], 0.0)
        variance += tl.sum(centred * centred, 1)
    return mean, tl.rsqrt(variance / C + eps)


@triton.jit
def normed_tile(
    x,
    norm_weight,
    norm_bias,
    begin,
    valid,
    first,
    mean,
    deviation,
    C: tl.constexpr,
    KC: tl.constexpr,
):
    """Channels [first, first + KC) of LayerNorm(x) for tokens whose moments are known: (T, KC).

    0 where not ``valid``. Products take n in such pieces, loaded again from the nearest cache:
    holding all of n would cost registers and shared memory that other programs can use.
    """
    k = first + tl.arange(0, KC)
    values = tl.load(
        x + begin[:, None] + k[None, :], mask=valid[:, None] & (k < C)[None, :], other=0.0
    ).to(tl.float32)
    weight = tl.load(norm_weight + k, mask=k < C, other=0.0).to(tl.float32)
    bias = tl.load(norm_bias + k, mask=k < C, other=0.0).to(tl.float32)
    n = (values - mean[:, None]) * deviation[:, None] * weight[None, :] + bias[None, :]
    return tl.where(valid[:, None], n, 0.0)


@triton.jit
def halo_moments(
    x,
    eps,
    top,
    left,
    rows,
    width,
    above,
    below,
    C: tl.constexpr,
    TH: tl.constexpr,
    TW: tl.constexpr,
    HALO: tl.constexpr,
):
    """`moments` of a tile of TH x TW tokens and its halo, in ``HALO`` places: row after row."""
    slot = tl.arange(0, HALO)
    row, column = top - 1 + slot // (TW + 2), left - 1 + slot % (TW + 2)
    valid = is_inside(row, column, rows, width, above, below) & (slot < (TH + 2) * (TW + 2))
    return moments(x + channels_at(row, column, width, C), valid, eps, HALO, C)


@triton.jit
def own_of(values, TH: tl.constexpr, TW: tl.constexpr):
    """Those of a tile's own tokens among the values of its tokens and halo: (TH * TW,)."""
    token = tl.arange(0, TH * TW)
    return tl.gather(values, (token // TW + 1) * (TW + 2) + token % TW + 1, 0)


@triton.jit
def depthwise_tile(
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
    first,
    C: tl.constexpr,
    KC: tl.constexpr,
    TH: tl.constexpr,
    TW: tl.constexpr,
):
    """Depthwise 3x3 of LayerNorm(x) on a tile, channels [first, first + KC): (TH * TW, KC).

    The moments come from `halo_moments` and are picked for each of the nine taps; x is loaded again
    for each, from the nearest cache. Holding the normalised halo and picking rows of it would need
    shared memory that wide networks in float32 do not find. The taps are a loop, not written out:
    that would load all nine at once, into registers that are not there.
    """
    c = first + tl.arange(0, KC)
    token = tl.arange(0, TH * TW)
    mixed = tl.zeros((TH * TW, KC), tl.float32)
    for tap in range(9):
        down, right = tap // 3, tap % 3
        near_row, near_column = top + token // TW + down - 1, left + token % TW + right - 1
        near = (token // TW + down) * (TW + 2) + token % TW + right
        n = normed_tile(
            x,
            norm_weight,
            norm_bias,
            channels_at(near_row, near_column, width, C),
            is_inside(near_row, near_column, rows, width, above, below),
            first,
            tl.gather(mean, near, 0),
            tl.gather(deviation, near, 0),
            C,
            KC,
        )
        mixed += n * tl.load(kernel + c * 9 + tap, mask=c < C, other=0.0).to(tl.float32)[None, :]
    return mixed
