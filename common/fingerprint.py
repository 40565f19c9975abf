"""Notices that weights changed, so that what was computed from them is computed again."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

Fingerprint = tuple[tuple[int, torch.dtype, int], ...]


def fingerprint(tensors: Iterable[Tensor]) -> Fingerprint:
    """Address, type and version of each tensor.

    It changes when a tensor is replaced, cast, moved or written to in place. It does not notice
    writes to inference tensors, through ``.data`` or by fused optimisers, which raise no version:
    after those, what was computed from the weights has to be dropped explicitly.
    """
    return tuple((t.data_ptr(), t.dtype, 0 if t.is_inference() else t._version) for t in tensors)
