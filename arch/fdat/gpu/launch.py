"""How the kernels are launched, and where they can be. In which ways: see candidates.py."""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .sizes import (
    FOLDED,
    PARTS,
    SUMMED_TOKENS,
    TILE,
    halo_places,
    pieces,
    power_of_two,
    tiles,
)
from .twins import PILOT_TOKENS

DTYPES = torch.float32, torch.float16, torch.bfloat16


@cache
def has_triton() -> bool:
    """Whether a triton is installed that has all that the kernels use: 3.3 or newer."""
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        language = importlib.import_module("triton.language")
    except ImportError:  # a part of it is missing, or it is a folder of that name
        return False
    return hasattr(language, "gather")


def is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU, to be tested."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def is_possible(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether kernels may be tried for tensors on this device (CUDA or ROCm) in this precision."""
    fits = device.type == "cuda" or (device.type == "cpu" and is_interpreted())
    return fits and dtype in DTYPES and has_triton()


def parts_of(name: str, rows: Tensor) -> int:
    """Parts in which an operator sums images in bands like ``rows`` (h, W, C)."""
    if not is_possible(rows.device, rows.dtype):
        return 1
    return min(PARTS[name], -(-rows.shape[0] * rows.shape[1] // SUMMED_TOKENS[name]))


def _launch(kernel: Any, grid: tuple[int, ...], x: Tensor, *arguments: Any, **options: Any) -> None:
    options["enable_fp_fusion"] = True  # multiply and add in one, as everywhere on a GPU
    if x.device.type != "cuda":
        kernel[grid](x, *arguments, **options)
        return
    with torch.cuda.device(x.device):
        kernel[grid](x, *arguments, **options)


def window_half(columns: int, warps: int, precision: str, *arguments: Any) -> None:
    """Launch the kernel; the arguments are those of the twin."""
    from .kernels.attention import window_half as kernel

    x, out, above, below, *norm, eps, depthwise, qkv, bias, matrix, offset, window, scale = (
        arguments
    )
    heads, dim = bias.shape[0], x.shape[-1]
    wide = matrix.shape[1] // heads
    _launch(
        kernel,
        (tiles(*out.shape[:2], window, window),),
        x[above:],
        out,
        *norm,
        *(depthwise, qkv, bias, matrix, offset, eps, scale, *out.shape[:2], above, below),
        C=dim,
        **pieces(dim),
        HEADS=heads,
        D=wide,
        DP=power_of_two(wide),
        WINDOW=window,
        HALO=halo_places(window),
        KC=columns,
        PRECISION=precision,
        num_warps=warps,
        num_stages=1,
    )


def channel_half(columns: int, warps: int, precision: str, *arguments: Any) -> None:
    """Launch the kernel; the arguments are those of the twin."""
    from .kernels.attention import channel_half as kernel

    x, out, above, below, *norm, eps, depthwise, matrix, bias, gate, offset = arguments
    _launch(
        kernel,
        (tiles(*out.shape[:2], TILE, TILE),),
        x[above:],
        out,
        *norm,
        *(depthwise, matrix, bias, gate, offset, eps, *out.shape[:2], above, below),
        C=x.shape[-1],
        **pieces(x.shape[-1]),
        TH=TILE,
        TW=TILE,
        HALO=halo_places(TILE),
        KC=columns,
        PRECISION=precision,
        num_warps=warps,
        num_stages=1,
    )


def feed_forward(
    high: int, wide: int, columns: int, held: bool, warps: int, precision: str, *arguments: Any
) -> None:
    """Launch the kernel; the arguments are those of the twin."""
    from .kernels.feed_forward import feed_forward as kernel

    x, out, above, below, *norm, eps, expand, mix, contract = arguments
    _launch(
        kernel,
        (tiles(*out.shape[:2], high - 2, wide - 2),),
        x[above:],
        out,
        *norm,
        *(expand, mix, contract, eps, *out.shape[:2], above, below),
        C=x.shape[-1],
        **pieces(x.shape[-1]),
        HIDDEN=expand.shape[0],
        HC=columns,
        TH=high,
        TW=wide,
        KC=min(columns, 32),
        HOLD=held,
        PRECISION=precision,
        num_warps=warps,
        num_stages=1,
    )


def gate_sum(warps: int, *arguments: Any) -> None:
    """Launch the kernel; the arguments are those of the twin."""
    from .kernels.sums import gate_sum as kernel

    x, parts, first, above, below, *norm, eps, depthwise = arguments
    rows, width, dim = x.shape[0] - above - below, *x.shape[1:]
    _launch(
        kernel,
        parts.shape[:1],
        x[above:],
        parts,
        *norm,
        *(depthwise, eps, rows, width, above, below, int(first)),
        C=dim,
        **pieces(dim),
        TH=TILE,
        TW=TILE,
        HALO=halo_places(TILE),
        num_warps=warps,
        num_stages=1,
    )


def gram(tokens: int, side: int, twice: bool, warps: int, precision: str, *arguments: Any) -> None:
    """Launch the kernel; the arguments are those of the twin.

    A program holds ``side`` rows and as many columns, or, ``twice``, all columns in two pieces.
    """
    from .kernels.sums import gram as kernel

    x, parts, pilot, first, *norm, eps = arguments
    dim = x.shape[-1]
    side = min(side, power_of_two(dim))
    columns = {"CA": side, "CB": power_of_two(dim - side) if twice else 0}
    _launch(
        kernel,
        (-(-dim // side), -(-dim // sum(columns.values())), parts.shape[0]),
        x,
        parts,
        pilot,
        *norm,
        *(eps, x.shape[0] * x.shape[1], int(first)),
        C=dim,
        SIDE=side,
        **columns,
        TOKENS=tokens,
        PILOT=PILOT_TOKENS,
        PRECISION=precision,
        num_warps=warps,
        num_stages=1,
    )


def fold_gate(*arguments: Any) -> Tensor:
    """Launch the kernel; the arguments are those of the twin."""
    from .kernels.folding import fold_gate as kernel

    parts, tokens, down, up, projection, bias, dtype = arguments
    dim, padded = projection.shape
    out = parts.new_empty(projection.numel() + dim, dtype=dtype)
    _launch(
        kernel,
        (-(-dim // FOLDED),),
        parts,
        out,
        *(down, up, projection, bias, parts.shape[0], 1 / tokens),
        C=dim,
        CP=power_of_two(dim),
        PADDED=padded,
        REDUCED=down.shape[0],
        RP=power_of_two(down.shape[0]),
        ROWS=FOLDED,
        num_warps=8,
        num_stages=1,
    )
    return out


def fold_channel(*arguments: Any) -> Tensor:
    """Launch the kernels; the arguments are those of the twin."""
    from .kernels.folding import attended as first
    from .kernels.folding import mapped as second

    parts, pilot, tokens, query, key, value, temperature, outputs, dtype = arguments
    heads, dim = temperature.shape[0], query.shape[0]
    attended = parts.new_empty(dim, dim)
    _launch(
        first,
        (heads,),
        parts.sum(0),
        attended,
        *(pilot, query, key, value, temperature, float(tokens)),
        C=dim,
        D=dim // heads,
        DP=power_of_two(dim // heads),
        num_warps=4,
        num_stages=1,
    )
    out = parts.new_empty(dim + 1, dim, dtype=dtype)
    _launch(
        second,
        (-(-(dim + 1) // FOLDED), -(-dim // 64)),
        attended,
        out,
        outputs,
        C=dim,
        ROWS=FOLDED,
        num_warps=4,
        num_stages=1,
    )
    return out


def convolve(
    high: int, wide: int, columns: int, most: int, warps: int, precision: str, *arguments: Any
) -> None:
    """Launch the kernel; the arguments are those of the twin."""
    from .kernels.tail import convolve as kernel

    x, out, above, below, weight, bias, skip, enlarge, slope, shuffle = arguments
    rows, width = enlarge * (x.shape[0] - above - below), enlarge * x.shape[1]
    outputs, dim = weight.shape[:2]
    block = min(most, power_of_two(outputs))
    _launch(
        kernel,
        (tiles(rows, width, high, wide), -(-outputs // block)),
        x[above:],
        out,
        *(weight, weight if bias is None else bias, out if skip is None else skip),
        *(float(slope), rows, width, above, below),
        C=dim,
        KC=min(columns, power_of_two(dim)),
        OUTPUTS=outputs,
        NC=block,
        TH=high,
        TW=wide,
        ENLARGE=enlarge,
        LEAKY=slope != 1,
        SHUFFLE=shuffle,
        BIAS=bias is not None,
        SKIP=skip is not None,
        PRECISION=precision,
        num_warps=warps,
        num_stages=1,
    )


def corners(
    high: int, wide: int, columns: int, most: int, warps: int, precision: str, *arguments: Any
) -> Tensor:
    """Launch the kernel; the arguments are those of the twin."""
    from .kernels.tail import corners as kernel

    x, above, below, layer, packed, bias, gelu = arguments
    rows, width, outputs = x.shape[0] - above - below, x.shape[1], layer.shape[1]
    out = x.new_empty(2 * rows, 2 * width, outputs)
    _launch(
        kernel,
        (tiles(rows + 1, width + 1, high, wide),),
        x[above:],
        out,
        *(packed, bias, rows, width, above, below),
        C=x.shape[-1],
        KC=columns,
        OUTPUTS=outputs,
        NC=min(most, power_of_two(4 * outputs)),
        TH=high,
        TW=wide,
        GELU=gelu,
        PRECISION=precision,
        num_warps=warps,
        num_stages=1,
    )
    return out
