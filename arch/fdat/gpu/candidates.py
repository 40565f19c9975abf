"""In which ways a kernel can be launched for given arguments: tiles, warps, precision of products.

Where there are several, the quickest of those that fit a chip's shared memory is found at first use
(choice.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from . import launch
from .sizes import NARROW, gram_side, places, warps_of

Way = Callable[..., Any]

PRODUCTS = {"window_half": 8, "channel_half": 8, "feed_forward": 7, "convolve": 4, "corners": 3}
"""Where the weight stands whose precision is that of an operator's products; else it is the map's."""


def is_old(device: torch.device) -> bool:
    """Whether Triton computes all products there without tensor cores.

    Below NVIDIA's Ampere (8.0).
    """
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) < (8, 0)


def precisions(dtype: torch.dtype, inputs: torch.dtype = torch.float32) -> list[str]:
    """How products may be computed: for float32 in TF32 only where the host allows it.

    Or where the ``inputs`` come from half precision, which TF32 holds as they are.

    "tf32x3" adds up three products of TF32, which is as precise as float32 and uses the tensor cores
    where there are such; half precision knows one way.
    """
    if dtype != torch.float32:
        return ["ieee"]
    if inputs != torch.float32:
        return ["tf32", "ieee"]
    return ["tf32"] if torch.backends.cuda.matmul.allow_tf32 else ["tf32x3", "ieee"]


def ways_of(name: str, *arguments: Any) -> list[Way]:
    """The ways to launch an operator for such arguments; none where its kernel can't do them."""
    x = arguments[0]
    if name == "gate_sum":
        return [partial(launch.gate_sum, warps_of(x.shape[-1]))]
    if name == "fold_gate":
        return [launch.fold_gate]
    if name == "fold_channel":
        # wider heads find no room for their logits
        return [launch.fold_channel] if x.shape[-1] <= 128 * arguments[6].shape[0] else []
    if name == "window_half" and arguments[-2] not in (4, 8):
        return []  # other windows are no power of two, or do not fit
    products = arguments[PRODUCTS.get(name, 0)].dtype
    single, old = products == torch.float32, is_old(x.device)
    return [
        partial(getattr(launch, name), *shape, precision)
        for precision in precisions(products, x.dtype)
        for shape in _shapes(name, x.shape[-1], single, old or (single and precision == "ieee"))
    ]


def _shapes(name: str, dim: int, single: bool, by_rows: bool) -> list[tuple[Any, ...]]:
    """What the launcher takes beside the precision, in the order of preference.

    ``by_rows``: products are computed without tensor cores, by rows that are held in registers, so
    tiles have to be smaller.
    """
    # channels that products take at a time: wide networks have no registers for more
    columns = 16 if single or by_rows or places(dim) > NARROW else 32
    most = 64 if single or by_rows else 128
    if name == "window_half":
        return [(columns, min(warps_of(dim), 8))]
    if name == "channel_half":
        return [(columns, warps_of(dim))]
    if name == "feed_forward":
        # the smaller tile computes more of its halo again, and spills no registers where C is wide
        sides = [(8, 8)] if single or by_rows else [(8, 16), (8, 8)]
        held = not (single or by_rows) and dim <= NARROW
        shapes = [(*side, columns, held, 8) for side in sides]
        # AMD's chips have fewer registers for a thread
        return [*shapes, (8, 8, 16, False, 8)] if held else shapes
    if name == "gram":
        if by_rows:
            return [(16, 64, False, 8)]
        tokens, side = 16 if single else 32, gram_side(dim)
        return [(tokens, side, True, 8)] * (128 < dim <= 256) + [(tokens, side, False, 8)]
    if name == "convolve":
        small = (8, 8, columns, most, 4)
        return [small] if by_rows else [(8, 16, columns, most, 8), small]
    assert name == "corners", "there are nine operators"
    return [(8, 8, columns, most, 4), (8, 8, columns, most // 2, 4)]
