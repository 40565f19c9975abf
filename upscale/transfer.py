"""Copies between main memory and a device, beside what the device computes.

On a device with streams, copies run on one of their own, from and to pinned memory, and the host
waits for an event instead of the device. Elsewhere the same calls are plain copies.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from . import accelerator


def _references(tensor: Tensor) -> tuple[int, ...]:
    """How often Python, torch and other tensors refer to a tensor or its memory."""
    storage = tensor.untyped_storage()
    holders = torch._C._storage_Use_Count(storage._cdata)
    return sys.getrefcount(tensor), tensor._use_count(), holders, storage.resizable()


def is_fresh(tensor: Tensor) -> bool:
    """Whether nobody but the caller, in one variable, holds this tensor or its memory.

    Then nobody can write to it either. A network that keeps its result, to write the next one into
    the same memory, is told from one that hands out new memory, as nearly all do. False where torch
    can't tell.
    """
    return _can_tell() and _references(tensor) == _usual_references()


@cache
def _can_tell() -> bool:
    """Whether counting tells a tensor that somebody keeps from one that nobody does."""
    try:
        alone, holder = torch.empty(1), [torch.empty(1)]
        kept = holder[0]
        return _counted(alone) == _usual_references() != _counted(kept)
    except (AttributeError, TypeError, RuntimeError):
        return False


def _counted(tensor: Tensor) -> tuple[int, ...]:
    return _references(tensor)


@cache
def _usual_references() -> tuple[int, ...]:
    """Those of a new tensor in one variable of the caller of a function that counts them."""
    tensor = torch.empty(1)
    return _counted(tensor)


class Arrival:
    """A tensor on its way to main memory.

    Args:
        tensor: where it will be; on the device, where it has to be fetched from there.
        event: tells that it is there; None: nothing has to be waited for.
        source: what is being copied, which has to live until then.
        spare: takes the memory back when it has been read.
    """

    def __init__(
        self,
        tensor: Tensor,
        event: torch.Event | None = None,
        source: Tensor | None = None,
        spare: deque[Tensor] | None = None,
    ) -> None:
        self._tensor, self._event, self._source, self._spare = tensor, event, source, spare

    def wait(self) -> Tensor:
        """The tensor in main memory. Called in a thread for which the network does not wait."""
        if self._event is not None:
            self._event.synchronize()
            self._event = self._source = None
        return self._tensor.to("cpu")

    def release(self) -> None:
        """The tensor has been read, and will not be read again."""
        if self._spare is not None:
            self._spare.append(self._tensor)
            self._spare = None


class Copies:
    """Moves tensors between main memory and ``device``."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._side = accelerator.side_stream(device)
        self._spare: deque[Tensor] = deque()

    def staged(self, parts: Sequence[Tensor]) -> Tensor:
        """``parts`` (C, h, w) in main memory, as a batch (B, C, h, w) that is quick to upload.

        A single contiguous part is not copied where nothing is gained by it.
        """
        if self._side is None:
            return parts[0][None].contiguous() if len(parts) == 1 else torch.stack(list(parts))
        batch = self._pinned(torch.Size((len(parts), *parts[0].shape)), parts[0].dtype)
        return torch.stack(list(parts), out=batch)

    def upload(self, staged: Tensor, dtype: torch.dtype) -> Tensor:
        """A staged tensor on the device. ``staged`` has to live until the device has used it."""
        if self._side is None or staged.device.type != "cpu":
            return staged.to(self.device, dtype)
        compute = accelerator.current_stream(self.device)
        with accelerator.on(self._side):
            batch = staged.to(self.device, non_blocking=True)
        compute.wait_stream(self._side)
        batch.record_stream(compute)
        return batch.to(dtype)

    def download(self, tensor: Tensor, *, fresh: bool) -> Arrival:
        """Send a tensor to main memory as soon as the device has computed it.

        ``fresh``: nobody will write to its memory again. On a CPU it is copied otherwise.
        """
        if tensor.device.type == "cpu":
            return Arrival(tensor) if fresh else self._copied(tensor)
        if self._side is None:
            return Arrival(tensor)
        home = self._pinned(tensor.shape, tensor.dtype)
        self._side.wait_stream(accelerator.current_stream(self.device))
        with accelerator.on(self._side):
            home.copy_(tensor, non_blocking=True)
        return Arrival(home, accelerator.recorded(self._side), tensor)

    def _copied(self, tensor: Tensor) -> Arrival:
        """A copy, in memory of an earlier one if that fits: new memory is slow to write."""
        while self._spare:
            spare = self._spare.popleft()
            if spare.shape == tensor.shape and spare.dtype == tensor.dtype:
                return Arrival(spare.copy_(tensor), spare=self._spare)
        return Arrival(tensor.clone(), spare=self._spare)

    def _pinned(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Pinned memory; torch keeps it for later calls, and waits for copies before it reuses it."""
        try:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        except RuntimeError:  # the system allows no more of it; then copies are slower
            return torch.empty(shape, dtype=dtype)
