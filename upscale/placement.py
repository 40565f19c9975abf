"""Device memory without a host program: moves the model to the device, and back afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

import torch
from spandrel import ImageModelDescriptor
from torch import Tensor, nn

from ..common.devices import current_accelerator
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


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


class Move:
    """Moves a module to a device, and back to the very tensors from where it came.

    So nothing is copied back, and nobody waits for it: 213 copies for Dense-Iso-ViT. Those tensors
    keep their memory meanwhile.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._module = module
        self._left = [tensor.data for tensor in _tensors(module)]
        self._homes: dict[tuple, tuple[Tensor, Tensor, int]] = {}
        self._device = device

    def go(self) -> None:
        """To the device. Also after running out of memory on the way, `back` leads home."""
        try:
            move(self._module, self._device)
        finally:
            self._homes = {
                self._key(now.data): (then, now, self._version(now))
                for then, now in zip(self._left, _tensors(self._module))
                if then.device != now.device
            }

    @staticmethod
    def _key(tensor: Tensor) -> tuple:
        return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype

    @staticmethod
    def _version(tensor: Tensor) -> int:
        return 0 if tensor.is_inference() else tensor._version

    def back(self, device: torch.device) -> None:
        """To ``device``; what was written to or replaced meanwhile is copied."""

        def home(tensor: Tensor) -> Tensor:
            then, now, version = self._homes.get(self._key(tensor), (None, None, 0))
            unchanged = then is not None and self._version(now) == version
            return then if unchanged else tensor.to(device)

        if any(tensor.device != device for tensor in _tensors(self._module)):
            self._module._apply(home)


def move(module: nn.Module, device: torch.device) -> None:
    """Move a module to a device, unless all of it is there already.

    ``module.to`` visits every submodule even then, which networks may take for a change of their
    weights: Dense-Iso-ViT would compose its head anew for every picture.
    """
    if any(tensor.device != device for tensor in _tensors(module)):
        # copies to main memory have to be waited for: nothing else tells that they are there
        module.to(device, non_blocking=device.type != "cpu")


class DirectPlacement:
    """A `Placement` that owns the device; a context manager that leaves the model as it was.

    On exit, also after an error, the model is moved back to its device. Other precisions run in a
    copy, so the model's weights never change.
    """

    def __init__(
        self, model: ImageModelDescriptor, device: torch.device | str | None = None
    ) -> None:
        if device is None:
            device = current_accelerator() or model.device
        self.device = checked_device(device)
        self._model = model
        self._moved: Move | None = None

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
            if self._moved:
                self._moved.back(found_on)
            move(self._model.model, found_on)  # where another thread has moved it
            self.release_cache()

        return restore

    def auto_dtype(self, model: ImageModelDescriptor) -> torch.dtype:
        return best_dtype(model, self.device)

    def prepare(
        self, model: ImageModelDescriptor, dtype: torch.dtype, memory_required: int
    ) -> ImageModelDescriptor:
        with _moving:
            ready = in_precision(model, dtype)
            if ready is model and self._moved is None:
                self._moved = Move(model.model, self.device)
                self._moved.go()
            else:
                move(ready.model, self.device)
        return ready.eval()

    def available(self) -> int:
        return int(accelerator.free_memory(self.device) * SHARE_OF_FREE_MEMORY)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return is_out_of_memory(error)

    def release_cache(self) -> None:
        accelerator.release_cache(self.device)
