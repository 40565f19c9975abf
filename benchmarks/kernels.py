"""Compiles FDAT's kernels ahead of time, for chips that need not be there; for docs/fdat-gpu.md.

    python -m benchmarks.kernels [--presets tiny medium large] [--chips 75 80 gfx90a] [--page docs/fdat-gpu.md]

It needs triton, whose wheel brings the tools that say what a compiled kernel uses: shared memory,
registers, and bytes of the stack, which is where values go that no register is left for.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from torch import Tensor

from fdat_dense_iso.cpu_torchvision import make_torchvision_importable

make_torchvision_importable()

from benchmarks.page import command, write_section  # noqa: E402
from fdat_dense_iso.arch.fdat.config import PRESETS, FDATConfig  # noqa: E402
from fdat_dense_iso.arch.fdat.engine.weights import HEAD_MULTIPLE  # noqa: E402
from fdat_dense_iso.arch.fdat.gpu import candidates, launch  # noqa: E402
from fdat_dense_iso.arch.fdat.gpu.choice import FORMS  # noqa: E402

KIB = 2**10
SHARED = {  # bytes of shared memory that a program may have
    **{"75": 64 * KIB, "80": 163 * KIB, "86": 99 * KIB, "89": 99 * KIB, "90": 227 * KIB},
    **{"120": 99 * KIB, "gfx90a": 64 * KIB, "gfx1100": 64 * KIB},
}
DTYPES = {torch.float16: "fp16", torch.float32: "fp32", torch.bfloat16: "bf16"}
OPERATORS = tuple(FORMS)


@dataclass(frozen=True)
class Compiled:
    """What a compiled kernel uses; ``stack`` are the bytes of spilled registers per thread."""

    shared: int
    registers: int
    stack: int


def arguments_of(name: str, config: FDATConfig, dtype: torch.dtype) -> tuple[Any, ...]:
    """Arguments of an operator, as the engine passes them, for a band of 16 rows; on meta."""
    dim, heads, hidden, window = (
        config.embed_dim,
        config.num_heads,
        config.ffn_dim,
        config.window_size,
    )

    def new(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    single = torch.float32
    # in bfloat16 the weights of a block are in float16, and what is halfway through it in float32
    bf16 = dtype == torch.bfloat16
    inner, halfway = (torch.float16, single) if bf16 else (dtype, dtype)
    x, place = new(18, 32, dim), (1, 1)
    norm = new(dim, dtype=single), new(dim, dtype=single), 1e-5
    padded = -(-dim // heads // HEAD_MULTIPLE) * HEAD_MULTIPLE * heads
    depthwise, bias = new(dim, 1, 3, 3, dtype=inner), new(dim, dtype=inner)

    def folded(*shape: int) -> Tensor:
        return new(*shape, dtype=single)

    square = folded(dim, dim)
    if name == "window_half":
        qkv, logits = new(3 * padded, dim, dtype=inner), new(heads, window**2, window**2)
        back = new(dim, padded, dtype=inner), bias
        attention = qkv, logits.to(inner), *back, window, 0.2
        return x, new(16, 32, dim, dtype=halfway), *place, *norm, depthwise, *attention
    if name == "channel_half":
        maps = new(dim, dim, dtype=inner), bias, new(1, dim, dtype=inner), new(1, dtype=inner)
        return x, new(16, 32, dim, dtype=halfway), *place, *norm, depthwise, *maps
    if name == "feed_forward":
        weights = new(hidden, dim), new(hidden, 1, 3, 3), new(dim, hidden)
        y, weights = x.to(halfway), (weight.to(inner) for weight in weights)
        return y, new(16, 32, dim), *place, *norm, *weights
    if name == "gate_sum":
        return x, folded(9, dim), False, *place, *norm, depthwise
    if name == "gram":
        return x, folded(9, dim + 1, dim), folded(dim), False, *norm
    if name == "fold_gate":
        reduced = dim // config.aim_reduction_ratio
        weights = folded(reduced, dim), folded(dim, reduced), folded(dim, padded), folded(dim)
        return folded(9, dim), 4096, *weights, inner
    if name == "fold_channel":
        weights = square, square, square, folded(heads, 1, 1), folded(dim + 1, dim)
        return folded(9, dim + 1, dim), folded(dim), 4096, *weights, inner
    if name == "convolve":
        dense = single if bf16 else dtype
        weight = new(dim, dim, 3, 3, dtype=dense), new(dim, dtype=dense)
        return x, new(16, 32, dim), *place, *weight, new(16, 32, dim), 1, 1.0, 1
    return x, 1, 1, new(dim, dim, 4, 4), new(4 * dim, 4 * dim), new(dim), True


def compile_for(chip: str, way: candidates.Way, arguments: tuple[Any, ...]) -> Compiled:
    """Compile a kernel as it would be launched for these arguments; of several the greatest use."""
    calls: list[tuple] = []
    with mock.patch.object(launch, "_launch", lambda *a, **o: calls.append((a, o))):
        way(*arguments)
    made = [_compile(chip, *given, **options) for given, options in calls]
    return Compiled(*(max(values) for values in zip(*map(astuple, made))))


def _compile(chip: str, kernel: Any, grid: object, *given: Any, **options: Any) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    settings = {name: options.pop(name) for name in ("num_warps", "num_stages")}
    signature, aligned = dict.fromkeys(options, "constexpr"), {}
    for index, (name, value) in enumerate(zip(kernel.arg_names, given)):
        if isinstance(value, Tensor):
            signature[name] = "*" + DTYPES[value.dtype]
            aligned[index,] = [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
    amd = chip.startswith("gfx")
    target = (
        GPUTarget("hip", chip, 64 if chip.startswith("gfx9") else 32)
        if amd
        else GPUTarget("cuda", int(chip), 32)
    )
    signature = {name: signature[name] for name in kernel.arg_names}  # Triton 3.3 asks for order
    source = ASTSource(kernel, signature, options, aligned)
    made = triton.compile(source, target=target, options={**settings, "enable_fp_fusion": True})
    used = _amd_usage(made.asm["amdgcn"]) if amd else _nvidia_usage(made.asm["cubin"])
    return Compiled(made.metadata.shared, *used)


def _nvidia_usage(cubin: bytes) -> tuple[int, int]:
    from triton.backends import nvidia

    tool = Path(nvidia.__file__ or nvidia.__path__[0])
    tool = (tool if tool.is_dir() else tool.parent) / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        told = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", told)
    assert found, f"cuobjdump said: {told[:200]}"
    return int(found[1]), int(found[2])


def _amd_usage(assembly: str) -> tuple[int, int]:
    registers, stack = (
        re.search(rf"\.{name}:\s*(\d+)", assembly)
        for name in ("vgpr_count", "private_segment_fixed_size")
    )
    assert registers and stack, "the assembly ends with what the kernel uses"
    return int(registers[1]), int(stack[1])


def compiled_ways(
    name: str, config: FDATConfig, dtype: torch.dtype, chip: str
) -> Iterator[Compiled | str]:
    """Every way of an operator's kernel, or why it does not compile, in the order of preference."""
    arguments = arguments_of(name, config, dtype)
    with mock.patch.object(candidates, "is_old", lambda device: chip == "75"):
        ways = candidates.ways_of(name, *arguments)
    for way in ways:
        try:
            yield compile_for(chip, way, arguments)
        except Exception as error:
            yield type(error).__name__


def cell(ways: list[Compiled | str], chip: str) -> str:
    """How a table shows the ways of a kernel on a chip; those that do not fit in brackets."""
    parts = []
    for way in ways:
        if isinstance(way, str):
            parts.append("-")
            continue
        text = f"{way.shared // KIB}K {way.registers}" + (f" +{way.stack}" if way.stack else "")
        parts.append(text if way.shared <= SHARED[chip] else f"({text})")
    return ", ".join(parts)


def least_spilled(ways: list[Compiled | str], chip: str) -> int | None:
    """Bytes per thread of the way that spills least among those that run; None if none does."""
    stacks = [w.stack for w in ways if isinstance(w, Compiled) and w.shared <= SHARED[chip]]
    return min(stacks, default=None)


def main(
    presets: Annotated[list[str], typer.Option(help="Presets.")] = ["tiny", "medium", "large"],  # noqa: B006
    chips: Annotated[list[str], typer.Option(help="Chips: 75 is sm_75.")] = list(SHARED),  # noqa: B006
    page: Annotated[Path | None, typer.Option(help="Page to write the table to.")] = None,
) -> None:
    """Compile everything, and print or write the tables: all ways, and where the best one spills."""
    titles = [chip if chip.startswith("gfx") else f"sm_{chip}" for chip in chips]
    heads = " | ".join(titles)
    lines = [
        f"| kernel | preset | precision | {heads} |",
        "| --- | --- | --- |" + " --- |" * len(chips),
    ]
    spills = ["| kernel | preset | precision | bytes per thread |", "| --- | --- | --- | --- |"]
    for name in OPERATORS:
        for preset in presets:
            for dtype in DTYPES:
                config = PRESETS[preset]
                ways = {chip: list(compiled_ways(name, config, dtype, chip)) for chip in chips}
                cells = [cell(found, chip) for chip, found in ways.items()]
                case = f"| {name} | {preset} | {DTYPES[dtype]} |"
                lines.append(f"{case} {' | '.join(cells)} |")
                print(lines[-1], flush=True)
                least = [least_spilled(found, chip) for chip, found in ways.items()]
                told = [f"{title} {bytes_}" for title, bytes_ in zip(titles, least) if bytes_ != 0]
                if told:
                    spills.append(f"{case} {', '.join(told)} |")
    print("\n".join(spills))
    if page is not None:
        for section, rows in (("kernels", lines), ("spills", spills)):
            text = "\n".join([f"`{command('benchmarks.kernels')}`", "", *rows])
            write_section(page, section, text)


if __name__ == "__main__":
    typer.run(main)
