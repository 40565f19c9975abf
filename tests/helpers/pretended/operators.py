"""The operators of the pretended device: each runs the CPU's kernel on the memory beneath."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from .memory import BLOCKS, CPU, NAME, Block, beneath, block_of, on_device, spoil, view_of
from .state import Pretended

SHAPED_BY_VALUES = {
    *("nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive"),
    *("unique_dim_consecutive", "repeat_interleave", "bincount", "nonzero_static"),
}
ASKED = {"_local_scalar_dense", "equal"}
INDEXED = {"index", "_index_put_impl_"}
"""Their indices may lie in main memory, or be masks; torch itself turns those of ``index`` into
indices on the device, before it asks for the kernel."""
FOREIGN = "mkldnn", "fbgemm", "quantize", "_mkl"
"""Parts of names of operators that exist for the CPU only."""


def run(pretended: Pretended, op: Any, *args: Any, **kwargs: Any) -> Any:
    """Any operator without a function of its own below."""
    name = op._schema.name.removeprefix("aten::")
    if "::" in name or any(part in name for part in FOREIGN):
        raise NotImplementedError(
            f"Could not run '{op._schema.name}' with arguments from the '{NAME}' backend."
        )
    if op.is_view and _has_cpu_kernel(op):  # touches no values, nor asks what device it is for
        return op._op_dk(CPU, *args, **kwargs)
    call = Call(pretended, op, args, kwargs)
    if name in ASKED:
        pretended.timeline.wait("value", pretended.clock)
    if name in SHAPED_BY_VALUES or (name == "_index_put_impl_" and call.masked):
        pretended.timeline.wait("shape", pretended.clock)
    work = pretended.timeline.launch(
        name, (block.marks for block in call.read), (block.marks for block in call.written)
    )
    found = op(*call.args, **call.kwargs)
    call.follow_resizes()
    return call.results(found, work)


@cache
def _has_cpu_kernel(op: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CPU")


class Call:
    """The arguments of one call, as CPU tensors, and the way back."""

    def __init__(self, pretended: Pretended, op: Any, args: tuple, kwargs: dict) -> None:
        self.pretended, self.name = pretended, op._schema.name.removeprefix("aten::")
        self.read: list[Block] = []
        self.written: list[Block] = []
        self.masked = False
        self._device: dict[int, Tensor] = {}  # by id of the CPU tensor; `_kept` keeps that valid
        self._by_address: dict[int, Tensor] = {}
        self._kept: list[Tensor] = []
        self._home: list[Tensor] = []  # the tensors of main memory
        target = kwargs.pop("device", None)
        self.to_device = target is None or target.type == NAME
        kwargs.pop("pin_memory", None)
        if target is not None:
            kwargs["device"] = torch.device("cpu") if self.to_device else target
        if self.to_device and isinstance(kwargs.get("dtype"), torch.dtype):
            pretended.memory.check_type(kwargs["dtype"])
        schema = {argument.name: argument for argument in op._schema.arguments}
        self.args = [self._lower(x, a) for x, a in zip(args, op._schema.arguments, strict=False)]
        self.kwargs = {key: self._lower(x, schema[key]) for key, x in kwargs.items()}
        if self._device:
            self._check_home()

    def _lower(self, x: Any, argument: Any) -> Any:
        if isinstance(x, list | tuple):
            return type(x)(self._lower(each, argument) for each in x)
        if isinstance(x, int | float) and str(argument.type) == "Tensor":
            return torch.tensor(x)  # torch hands a wrapped number over as what it was before
        if not isinstance(x, Tensor):
            return x
        if x.dtype in (torch.bool, torch.uint8) and argument.name == "indices":
            self.masked = True
        if not on_device(x):
            self._home.append(x)
            return x
        lower, block = beneath(x), block_of(x)
        self._device[id(lower)] = x
        self._kept.append(lower)
        if block is not None:
            self._by_address[block.raw.data_ptr()] = x
            writes = argument.alias_info is not None and argument.alias_info.is_write
            (self.written if writes else self.read).append(block)
        return lower

    def _check_home(self) -> None:
        for x in self._home:
            if x.device.type == "cpu" and self.name in INDEXED and not x.is_floating_point():
                if self.name != "index":
                    self.pretended.timeline.wait("copy to the device", self.pretended.clock)
            elif x.device.type != "cpu" or x.dim():
                raise RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two devices, "
                    f"{NAME}:0 and {x.device}! (in {self.name})"
                )

    def follow_resizes(self) -> None:
        """Give the device's tensors the size that the kernel has given to empty ``out`` tensors."""
        for lower in self._kept:
            x = self._device[id(lower)]
            if lower.shape != x.shape:
                resize_(self.pretended, x, lower.shape)
                if lower.numel():
                    beneath(x).copy_(lower)

    def results(self, found: Any, work: Any) -> Any:
        """What the CPU's kernel has returned, as tensors of the device."""
        if isinstance(found, list | tuple):
            return type(found)(self.results(each, work) for each in found)
        if not isinstance(found, Tensor) or not self.to_device:
            return found
        if id(found) in self._device:
            return self._device[id(found)]
        shared = self._by_address.get(found.untyped_storage().data_ptr())
        if shared is not None:
            return view_of(shared, found)
        result = self.pretended.memory.put(found)
        block = block_of(result)
        if block is not None:
            block.marks.written = work
        return result


def _marks(*tensors: Tensor) -> Iterator[Any]:
    return (block.marks for block in map(block_of, tensors) if block is not None)


def copy_(pretended: Pretended, self: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    """Copies, also from and to main memory; those that need not block are late."""
    copy = torch.ops.aten.copy_.default
    if on_device(self) and on_device(src):
        pretended.timeline.launch("copy", _marks(src), _marks(self))
        copy(beneath(self), beneath(src))
        return self
    home, away = (src, self) if on_device(self) else (self, src)
    if home.device.type != "cpu":
        raise RuntimeError(f"no copies between {self.device} and {src.device}")
    plain = home.is_contiguous() or (home.stride() == away.stride() and home.shape == away.shape)
    late = non_blocking and plain and pretended.memory.is_pinned(home) and home.numel() > 0
    if on_device(self):
        if late:
            do = partial(_copy_now, beneath(self), src)
            pretended.timeline.launch("copy", (), _marks(self), do)
        else:
            if not non_blocking:
                pretended.timeline.wait("copy to the device", pretended.clock)
            pretended.timeline.launch("copy", (), _marks(self))
            copy(beneath(self), src)
        return self
    if late:
        do = partial(_copy_now, self, beneath(src))
        pretended.timeline.launch("copy", _marks(src), (), do)
        spoil(self)
    else:
        pretended.timeline.launch("copy", _marks(src), ())
        pretended.timeline.wait("copy to main memory", pretended.clock)
        copy(self, beneath(src))
    return self


def _copy_now(into: Tensor, source: Tensor) -> None:
    with torch._C._AutoDispatchBelowAutograd():  # inference tensors are no matter here
        torch.ops.aten.copy_.default(into, source)


def _to_copy(
    pretended: Pretended,
    self: Tensor,
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
    non_blocking: bool = False,
    memory_format: torch.memory_format | None = None,
) -> Tensor:
    """`Tensor.to`: a copy without blocking comes home to pinned memory, as on CUDA."""
    target = self.device if device is None else device
    form = torch.preserve_format if memory_format is None else memory_format
    dtype = dtype or self.dtype
    if target.type == NAME:
        pretended.memory.check_type(dtype)
        like = torch.empty_like(beneath(self), dtype=dtype, memory_format=form)
        return copy_(pretended, pretended.memory.put(like), self, non_blocking)
    result = torch.empty_like(beneath(self), dtype=dtype, device=target, memory_format=form)
    if non_blocking and pretended.pinning:
        pretended.memory.pin(result)
    return copy_(pretended, result, self, non_blocking)


def resize_(pretended: Pretended, self: Tensor, size: Any, *, memory_format: Any = None) -> Tensor:
    """Resizes; what does not fit gets new memory."""
    shape = torch.empty(size, dtype=self.dtype, device="meta")
    needed = (self.storage_offset() + shape.numel()) * self.dtype.itemsize
    storage, offset = self.untyped_storage(), self.storage_offset()
    if memory_format not in (None, torch.contiguous_format, torch.preserve_format):
        raise NotImplementedError(f"resize_ to {memory_format}")
    if needed > storage.nbytes():
        fresh = torch.empty(self.storage_offset() + shape.numel(), dtype=self.dtype, device="cpu")
        kept = storage.nbytes() // self.dtype.itemsize
        if kept:
            old = torch.empty(0, dtype=self.dtype, device="cpu").set_(
                BLOCKS[storage.data_ptr()].raw
            )
            fresh[:kept] = old[:kept]
        storage = pretended.memory.put(fresh).untyped_storage()
    return torch.ops.aten.set_.source_Storage_storage_offset._op_dk(
        CPU, self, storage, offset, size, shape.stride()
    )


def set_storage(
    pretended: Pretended,
    self: Tensor,
    source: Any,
    offset: int = 0,
    size: Any = (),
    stride: Any = (),
) -> Tensor:
    op = torch.ops.aten.set_.source_Storage_storage_offset
    return op._op_dk(CPU, self, source, offset, size, stride)


def record_stream(pretended: Pretended, self: Tensor, s: torch.Stream) -> None:
    """The allocator keeps the memory until what that stream has been given is done."""
    for marks in _marks(self):
        marks.kept_for.add(s.stream_id)


def _run_whole(op: Any) -> Any:
    """Run one operator that torch would take apart, into what no such device has."""
    return lambda pretended, *args, **kwargs: run(pretended, op, *args, **kwargs)


SPECIAL = {
    "aten::copy_": copy_,
    "aten::_to_copy": _to_copy,
    "aten::resize_": resize_,
    "aten::set_.source_Storage_storage_offset": set_storage,
    "aten::record_stream": record_stream,
    "aten::convolution": _run_whole(torch.ops.aten.convolution.default),
    "aten::convolution_backward": _run_whole(torch.ops.aten.convolution_backward.default),
}
"""Operators that are more than the CPU's kernel."""
