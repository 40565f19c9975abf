"""What a fused operator moves and computes beyond its inputs and outputs; for counting.

A kernel reads its halo again, several programs may read the same rows, sums leave parts, and blocks
are padded to powers of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .sizes import FOLDED, NARROW, TILE, gram_side, places, power_of_two


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
    if name == "fold_gate":
        programs = -(
            -arguments[4].shape[0] // FOLDED
        )  # each reads all parts and the gate's weights
        read = x.numel() * 4 + 2 * arguments[2].numel() * arguments[2].element_size()
        return Cost(1, (programs - 1) * read, 0)
    if name == "fold_channel":
        square, heads = arguments[3].numel(), arguments[6].shape[0]
        again = (2 + heads) * square * 4  # the sums, read by every head; what its heads attend to
        return Cost(
            3, again + square * 4, 2 * square * (3 * x.shape[-1] + 2 * x.shape[-1] // heads)
        )
    size, dim, wide = x.numel() * x.element_size(), x.shape[-1], places(x.shape[-1])
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
        half = arguments[-3].element_size() == 2
        high, across = (8, 16) if dim <= NARROW and half else (8, 8)
        again = high * across / ((high - 2) * (across - 2))
        hidden = -(-arguments[-3].shape[0] // 32) * 32
        read = wide if dim <= NARROW and half else columns
        return Cost(1, size * (again - 1), 2 * tokens * again * (read + wide) * hidden)
    if name in ("gate_sum", "gram"):
        parts, first = arguments[1], arguments[2 if name == "gate_sum" else 3]
        before = 0 if first else parts.numel() * parts.element_size()
    if name == "gate_sum":
        return Cost(1, size * ring + before, 0)
    if name == "gram":
        side = gram_side(dim)
        down = -(-dim // side)
        across = 1 if dim <= 256 else down  # see `launch.gram`
        held = side if dim <= side else side + power_of_two(dim - side) if across == 1 else side
        moved = size * (down * across - 1) + before
        return Cost(1, moved, 2 * tokens * down * side * across * held)
    if name == "convolve":
        outputs, enlarge = arguments[4].shape[0], arguments[7]
        block = min(128 if arguments[4].element_size() == 2 else 64, power_of_two(outputs))
        blocks = -(-outputs // block)
        moved = size * ((8 + 2) * (16 + 2) / (8 * 16) * blocks - 1)
        done = 2 * tokens * enlarge**2 * 9 * max(16, -(-dim // 16) * 16) * blocks * block
        return Cost(1, moved, done)
    assert name == "corners", "there are nine operators"
    outputs = -(-4 * arguments[-4].shape[1] // 16) * 16
    return Cost(1, size * ((TILE + 1) ** 2 / TILE**2 - 1), 2 * tokens * 4 * columns * outputs)
