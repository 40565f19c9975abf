"""The packed weights on devices that lack float64, imitated by the meta device."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.helpers.fdat_cases import random_fdat, small


class WithoutFloat64(TorchDispatchMode):
    """Makes the meta device one that refuses float64; what is copied from there is zero."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        with self:  # under inference mode operators come whole that are made of others
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        there = any(t.device.type == "meta" for t in tensors)
        if func is torch.ops.aten._to_copy.default and there and "device" in kwargs:
            wanted = kwargs.get("dtype") or args[0].dtype
            assert wanted != torch.float64, "such a device converts before it copies"
            if kwargs["device"].type == "cpu":
                return torch.zeros(args[0].shape, dtype=wanted)
        result = func(*args, **kwargs)
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "meta":
                assert tensor.dtype != torch.float64, f"{func} in float64"
        return result


@pytest.mark.parametrize("upsampler", ["transpose+conv", "dysample", "lda"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.every(4)
def test_devices_without_float64(upsampler: str, dtype: torch.dtype) -> None:
    """As Intel's Arc, DirectML and MPS: nothing there is in float64."""
    engine = random_fdat(small(upsampler, 2)).exact_engine
    plan = engine.plan(1, 17, 9, dtype=dtype, device="meta", band=8)
    rows: list[int] = []
    with WithoutFloat64():
        engine.run(torch.rand(1, 3, 17, 9), plan, lambda top, part: rows.append(part.shape[2]))
    assert sum(rows) == 34
