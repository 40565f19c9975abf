"""Device memory without a host program: move the model to the device for the work, and put everything back."""

from __future__ import annotations

from types import TracebackType

import psutil
import torch
from spandrel import ImageModelDescriptor

from .precision import best_dtype, cast_copy

SHARE_OF_FREE_MEMORY = 0.7
"""Of the memory that is free now; the rest is for other programs and for what no estimate sees."""

CPU_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "could not allocate")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that device or CPU memory ran out (the CPU allocator raises plain RuntimeErrors)."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in CPU_OUT_OF_MEMORY)


class DirectPlacement:
    """A `Placement` that owns the device; a context manager that gives the model back as it was.

    Device and training mode of every submodule are restored on exit, also after an error. Other precisions run in a
    copy, so the model's weights never change.
    """

    def __init__(self, model: ImageModelDescriptor, device: torch.device | str | None = None) -> None:
        if device is None:
            device = "cuda" if torch.cuda.is_available() else model.device
        self.device = torch.device(device)
        self._model = model
        self._copies: dict[torch.dtype, ImageModelDescriptor] = {}

    def __enter__(self) -> DirectPlacement:
        self._found_on = self._model.device
        self._training = [module for module in self._model.model.modules() if module.training]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._copies.clear()
        if self._model.device != self._found_on:
            self._model.model.to(self._found_on)
        for module in self._training:
            module.training = True
        self.release_cache()

    def auto_dtype(self, model: ImageModelDescriptor) -> torch.dtype:
        return best_dtype(model, self.device)

    def prepare(self, model: ImageModelDescriptor, dtype: torch.dtype, memory_required: int) -> ImageModelDescriptor:
        if model.dtype == dtype:
            ready = model
        else:
            if dtype not in self._copies:
                self._copies[dtype] = cast_copy(model, dtype)
            ready = self._copies[dtype]
        ready.model.to(self.device)
        return ready.eval()

    def available(self) -> int:
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            return int((free + unused) * SHARE_OF_FREE_MEMORY)
        return int(psutil.virtual_memory().available * SHARE_OF_FREE_MEMORY)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return is_out_of_memory(error)

    def release_cache(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
