"""FDAT on a GPU: correctness first, then the engine against eager PyTorch; for docs/fdat-gpu.md.

    python -m benchmarks.gpu --page docs/fdat-gpu.md

Compared are the plain network (that of spandrel's FDAT, as this project writes it) in float32, and
in float16 with channels-last memory, and the exact engine in both, each alone and through
``upscale_image``, from a picture in main memory to a picture in main memory. Times are medians of
runs that alternate, by the clock of the host with the device waited for.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from fdat_dense_iso.cpu_torchvision import make_torchvision_importable

make_torchvision_importable()

from benchmarks.fdat.contestants import strong_gates  # noqa: E402
from benchmarks.measure import machine  # noqa: E402
from benchmarks.page import command, write_section  # noqa: E402
from fdat_dense_iso.arch.fdat.architecture import FDATArch, InferenceFDAT  # noqa: E402
from fdat_dense_iso.arch.fdat.config import PRESETS  # noqa: E402
from fdat_dense_iso.upscale import upscale_image  # noqa: E402
from fdat_dense_iso.upscale.placement import checked_device  # noqa: E402

LEAST = {torch.float32: 90.0, torch.float16: 60.0, torch.bfloat16: 50.0}
"""Decibels against the plain network in float32 below which nothing is timed."""


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def run_engine(model: InferenceFDAT, image: Tensor, dtype: torch.dtype) -> Tensor:
    """The engine's output on the image's device."""
    plan = model.exact_engine.plan(1, *image.shape[2:], dtype=dtype, device=image.device)
    parts: list[Tensor] = []
    model.exact_engine.run(image, plan, lambda top, rows: parts.append(rows))
    return torch.cat(parts, 2)


def decibels(got: Tensor, expected: Tensor) -> float:
    """PSNR over the span of the expected values."""
    span = expected.max() - expected.min()
    return float(20 * span.log10() - 10 * (got.float() - expected).square().mean().log10())


def check(model: InferenceFDAT, plain: Callable[[Tensor], Tensor], image: Tensor) -> list[str]:
    """Compare the engine with the plain network in every precision.

    Raises:
        SystemExit: a result is worse than rounding.
    """
    expected, said = plain(image), []
    for dtype, least in LEAST.items():
        found = decibels(run_engine(model, image, dtype), expected)
        said.append(f"{str(dtype).removeprefix('torch.')} {found:.1f} dB")
        if found < least:
            raise SystemExit(f"{said[-1]}, at least {least} expected: nothing is timed")
    return said


def milliseconds(ways: dict[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Medians of five runs of each, alternating, after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for attempt in range(6):
        for name, way in ways.items():
            synchronise(device)
            start = time.perf_counter()
            way()
            synchronise(device)
            if attempt:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


@torch.inference_mode()
def measure(preset: str, sizes: list[int], device: torch.device) -> list[str]:
    """The lines of the table for one preset."""
    model = strong_gates(PRESETS[preset])
    descriptor = FDATArch().load(model.state_dict())
    descriptor.model.eval().to(device)
    network = strong_gates(PRESETS[preset]).to(device)
    half = strong_gates(PRESETS[preset]).to(
        device, torch.float16, memory_format=torch.channels_last
    )
    rows = []
    for size in sizes:
        picture = torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(0))
        image = picture.permute(0, 3, 1, 2).contiguous().to(device)
        said = check(model, network, image) if size == sizes[0] else []
        packed = image.half().contiguous(memory_format=torch.channels_last)
        ways: dict[str, Callable[[], object]] = {
            "eager fp32": lambda x=image: network(x),
            "eager fp16": lambda x=packed: half(x),
            "engine fp32": lambda x=image: run_engine(model, x, torch.float32),
            "engine fp16": lambda x=image: run_engine(model, x, torch.float16),
        }
        for precision in ("fp32", "fp16"):
            ways[f"end to end {precision}"] = lambda x=picture, p=precision: upscale_image(
                descriptor, x, mode="exact", precision=p, device=device
            )
        try:
            found = milliseconds(ways, device)
        except torch.OutOfMemoryError:
            rows.append(f"| {preset} | {size} | out of memory |" + " |" * 6)
            continue
        cells = " | ".join(f"{found[name]:.1f}" for name in ways)
        rows.append(f"| {preset} | {size} | {cells} | {', '.join(said)} |")
        print(rows[-1], flush=True)
    return rows


def main(
    presets: Annotated[list[str], typer.Option(help="Presets.")] = ["tiny", "medium", "large"],  # noqa: B006
    sizes: Annotated[list[int], typer.Option(help="Sides of the pictures.")] = [512, 1024, 2048],  # noqa: B006
    device: Annotated[str, typer.Option(help="Device; ROCm's is cuda, too.")] = "cuda",
    page: Annotated[Path | None, typer.Option(help="Page to write the table to.")] = None,
) -> None:
    """Check, time, and print or write the table."""
    try:
        chosen = checked_device(device)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from error
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("fdat_dense_iso.arch.fdat.gpu").setLevel(logging.DEBUG)  # what was chosen
    lines = [
        "| preset | size | eager fp32, ms | eager fp16 channels last | engine fp32 | engine fp16 "
        "| end to end fp32 | end to end fp16 | against float32 |",
        "| --- | ---: |" + " ---: |" * 6 + " --- |",
    ]
    for preset in presets:
        lines += measure(preset, sizes, chosen)
    if page is not None:
        text = [f"`{command('benchmarks.gpu')}` on {machine()}.", "", *lines]
        write_section(page, "measured", "\n".join(text))


if __name__ == "__main__":
    typer.run(main)
