"""Memory of the pretended device: real memory in disguise, counted and limited.

A device tensor is an ordinary `torch.Tensor` whose storage says that it lies on the device, and
points to memory of a CPU storage that `Memory` keeps until the device's storage dies. So views,
strides and offsets are torch's own, and a kernel sees the same values as a CPU tensor.
"""

from __future__ import annotations

import sys
import weakref

import torch
from torch import Tensor

from .clocks import Marks, Timeline, place

CPU = torch._C.DispatchKey.CPU
NAME = "pretended"
DOUBLE = torch.float64, torch.complex128


class Block:
    """One allocation: ``raw`` is the CPU storage beneath."""

    def __init__(self, raw: torch.UntypedStorage, memory: Memory) -> None:
        self.raw = raw
        self.memory = memory
        self.marks = Marks(memory.timeline.current)


BLOCKS: dict[int, Block] = {}
"""By address; of all devices that were pretended in this process."""


def on_device(x: object) -> bool:
    return isinstance(x, Tensor) and x.device.type == NAME


def block_of(x: Tensor) -> Block | None:
    """The allocation of a device tensor; None if it has no bytes."""
    return BLOCKS.get(x.untyped_storage().data_ptr())


def beneath(x: Tensor) -> Tensor:
    """The CPU tensor that shares the memory of a device tensor."""
    block = block_of(x)
    raw = block.raw if block else torch.UntypedStorage(0)
    empty = torch.empty(0, dtype=x.dtype, device="cpu")
    return _set(empty, raw, x.storage_offset(), x.shape, x.stride())


def view_of(x: Tensor, result: Tensor) -> Tensor:
    """A device tensor on the storage of ``x``, with the geometry of ``result``."""
    return torch.ops.aten.as_strided.default._op_dk(
        CPU, x, result.shape, result.stride(), result.storage_offset()
    )


def _set(empty: Tensor, storage: torch.UntypedStorage, offset: int, shape, stride) -> Tensor:
    # the kernel itself, because neither of the two devices may ask the other one
    return torch.ops.aten.set_.source_Storage_storage_offset._op_dk(
        CPU, empty, storage, offset, shape, stride
    )


def spoil(x: Tensor) -> None:
    """Fill a CPU tensor with what nobody would take for a result: NaN, or the largest integer."""
    floating = x.is_floating_point() or x.is_complex()
    value = float("nan") if floating else 1 if x.dtype == torch.bool else torch.iinfo(x.dtype).max
    torch.ops.aten.fill_.Scalar._op_dk(CPU, x, value)


def _is_shown() -> bool:
    """Whether torch wants to print a tensor, for which it uses float64."""
    frame = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.endswith("_tensor_str.py"):
        frame = frame.f_back
    return frame is not None


class Memory:
    """Counts and limits what lies on the device.

    Attributes:
        total: bytes of the device.
        used, peak: bytes allocated now, and at most.
        allocations: so many were made.
        fail_at: the allocation of that number (counted from 1) raises OutOfMemoryError, once.
        pinned, pinned_peak: bytes of pinned main memory, rounded up to powers of two as torch does.
    """

    def __init__(self, timeline: Timeline, total: int, float64: bool) -> None:
        self.timeline, self.total, self.float64 = timeline, total, float64
        self.used = self.peak = self.allocations = 0
        self.pinned = self.pinned_peak = 0
        self.fail_at: int | None = None
        self._freed: list[tuple[Block, str]] = []
        self._pinned: set[int] = set()

    @property
    def free(self) -> int:
        return self.total - self.used

    def reset_peak(self) -> None:
        self.peak = self.used

    def check_type(self, dtype: torch.dtype) -> None:
        if dtype in DOUBLE and not self.float64 and not _is_shown():
            raise TypeError(
                f"Cannot convert a {NAME} Tensor to float64 dtype as the {NAME} framework doesn't support float64. "
                "Please use float32 instead."
            )

    def put(self, result: Tensor) -> Tensor:
        """A device tensor that takes over the memory of a CPU tensor which nobody else has.

        Raises:
            torch.OutOfMemoryError: the device is full.
            TypeError: it has no such type.
        """
        self.check_type(result.dtype)
        raw = result.untyped_storage()
        address, size = raw.data_ptr(), raw.nbytes()
        storage = torch._C._construct_storage_from_data_pointer(
            address, torch.device(NAME, 0), size
        )
        if size:
            with self.timeline.lock:
                self._take(size)
                BLOCKS[address] = Block(raw, self)
            weakref.finalize(storage, _free, address).atexit = False
        empty = torch._C._acc.create_empty_tensor([0], result.dtype)
        return _set(empty, storage, result.storage_offset(), result.shape, result.stride())

    def _take(self, size: int) -> None:
        self.allocations += 1
        if self.used + size > self.total or self.allocations == self.fail_at:
            raise torch.OutOfMemoryError(
                f"{NAME} out of memory. Tried to allocate {size} bytes. The device has a total capacity of "
                f"{self.total} bytes of which {self.free} bytes are free."
            )
        self._check_reuse()
        self.used += size
        self.peak = max(self.peak, self.used)

    def _check_reuse(self) -> None:
        """A new tensor of this stream may lie where a freed one lay that a copy still reads."""
        stream = self.timeline.current
        clock = self.timeline.clock(stream)
        freed, self._freed = self._freed, []
        for block, where in freed:
            unfinished = block.marks.unfinished(clock)
            if block.marks.stream != stream and unfinished:
                self._freed.append((block, where))
            elif unfinished:
                spoil(torch.empty(0, dtype=torch.uint8, device="cpu").set_(block.raw))
                work = unfinished[0]
                self.timeline.fault(
                    f"memory freed at {where} is used again while stream {work.stream} is at work on it (since "
                    f"{work.place}); keep the tensor until that is done, or call record_stream"
                )

    def released(self, block: Block) -> None:
        self.used -= block.raw.nbytes()
        marks = block.marks
        others = [
            work
            for work in marks.unfinished(self.timeline.clock(marks.stream))
            if work.stream not in marks.kept_for
        ]
        if others:
            self._freed.append((block, place()))

    def pin(self, x: Tensor) -> Tensor:
        """Note that the memory of a CPU tensor is pinned; the tensor itself."""
        storage = x.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if size and address not in self._pinned:
            self._pinned.add(address)
            rounded = 1 << (size - 1).bit_length()
            self.pinned += rounded
            self.pinned_peak = max(self.pinned_peak, self.pinned)
            weakref.finalize(storage, self._unpin, address, rounded).atexit = False
        return x

    def _unpin(self, address: int, rounded: int) -> None:
        self._pinned.discard(address)
        self.pinned -= rounded

    def is_pinned(self, x: Tensor) -> bool:
        return x.device.type == "cpu" and x.untyped_storage().data_ptr() in self._pinned


def _free(address: int) -> None:
    block = BLOCKS[address]
    with block.memory.timeline.lock:
        del BLOCKS[address]
        block.memory.released(block)
