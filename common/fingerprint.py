"""Noticing that weights changed, so that what was made of them is made again."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

Fingerprint = tuple[tuple[int, torch.dtype, int], ...]


def fingerprint(tensors: Iterable[Tensor]) -> Fingerprint:
    """Address, type and version of each tensor.

    It changes when a tensor is replaced, cast, moved or written to in place. Inference tensors count
    no versions, and writes through ``.data`` or by fused optimisers raise none: after those, what
    was made has to be forgotten by hand.
    """
    return tuple((t.data_ptr(), t.dtype, 0 if t.is_inference() else t._version) for t in tensors)
