"""How rows and tokens are cut into bands and tiles."""

from __future__ import annotations

import torch

from ...kernels.attention import prefers_products

ATTENTION_TOKENS = {"products": 2**11, "sdpa": 2**12}
"""Tokens whose q, k and v a CPU computes at a time, so that they are still in its cache when
attention reads them. The keys are the two ways of kernels/attention.py: for
``scaled_dot_product_attention`` twice as many tokens are 3 to 5 % quicker."""


def split_rows(height: int, band: int) -> list[tuple[int, int]]:
    """Bands [start, stop) of ``band`` rows, the last one with what is left."""
    return [(start, min(start + band, height)) for start in range(0, height, band)]


def smallest_band(window: int) -> int:
    """The fewest rows that a band may have: whole windows, at least three rows.

    A band lags one row behind its input, and hands two rows to the next band.
    """
    return -(-3 // window) * window


def attention_tile(
    height: int, width: int, window: int, dtype: torch.dtype, device: torch.device
) -> tuple[int, int]:
    """Rows and columns of tokens, in whole windows, for which attention is computed at a time."""
    if device.type != "cpu":
        return height, width
    tokens = ATTENTION_TOKENS["products" if prefers_products(window**2, dtype, device) else "sdpa"]
    across = -(-width // window)
    down = max(1, tokens // (window**2 * across))
    return min(height, down * window), min(width, max(1, tokens // window**2) * window)


def band_of(tokens: int, columns: int, least: int) -> int:
    """Rows of a band of about so many tokens, a multiple of ``least``."""
    return max(1, round(tokens / columns / least)) * least
