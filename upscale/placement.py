"""Device memory without a host program: moves the model to the device, and back afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import chain
from types import TracebackType

import torch
from spandrel import ImageModelDescriptor
from torch import nn

from . import accelerator
from .memory import is_out_of_memory
from .precision import best_dtype, forget_copies, in_precision
from .shared_state import shared

SHARE_OF_FREE_MEMORY = 0.7
"""Share of the free memory that is used; the rest is for other programs and for what estimates
miss."""
_moving = threading.Lock()


def training_mode_kept(model: ImageModelDescriptor) -> AbstractContextManager[None]:
    """A context that restores the training flag of every submodule at its end.

    Running a descriptor puts its model into eval mode.
    """

    def note() -> Callable[[], None]:
        training = [module for module in model.model.modules() if module.training]

        def restore() -> None:
            for module in training:
                module.training = True

        return restore

    return shared(model.model, "mode", "eval", note)


def checked_device(device: torch.device | str) -> torch.device:
    """The device of that name; ValueError if it does not exist here or can't compute."""
    try:
        found = torch.empty(0, device=device).device
    except Exception as error:  # of several types: an assertion where torch was built without CUDA
        reason = " ".join(str(error).split("\n")[0].split())
        raise ValueError(
            f"device {str(device)!r} can't be used here ({reason}); 'cpu' always can"
        ) from error
    if found.type == "meta":  # moving weights there loses them
        raise ValueError(
            "device 'meta' holds no values; name one that computes, as 'cpu' or 'cuda'"
        )
    return found


def move(module: nn.Module, device: torch.device) -> None:
    """Move a module to a device, unless all of it is there already.

    ``module.to`` visits every submodule even then, which networks may take for a change of their
    weights: Dense-Iso-ViT would compose its head anew for every picture.
    """
    if any(tensor.device != device for tensor in chain(module.parameters(), module.buffers())):
        module.to(device)


class DirectPlacement:
    """A `Placement` that owns the device; a context manager that leaves the model as it was.

    On exit, also after an error, the model is moved back to its device. Other precisions run in a
    copy, so the model's weights never change.
    """

    def __init__(
        self, model: ImageModelDescriptor, device: torch.device | str | None = None
    ) -> None:
        if device is None:
            device = accelerator.current() or model.device
        self.device = checked_device(device)
        self._model = model

    def __enter__(self) -> DirectPlacement:
        self._use = shared(self._model.model, "device", self.device, self._note)
        self._use.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._use.__exit__(kind, error, trace)

    def _note(self) -> Callable[[], None]:
        found_on = self._model.device

        def restore() -> None:
            if self.device.type != "cpu":  # copies in main memory may stay while the model lives
                forget_copies(self._model)
            move(self._model.model, found_on)
            self.release_cache()

        return restore

    def auto_dtype(self, model: ImageModelDescriptor) -> torch.dtype:
        return best_dtype(model, self.device)

    def prepare(
        self, model: ImageModelDescriptor, dtype: torch.dtype, memory_required: int
    ) -> ImageModelDescriptor:
        with _moving:
            ready = in_precision(model, dtype)
            move(ready.model, self.device)
        return ready.eval()

    def available(self) -> int:
        return int(accelerator.free_memory(self.device) * SHARE_OF_FREE_MEMORY)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return is_out_of_memory(error)

    def release_cache(self) -> None:
        accelerator.release_cache(self.device)
