"""Devices that compute, whatever their kind: which there is, its memory, its precisions, streams.

torch offers one interface for all of them since 2.6, ``torch.accelerator``. For older versions, and
for what that interface lacks, the module of the kind is asked: ``torch.cuda`` (also AMD),
``torch.xpu``, ``torch.npu``, ``torch.mps``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch

UNKNOWN_MEMORY = 2**30
"""Bytes that count as free on a device that can't be asked, as DirectML's. Where that is too
little, smaller tiles are used than could be; where it is too much, smaller ones are tried."""

ROCM_WITHOUT_BF16 = (
    *("gfx7", "gfx8", "gfx900", "gfx902", "gfx904", "gfx906", "gfx909", "gfx90c"),
    "gfx10",
)
"""AMD's chips that only emulate bfloat16, by the beginnings of their names."""


def _module(device: torch.device) -> Any:
    """``torch.cuda`` for a CUDA device, and so on; None where the kind has no module."""
    return getattr(torch, device.type, None)


def free_memory(device: torch.device) -> int:
    """Bytes that could be allocated on the device now, with what torch holds there unused."""
    main = psutil.virtual_memory().available
    if device.type == "cpu":
        return main
    module = _module(device)
    if device.type == "mps":  # shares main memory, and may use a part of it
        return min(main, module.recommended_max_memory() - module.current_allocated_memory())
    if not hasattr(module, "mem_get_info"):
        return UNKNOWN_MEMORY
    try:
        free, _ = module.mem_get_info(device)
    except RuntimeError:  # as of Intel's chips that share main memory, pytorch/pytorch#159728
        total = module.get_device_properties(device).total_memory
        return min(main, total - module.memory_allocated(device))
    return free + module.memory_reserved(device) - module.memory_allocated(device)


def release_cache(device: torch.device) -> None:
    """Give memory that torch holds unused back to the device."""
    empty = getattr(_module(device), "empty_cache", None)
    if empty is not None:
        empty()


def computes_half(device: torch.device) -> bool:
    """Whether the device computes in float16 at least as fast as in float32."""
    if device.type == "cuda":
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (7, 0)
    if device.type == "xpu":
        return bool(getattr(torch.xpu.get_device_properties(device), "has_fp16", False))
    return device.type in ("mps", "npu")


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself: torch also offers it where it is emulated."""
    if device.type == "cuda":
        if torch.version.hip:
            name = torch.cuda.get_device_properties(device).gcnArchName
            return not name.startswith(ROCM_WITHOUT_BF16)
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "npu":
        return bool(_module(device).is_bf16_supported())
    if device.type == "xpu":
        properties = torch.xpu.get_device_properties(device)
        return bool(getattr(properties, "has_bfloat16_conversions", False))
    return False


def side_stream(device: torch.device) -> torch.Stream | None:
    """A stream of its own for copies; None where there are none, or no pinned memory for them."""
    try:
        if device.type == "cuda":
            stream = torch.cuda.Stream(device)
        elif device.type == "cpu" or not hasattr(torch, "accelerator"):
            return None
        else:
            stream = torch.Stream(device=device)
        recorded(stream).synchronize()
        torch.empty(1, pin_memory=True)
    except (RuntimeError, NotImplementedError, AssertionError):
        return None
    return stream


def current_stream(device: torch.device) -> torch.Stream:
    """The stream to which this thread's work on the device goes."""
    if device.type == "cuda":
        return torch.cuda.current_stream(device)
    return torch.accelerator.current_stream(device)


def recorded(stream: torch.Stream) -> torch.Event:
    """An event for which the host can wait: the stream has done what it was given until now."""
    if stream.device.type == "cuda":
        event = torch.cuda.Event(blocking=True)  # waiting for it takes no time of a core
        event.record(stream)
        return event
    return stream.record_event()


@contextmanager
def on(stream: torch.Stream) -> Iterator[None]:
    """A context in which this thread's work on the stream's device goes to the stream."""
    if stream.device.type == "cuda":
        with torch.cuda.stream(stream):
            yield
        return
    before = current_stream(stream.device)
    torch.accelerator.set_stream(stream)
    try:
        yield
    finally:
        torch.accelerator.set_stream(before)
