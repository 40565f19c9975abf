"""Rows of a weight in the order of others: queries, keys and values, and what a PixelShuffle takes
apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def qkv_rows(rows: Tensor, parts: Sequence[str], layout: str, heads: int) -> Tensor:
    """All queries, all keys, all values, each head by head.

    Args:
        rows: (3 * width, ...) the layers of the file one after the other.
        parts: what each layer holds, in the order of its rows: ("qkv",), ("q", "kv"), ("kvq",) ...
        layout: how a layer's rows count, from the slowest to the fastest: letters (3), heads (h),
            place in a head (d).
        heads: of the attention.
    """
    width = rows.shape[0] // 3
    found: dict[str, Tensor] = {}
    for part, own in zip(parts, rows.split([width * len(part) for part in parts])):
        sizes = {"3": len(part), "h": heads, "d": width // heads}
        own = own.unflatten(0, [sizes[axis] for axis in layout])
        own = own.permute(*(layout.index(axis) for axis in "3hd"), *range(3, own.ndim)).flatten(
            1, 2
        )
        found |= dict(zip(part, own))
    return torch.cat([found[letter] for letter in "qkv"])


def splits_in_twos(factor: int) -> bool:
    """Whether PixelShuffle(factor) could be several PixelShuffle(2) in a row."""
    return factor > 2 and factor & (factor - 1) == 0


def shuffle_rows(rows: Tensor, factor: int) -> Tensor:
    """Rows (channels * factor**2, ...) for PixelShuffle(2) several times in a row, as
    PixelShuffle(factor) takes them.

    The first PixelShuffle takes the fastest index of the rows and makes the slowest index of the
    pixels.
    """
    steps = int(math.log2(factor))
    rows = rows.unflatten(
        0, (-1, *[2] * (2 * steps))
    )  # (channels, y, x of the last, ..., y, x of the first)
    vertical = range(2 * steps - 1, 0, -2)
    horizontal = range(2 * steps, 0, -2)
    return rows.permute(0, *vertical, *horizontal, *range(2 * steps + 1, rows.ndim)).flatten(
        0, 2 * steps
    )
