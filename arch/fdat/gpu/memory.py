"""Bytes that a band of the fused sweeps needs at its worst moment.

Counted for the twins, which need more than the kernels: whether a kernel runs is not known before.
"""

from __future__ import annotations

import torch

from ..config import FDATConfig
from ..engine.weights import HEAD_MULTIPLE, output_dtype, residual_dtype
from .choice import CHECKED_TOKENS
from .twins import WINDOWS


def band_bytes(
    config: FDATConfig,
    rows: int,
    columns: int,
    dtype: torch.dtype,
    map_dtype: torch.dtype,
    streamed: bool,
) -> int:
    """For a band of ``rows`` rows; ``streamed``: the maps are in host memory."""
    width = -(-columns // config.window_size) * config.window_size
    tokens, run, residual = (rows + 2) * width, dtype.itemsize, residual_dtype(dtype).itemsize
    dim, hidden = config.embed_dim * tokens, config.ffn_dim * tokens
    halfway = (dim + 3 * width * config.embed_dim) * output_dtype(dtype).itemsize
    # a map that is elsewhere or in another precision: rows to compute in, their copy, rows read
    outside = 0
    if streamed or map_dtype != dtype:
        outside = 2 * dim * run + dim * map_dtype.itemsize * (2 if streamed else 0)
        outside += dim * run if map_dtype != dtype else 0
    # n and what is added to x; n, the convolution's path and what attention holds of some windows; the
    # hidden rows
    heads = config.num_heads
    padded = heads * (-(-config.embed_dim // heads // HEAD_MULTIPLE) * HEAD_MULTIPLE)
    some = min(tokens, WINDOWS * config.window_size**2 + width * config.window_size)
    attention = 2 * dim * run + some * (2 * config.embed_dim + 5 * padded) * run
    normed = dim * (run + residual)
    halves = max(normed, 4 * dim * run, attention, (dim + hidden) * run, 2 * hidden * run)
    statistic = dim * residual * (2 if run != residual else 1)
    convolution = dim * (run + 2 * residual)
    # at first use: an output to be timed with; the twin in a higher precision, on a few rows
    few = min(tokens, max(CHECKED_TOKENS, 8 * width) + 2 * width)
    check = few * max(2 * config.ffn_dim, 4 * config.embed_dim) * 2 * residual + dim * residual
    return halfway + outside + max(halves, statistic, convolution, check)
