"""Tiles, places and programs of the kernels: what costs.py counts, too."""

from __future__ import annotations

TILE = 8
"""Side of the tiles of tokens, but those of the feed-forward half; also that of the windows."""

ROWS = 8
"""Rows in a band are a multiple of this while kernels are checked: windows are not cut."""

PARTS = {"gram": 128, "gate_sum": 512}
"""Programs that sum over an image, each with a part of its own, at most."""

SUMMED_TOKENS = {"gram": 32, "gate_sum": TILE**2}
"""Tokens that such a program takes at a time."""

FOLDED = 16
"""Rows of a folded matrix that a program makes."""

NARROW = 128
"""Up to this width the feed-forward half holds its normalised tile; wider ones find no room."""


def power_of_two(value: int, least: int = 16) -> int:
    """The least power of two that is not below ``value`` and ``least``."""
    return max(least, 1 << (value - 1).bit_length())


def pieces(dim: int) -> dict[str, int]:
    """Places in which C channels are held, in one piece or two: 180 in 128 + 64 instead of 256."""
    whole = power_of_two(dim)
    half = whole // 2
    if half >= 16 and dim <= half + half // 2:
        return {"CA": half, "CB": power_of_two(dim - half)}
    return {"CA": whole, "CB": 0}


def places(dim: int) -> int:
    """Places in which C channels are held."""
    return sum(pieces(dim).values())


def halo_places(side: int) -> int:
    """Places for a square tile with its halo."""
    return power_of_two((side + 2) ** 2)


def tiles(rows: int, width: int, high: int, wide: int) -> int:
    """Tiles of ``high`` x ``wide`` places that cover an image."""
    return -(-rows // high) * -(-width // wide)


def warps_of(dim: int) -> int:
    """Warps of a program that holds a tile of 64 tokens several times in its registers."""
    held = places(dim)
    return 4 if held <= 64 else 8 if held <= 192 else 16


def gram_side(dim: int) -> int:
    """Rows of the Gram matrix that a program holds."""
    return min(128, power_of_two(dim))
