"""What FDAT moves and launches on a GPU, counted without one; for docs/fdat-gpu.md.

    python -m benchmarks.traffic [--presets tiny medium large] [--size 1024] [--page docs/fdat-gpu.md]

The plain network and the engine run on the meta device, under a mode that sees every operator.
A map is H x W x C in the run's precision; an operator moves its inputs and its outputs once, views
move nothing, attention by PyTorch is one kernel, and a fused operator of ours also moves its halo
and its parts of sums (arch/fdat/gpu/costs.py). "Plain PyTorch" is the engine where Triton is not to
be had.

The estimate of time is one of a roofline, not a measurement: every operator takes the longer of its
bytes at `REACHED_BYTES` of the card's published bandwidth and its operations at `REACHED_OPERATIONS`
of the published rate, and launches hide behind the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from fdat_dense_iso.cpu_torchvision import make_torchvision_importable

make_torchvision_importable()

from benchmarks.page import command, write_section  # noqa: E402
from fdat_dense_iso.arch.dense_iso.engine.run import InferenceDenseIsoViT  # noqa: E402
from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT  # noqa: E402
from fdat_dense_iso.arch.fdat.architecture import InferenceFDAT  # noqa: E402
from fdat_dense_iso.arch.fdat.config import PRESETS  # noqa: E402
from fdat_dense_iso.arch.fdat.engine import run as engine_run  # noqa: E402
from fdat_dense_iso.arch.fdat.engine import weights as engine_weights  # noqa: E402
from fdat_dense_iso.arch.fdat.engine.bounds import fitting  # noqa: E402
from fdat_dense_iso.arch.fdat.gpu import launch, twins  # noqa: E402
from fdat_dense_iso.arch.fdat.gpu.costs import cost_of  # noqa: E402
from fdat_dense_iso.arch.fdat.gpu.operators import NAMESPACE  # noqa: E402
from fdat_dense_iso.arch.fdat.gpu.sweeps import FusedSweeps  # noqa: E402

DEFAULT_BANDS = 4
"""Bands of a picture of 1 Mpx where memory is not known; where there is much, it is one band."""

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

FREE = {"empty", "new_empty", "empty_like", "empty_strided", "_unsafe_view", "detach", "lift_fresh"}
"""Operators that neither read nor write, beside views."""

UNREAD = {"copy_", "fill_", "zero_"}
"""Operators in place that do not read what they overwrite."""

CARDS = {  # bytes per second; operations per second in float32, float16 (sums in float32), TF32
    "RTX 3060": (0.360e12, 12.7e12, 25.6e12, 12.8e12),
    "RTX 4090": (1.008e12, 82.6e12, 165e12, 82.6e12),
    "H100 SXM": (3.35e12, 67e12, 990e12, 495e12),
    "H200": (4.8e12, 67e12, 990e12, 495e12),
}
REACHED_BYTES, REACHED_OPERATIONS = 0.8, 0.5


def touched(tensor: Tensor) -> int:
    """Bytes of the values of a tensor, repeated ones once."""
    values = 1
    for size, stride in zip(tensor.shape, tensor.stride()):
        values *= size if stride else min(size, 1)
    return values * tensor.element_size()


@dataclass
class Counted:
    """Bytes moved, kernels launched, and (bytes, operations) of every one of them."""

    bytes: float = 0
    launches: int = 0
    kernels: list[tuple[float, float]] = field(default_factory=list)

    def add(self, moved: float, operations: float, launches: int = 1) -> None:
        """Count one operator."""
        self.bytes += moved
        self.launches += launches
        self.kernels.append((moved, operations))

    def seconds(self, card: str, dtype: torch.dtype, tf32x3: bool) -> float:
        """The estimate, see above."""
        bandwidth, single, half, tf32 = CARDS[card]
        rate = half if dtype != torch.float32 else max(single, tf32 / 3) if tf32x3 else single
        return sum(
            max(moved / (bandwidth * REACHED_BYTES), done / (rate * REACHED_OPERATIONS))
            for moved, done in self.kernels
        )


class Traffic(TorchDispatchMode):
    """Counts what runs inside, in all and by the parts that `part` marks.

    Args:
        fused: whether our operators are kernels; else their twins are counted.
    """

    def __init__(self, fused: bool = True) -> None:
        super().__init__()
        self.fused = fused
        self.parts: dict[str, Counted] = {"all": Counted()}
        self.current = ["all"]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs inside is also counted under this name."""
        self.parts.setdefault(name, Counted())
        self.current.append(name)
        yield
        self.current.pop()

    def add(self, moved: float, operations: float, launches: int = 1) -> None:
        """Count one operator in every part that is open."""
        for name in self.current:
            self.parts[name].add(moved, operations, launches)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        ours = func.namespace == NAMESPACE
        if ours and not self.fused:
            with self:
                return getattr(twins, name)(*args)
        if name == "scaled_dot_product_attention":
            return self._attention(*args, **kwargs)
        with self:  # under inference mode operators come whole that are made of others
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        result = func(*args, **kwargs)
        if not (func.is_view or name in FREE):
            moved = self._moved(func, args, kwargs, result)
            if ours:
                cost = cost_of(name, *args)
                self.add(moved + cost.bytes, cost.operations, cost.launches)
            else:
                count = flop_registry.get(func.overloadpacket)
                done = count(*args, **kwargs, out_val=result) if count else 0
                self.add(moved, done)
        return result

    def _attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        *_: object,
        **__: object,
    ) -> Tensor:
        """One kernel, as it is on a GPU, where it is several on meta; the heads lie side by side."""
        read = (q, k, v) if attn_mask is None else (q, k, v, attn_mask)
        self.add(sum(map(touched, read)) + touched(q), 4 * q.numel() * k.shape[-2])
        return q.new_empty(q.transpose(1, 2).shape).transpose(1, 2)

    @staticmethod
    def _moved(func: Any, args: tuple, kwargs: dict, result: object) -> int:
        """Bytes of inputs and outputs."""
        name, written, read = func.overloadpacket.__name__, 0, 0
        given = dict(zip((a.name for a in func._schema.arguments), args)) | kwargs
        for argument in func._schema.arguments:
            tensors = [t for t in tree_leaves(given.get(argument.name)) if isinstance(t, Tensor)]
            size = sum(map(touched, tensors))
            if argument.alias_info is not None and argument.alias_info.is_write:
                written += size
                read += size if name.endswith("_") and name not in UNREAD else 0
            else:
                read += size
        if not written:
            written = sum(touched(t) for t in tree_leaves(result) if isinstance(t, Tensor))
        return read + written


def build(preset: str, dtype: torch.dtype) -> InferenceFDAT:
    """A preset on the meta device, with its own upsampler (x4)."""
    with torch.device("meta"):
        model = InferenceFDAT(PRESETS[preset])
    return model.to(dtype).eval()


@torch.inference_mode()
def count_plain(preset: str, dtype: torch.dtype, size: int) -> Traffic:
    """The plain network on a picture of ``size`` x ``size``; the part "blocks" are its blocks."""
    model, traffic = build(preset, dtype), Traffic()
    opened: list[Any] = []

    def begin(*_: object) -> None:
        opened.append(traffic.part("blocks"))
        opened[-1].__enter__()

    def end(*_: object) -> None:
        opened.pop().__exit__(None, None, None)

    for group in model.groups:
        for block in group.blocks:
            block.register_forward_pre_hook(begin)
            block.register_forward_hook(end)
    image = torch.empty(1, 3, size, size, dtype=dtype, device="meta")
    with traffic:
        model(image)
    return traffic


@torch.inference_mode()
def count_engine(
    preset: str, dtype: torch.dtype, size: int, fused: bool, bands: int = DEFAULT_BANDS
) -> Traffic:
    """The engine in so many bands; its parts are "blocks" and "fold" (their small matrices)."""
    model, traffic = build(preset, dtype), Traffic(fused)

    class Parts(FusedSweeps):
        def block(self, *arguments: Any) -> None:
            with traffic.part("blocks"):
                super().block(*arguments)

        def fold(self, statistic: Any) -> Any:
            with traffic.part("fold"):
                return statistic.result()

    plan = model.exact_engine.plan(1, size, size, dtype=dtype, device="meta", band=size // bands)
    assert plan.bands == bands
    image = torch.empty(1, 3, size, size, device="meta")
    torch.manual_seed(0)
    fits = fitting(InferenceFDAT(model.config))  # with weights as they are at first
    with mock.patch.object(engine_weights, "fitting", lambda _: fits):
        engine_run.packed_weights(model, dtype, torch.device("meta"), True)
    with (
        mock.patch.object(engine_run, "FusedSweeps", Parts),
        mock.patch.object(launch, "is_possible", lambda *_: fused),  # parts of sums, one without
        traffic,
    ):
        model.exact_engine.run(image, plan, lambda top, rows: None)
    return traffic


def table(presets: list[str], size: int) -> tuple[list[str], list[str]]:
    """The lines of the table of traffic, and of that of estimates."""
    lines = [
        "| preset | precision | way | bands | maps per block | launches per block and band "
        "| with its matrices | maps, whole picture | launches, whole picture "
        "| the same per block and band |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    estimates = [
        "| preset | precision | way | " + " | ".join(f"{card}, ms" for card in CARDS) + " |",
        "| --- | --- | --- |" + " ---: |" * len(CARDS),
    ]
    for preset in presets:
        config = PRESETS[preset]
        blocks = config.num_groups * len(config.blocks_per_group)
        for name, dtype in DTYPES.items():
            one = size * size * config.embed_dim * dtype.itemsize
            ways = [("plain network", 1, count_plain(preset, dtype, size))]
            for way, bands in (
                ("engine, plain PyTorch", DEFAULT_BANDS),
                ("engine, kernels", DEFAULT_BANDS),
                ("engine, kernels", 1),
            ):
                fused = way == "engine, kernels"
                ways.append((way, bands, count_engine(preset, dtype, size, fused, bands)))
            for way, bands, traffic in ways:
                whole, inner = traffic.parts["all"], traffic.parts["blocks"]
                fold = traffic.parts.get("fold", Counted())
                each = blocks * bands
                lines.append(
                    f"| {preset} | {name} | {way} | {bands} "
                    f"| {(inner.bytes + fold.bytes) / one / blocks:.1f} "
                    f"| {inner.launches / each:.1f} | {(inner.launches + fold.launches) / each:.1f} "
                    f"| {whole.bytes / one:.0f} | {whole.launches} | {whole.launches / each:.1f} |"
                )
                if bands == 1 and way != "plain network":
                    continue  # the estimate is for the bands by default
                times = (
                    1000 * whole.seconds(card, dtype, way == "engine, kernels") for card in CARDS
                )
                estimates.append(
                    f"| {preset} | {name} | {way} | " + " | ".join(f"{t:.0f}" for t in times) + " |"
                )
    return lines, estimates


@torch.inference_mode()
def dense_iso_table() -> list[str]:
    """The lines of the table of Dense-Iso-ViT (default configuration, linear head)."""
    lines = [
        "| precision | network | MiB per window | launches for 16 windows | GFLOP per window |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for precision, dtype in DTYPES.items():
        for kind in (DenseIsoViT, InferenceDenseIsoViT):
            with torch.device("meta"):
                network = kind()
                windows = torch.empty(16, 3, network.config.window, network.config.window)
            network.to(dtype).eval()
            windows = windows.to(dtype)
            network(windows)  # folds the head, which is not counted
            with Traffic() as traffic:
                network(windows)
            counted = traffic.parts["all"]
            operations = sum(done for _, done in counted.kernels) / 16
            name = "plain" if kind is DenseIsoViT else "engine"
            lines.append(
                f"| {precision} | {name} | {counted.bytes / 16 / 2**20:.0f} "
                f"| {counted.launches} | {operations / 1e9:.1f} |"
            )
    return lines


def main(
    presets: Annotated[list[str], typer.Option(help="Presets to count.")] = [  # noqa: B006
        "tiny",
        "light",
        "medium",
        "large",
    ],
    size: Annotated[int, typer.Option(help="Side of the picture, in pixels.")] = 1024,
    page: Annotated[Path | None, typer.Option(help="Page to write the tables to.")] = None,
) -> None:
    """Count, and print or write the tables."""
    lines, estimates = table(presets, size)
    windows = dense_iso_table()
    print("\n".join([*lines, "", *estimates, "", *windows]))
    if page is not None:
        said = f"`{command('benchmarks.traffic')}`"
        write_section(page, "traffic", "\n".join([said, "", *lines]))
        write_section(page, "windows", "\n".join([said, "", *windows]))
        write_section(page, "estimate", "\n".join([said, "", *estimates]))


if __name__ == "__main__":
    typer.run(main)
