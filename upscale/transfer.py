"""Copies between main memory and a device, beside what the device computes.

On a device with streams, copies run on one of their own, from and to pinned memory, and the host
waits for an event instead of the device. Elsewhere the same calls are plain copies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from . import accelerator


class Arrival:
    """A tensor on its way to main memory.

    Args:
        tensor: where it will be; on the device, where it has to be fetched from there.
        event: tells that it is there; None: nothing has to be waited for.
        source: what is being copied, which has to live until then.
    """

    def __init__(
        self, tensor: Tensor, event: torch.Event | None = None, source: Tensor | None = None
    ) -> None:
        self._tensor, self._event, self._source = tensor, event, source

    def wait(self) -> Tensor:
        """The tensor in main memory. Called in a thread for which the network does not wait."""
        if self._event is not None:
            self._event.synchronize()
            self._event = self._source = None
        return self._tensor.to("cpu")


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

    def download(self, tensor: Tensor, *, fresh: bool = False) -> Arrival:
        """Send a tensor to main memory as soon as the device has computed it.

        On a CPU it is copied, because networks may use the same memory for their next result;
        ``fresh`` says that this one will not.
        """
        if tensor.device.type == "cpu":
            return Arrival(tensor if fresh else self._copied(tensor))
        if self._side is None:
            return Arrival(tensor)
        home = self._pinned(tensor.shape, tensor.dtype)
        self._side.wait_stream(accelerator.current_stream(self.device))
        with accelerator.on(self._side):
            home.copy_(tensor, non_blocking=True)
        return Arrival(home, accelerator.recorded(self._side), tensor)

    def recycle(self, tensor: Tensor) -> None:
        """What has arrived has been read, and will not be read again."""
        if self.device.type == "cpu":
            self._spare.append(tensor)

    def _copied(self, tensor: Tensor) -> Tensor:
        """A copy, in memory of an earlier one if that fits: fresh memory is slow to write."""
        while self._spare:
            spare = self._spare.popleft()
            if spare.shape == tensor.shape and spare.dtype == tensor.dtype:
                return spare.copy_(tensor)
        return tensor.clone(memory_format=torch.contiguous_format)

    def _pinned(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Pinned memory; torch keeps it for later calls, and waits for copies before it reuses it."""
        try:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        except RuntimeError:  # the system allows no more of it; then copies are slower
            return torch.empty(shape, dtype=dtype)
