"""How much memory a network needs: a dry run on the meta device counts live tensors."""

from __future__ import annotations

import copy
import logging
import weakref
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

logger = logging.getLogger(__name__)

UNKNOWN_BYTES_PER_PIXEL = 4608
"""The estimate if a dry run fails, in float32 bytes per input pixel and unit of scale: what
ComfyUI's own node reserves."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that operations made and that still exist; keeps the peak.

    Scratch memory of operators is in no tensor, so an estimate is added for two kinds.
    Convolutions: three quarters of input and output, because the libraries behind them convert
    the layout of either or both. Attention: its logits, and copies of inputs that are not contiguous. The
    estimates are fitted to what CPU runs use (``python -m benchmarks.upscale``).
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for tensor in tensors:
            self._track(tensor.untyped_storage())
        self.peak = max(self.peak, sum(self._live.values()) + _scratch(func.__name__, args, result))
        return result

    def _track(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._live:
            self._live[key] = storage.nbytes()
            weakref.finalize(storage, self._live.pop, key, None)


def _scratch(operation: str, args: Any, result: Any) -> int:
    if "conv" in operation:
        return (args[0].nbytes + result.nbytes) * 3 // 4
    if "scaled_dot_product_attention" in operation:
        query, key, value = args[:3]
        copies = sum(tensor.nbytes for tensor in (query, key, value) if not tensor.is_contiguous())
        return query.nbytes // query.shape[-1] * key.shape[-2] + copies
    return 0


_peaks: weakref.WeakKeyDictionary[nn.Module, dict[tuple, int]] = weakref.WeakKeyDictionary()
_standing_for: ContextVar[torch.device | None] = ContextVar("standing_for", default=None)


def device_of(x: Tensor) -> torch.device:
    """The device of ``x``; in a dry run, the device that the run stands for.

    Networks ask for it where they compute in another way on a CPU than on a GPU.
    """
    return (_standing_for.get() if x.is_meta else None) or x.device


def working_bytes(
    network: nn.Module,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    scale: int,
    device: torch.device,
) -> int:
    """Peak bytes of live tensors while a network runs, weights and input not counted.

    The output counts, and everything between. See `LiveBytes` for operators' scratch memory.

    Args:
        network: what runs; results are remembered, so each is run once per shape, dtype and device.
        shape: (B, C, H, W) of the input.
        dtype: of weights and input.
        scale: output size / input size, for the guess where a dry run fails.
        device: where it will run.

    If a network has a method ``prepare()``, which computes something from its weights once, that is
    called first and does not count.
    """
    known = _peaks.setdefault(network, {})
    key = shape, dtype, device.type
    if key not in known:
        standing = _standing_for.set(device)
        try:
            known[key] = _dry_run(network, shape, dtype, scale)
        finally:
            _standing_for.reset(standing)
    return known[key]


def meta_twin(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of the network whose weights have shapes but no data, ready to run.

    It is a copy because networks may change their own attributes when they run. What a network
    computes from its weights once is done, so that it does not count.
    """
    twins: dict[int, Any] = {}
    for tensor in [*network.parameters(), *network.buffers()]:
        twin = torch.empty_like(
            tensor, device="meta", dtype=dtype if tensor.is_floating_point() else tensor.dtype
        )
        twins[id(tensor)] = (
            nn.Parameter(twin, requires_grad=False) if isinstance(tensor, nn.Parameter) else twin
        )
    copied = copy.deepcopy(network, twins).eval()
    if hasattr(copied, "prepare"):
        copied.prepare()
    return copied


def _dry_run(network: nn.Module, shape: tuple[int, ...], dtype: torch.dtype, scale: int) -> int:
    try:
        with torch.inference_mode():
            twin = meta_twin(network, dtype)
            image = torch.empty(shape, dtype=dtype, device="meta")
            with LiveBytes() as live:
                twin(image)
        return live.peak
    except Exception as error:  # data-dependent code, tensors made on a fixed device ...
        logger.debug("no dry run of %s: %s", type(network).__name__, error)
        size = torch.empty((), dtype=dtype).element_size()
        return UNKNOWN_BYTES_PER_PIXEL * size // 4 * max(scale, 1) * shape[0] * shape[2] * shape[3]
