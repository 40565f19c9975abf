"""What a fused operator moves and computes beyond its inputs and outputs; for counting.

A kernel reads its halo again, several programs may read the same rows, sums leave parts, and blocks
are padded to powers of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .launch import NARROW, PARTS, TILE, gram_side, power_of_two


@dataclass(frozen=True)
class Cost:
    """Kernels launched, bytes beyond one pass over inputs and outputs, operations of products.

    A multiplication with its addition is two operations; those of padding and halo are counted.
    """

    launches: int
    bytes: float
    operations: float


def cost_of(name: str, *arguments: Any) -> Cost:
    """The cost of a kernel for such arguments, see twins.py."""
    x = arguments[0]
    size, dim, wide = x.numel() * x.element_size(), x.shape[-1], power_of_two(x.shape[-1])
    tokens = x.shape[0] * x.shape[1]
    columns = -(-dim // 32) * 32
    ring = (TILE + 2) ** 2 / TILE**2 - 1
    if name == "window_half":
        window, bias, matrix = arguments[-2], arguments[-5], arguments[-4]
        heads = bias.shape[0]
        head = power_of_two(matrix.shape[1] // heads)
        each = heads * ((3 * columns + wide) * head + 2 * window**2 * head)
        return Cost(1, size * ((window + 2) ** 2 / window**2 - 1), 2 * tokens * each)
    if name == "channel_half":
        return Cost(1, size * ring, 2 * tokens * wide * columns)
    if name == "feed_forward":
        high, across = (8, 16) if dim <= NARROW and x.element_size() == 2 else (8, 8)
        again = high * across / ((high - 2) * (across - 2))
        hidden = -(-arguments[-3].shape[0] // 32) * 32
        read = wide if dim <= NARROW and x.element_size() == 2 else columns
        return Cost(1, size * (again - 1), 2 * tokens * again * (read + wide) * hidden)
    if name == "gate_sum":
        parts = min(8 * PARTS, tokens // TILE**2 + 1) * dim * 4
        return Cost(2, size * ring + 2 * parts, 0)
    if name == "gram":
        blocks = (-(-dim // gram_side(dim))) ** 2
        parts = min(PARTS, tokens // 32 + 1) * (dim + 1) * dim * 4
        return Cost(2, size * (blocks - 1) + 2 * parts, 2 * tokens * blocks * gram_side(dim) ** 2)
    assert name == "corners", "there are six operators"
    outputs = -(-4 * arguments[-4].shape[1] // 16) * 16
    return Cost(1, size * ((TILE + 1) ** 2 / TILE**2 - 1), 2 * tokens * 4 * columns * outputs)
