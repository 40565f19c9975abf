"""Dense-Iso-ViT: speed of `upscale_image` against the plain network in windows; a training check.

    python -m benchmarks.dense_iso speed --threads 2
    python -m benchmarks.dense_iso train PICTURES

Both print a table; ``--json FILE`` also writes the figures. Speed is a ratio of wall-clock times in
one process, runs interleaved, median reported: run it on an otherwise idle machine.
"""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from fdat_dense_iso.cpu_torchvision import make_torchvision_importable

make_torchvision_importable()

from benchmarks.measure import spread, write_figures  # noqa: E402
from benchmarks.overfit import narrow_network, overfit, read_patches  # noqa: E402
from fdat_dense_iso.arch import load_model  # noqa: E402
from fdat_dense_iso.arch.dense_iso.config import DenseIsoViTConfig, HeadLayer, pixel_shuffle_head  # noqa: E402
from fdat_dense_iso.arch.dense_iso.engine.run import InferenceDenseIsoViT  # noqa: E402
from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT  # noqa: E402
from fdat_dense_iso.arch.dense_iso.reading.options import activations  # noqa: E402
from fdat_dense_iso.arch.windowed.network import WindowedUpscaler  # noqa: E402
from fdat_dense_iso.upscale import upscale_image  # noqa: E402
from fdat_dense_iso.upscale.precision import cast_copy  # noqa: E402

app = typer.Typer(add_completion=False, help=__doc__)
console = Console(width=140)
HEADS = {  # name: activation, place
    "linear head": ("none", "all"),
    "activations between stages": ("gelu", "between"),
    "activations everywhere": ("gelu", "all"),
}
JsonOption = Annotated[
    Path | None, typer.Option("--json", help="Also write the figures to this file.")
]


@app.command()
def speed(
    size: Annotated[int, typer.Option(help="Side of the image, in pixels.")] = 160,
    runs: Annotated[int, typer.Option(help="Runs of each, interleaved.")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Also measure the engine in this type.")] = "bfloat16",
    only: Annotated[str | None, typer.Option(help=f"One kind of head: {', '.join(HEADS)}.")] = None,
    output: JsonOption = None,
) -> None:
    """Time the default configuration with three kinds of head."""
    if only is not None and only not in HEADS:
        raise typer.BadParameter(f"--only is one of {', '.join(HEADS)}, not {only!r}")
    torch.set_num_threads(threads)
    half = getattr(torch, dtype)
    limits = {kind: matrix_rate(device, kind) for kind in (torch.float32, half)}
    console.print(about_default())
    figures_of = (
        "plain",
        "engine",
        "ratio",
        dtype,
        "to engine",
        "dB",
        "GFLOP/s",
        "of limit",
        "error",
        "Mpx/s",
    )
    table = Table("head", *figures_of)
    rows = []
    for name, (activation, place) in HEADS.items():
        if only not in (None, name):
            continue
        row = {"head": name, **measure(activation, place, size, runs, device, half)}
        row["share_of_limit"] = row["engine_gflops"] / limits[torch.float32]
        rows.append(row)
        console.print(
            f"{name}: plain {row['plain']:.2f} s, engine {row['engine']:.2f} s, {dtype} {row['half']:.2f} s"
        )
        table.add_row(
            name, f"{row['plain']:.2f} s", f"{row['engine']:.2f} s", f"{row['plain'] / row['engine']:.2f}x",
            f"{row['half']:.2f} s", f"{row['engine'] / row['half']:.2f}x", f"{row['half_psnr']:.1f}",
            f"{row['engine_gflops']:.0f}", f"{row['share_of_limit']:.0%}", f"{row['error']:.1e}",
            f"{row['output_mpx_per_second']:.3f}",
        )  # fmt: skip
    machine = torch.cuda.get_device_name() if device != "cpu" else platform.machine()
    console.print(
        f"{size}x{size} pixels, {threads} threads, {machine}, torch {torch.__version__}, wall clock"
    )
    console.print(
        ", ".join(f"matrix products in {kind}: {rate:.0f} GFLOP/s" for kind, rate in limits.items())
    )
    console.print(table)
    figures = {
        "what": "speed",
        "size": size,
        "threads": threads,
        "device": device,
        "half": dtype,
        "rows": rows,
    }
    write_figures(output, "benchmarks.dense_iso", figures)


def about_default() -> str:
    """Text: parameters of the default configuration, and the work that folding its head saves."""
    plain, engine = DenseIsoViT().eval(), InferenceDenseIsoViT().eval()
    window = torch.rand(1, 3, plain.config.window, plain.config.window)
    with torch.inference_mode():
        engine(window)  # composes the head, which is not counted
        head = [
            counted(lambda m=m: m(window)) - counted(lambda m=m: m.features(window))
            for m in (plain, engine)
        ]
    parameters = sum(parameter.numel() for parameter in plain.parameters())
    return (
        f"default configuration: {parameters:,} parameters; its head in a window: plain "
        f"{head[0] / 1e9:.1f} GFLOP, folded {head[1] / 1e9:.1f} GFLOP, {head[0] / head[1]:.1f} times fewer"
    )


def counted(work: Callable[[], object]) -> int:
    """Operations of ``work``. oneDNN is turned off, because torch counts public operators only."""
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def measure(
    activation: str, place: str, size: int, runs: int, device: str, half: torch.dtype
) -> dict[str, Any]:
    """Median seconds of the plain network in its windows and of `upscale_image`, on one image.

    The latter with the same weights, in float32 and in ``half``.
    """
    torch.manual_seed(0)
    config = DenseIsoViTConfig(head=_with_activation(activation, place))
    network = DenseIsoViT(config).eval()
    with torch.no_grad():
        # weights as large as a trained network's, so that errors are meaningful
        for parameter in network.head.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 400
            parameter.copy_(torch.randn_like(parameter) / math.sqrt(fan))
    plain = WindowedUpscaler(network, window=config.window, scale=config.scale).to(device)
    model = load_model(network.state_dict())
    image = torch.rand(1, 3, size, size, device=device)
    picture = image.permute(0, 2, 3, 1)  # (B, H, W, C), as users have it
    precision = {torch.bfloat16: "bf16", torch.float16: "fp16"}[half]
    work = {
        "plain": lambda: plain(image),
        "engine": lambda: upscale_image(model, picture, device=device, precision="fp32"),
        "half": lambda: upscale_image(model, picture, device=device, precision=precision),
    }
    with torch.inference_mode():
        lower = cast_copy(model, half)
        model.to(device), lower.to(device)
        precise = model.model(image)
        error = float((precise - plain(image)).abs().max())
        half_error = float((lower.model(image.to(half)).float() - precise).square().mean())
        operations = counted(lambda: model.model(image))
        del lower
        times: dict[str, list[float]] = {name: [] for name in work}
        for name in work:  # a first run, because what is made from the weights once is not timed
            work[name]()
        for _ in range(runs):
            for name in work:
                times[name].append(_seconds(work[name], device))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        **medians,
        "spread": {name: spread(values) for name, values in times.items()},
        "error": error,
        "half_psnr": -10 * math.log10(half_error),
        "engine_gflops": operations / medians["engine"] / 1e9,
        "output_mpx_per_second": (size * config.scale) ** 2
        / 1e6
        / min(medians["engine"], medians["half"]),
    }


def matrix_rate(device: str, dtype: torch.dtype, side: int = 2048) -> float:
    """GFLOP/s of a large square matrix product: the machine's practical limit."""
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    times = [_seconds(lambda: F.linear(a, b), device) for _ in range(6)]
    return 2 * side**3 / min(times[1:]) / 1e9


def _seconds(work: Callable[[], object], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _with_activation(name: str, place: str) -> tuple[HeadLayer, ...]:
    head = pixel_shuffle_head()
    return tuple(
        replace(layer, activation=each)
        for layer, each in zip(head, activations(head, (name,), place))
    )


@app.command()
def train(
    pictures: Annotated[
        Path, typer.Argument(help="Pictures of at least 256 x 256 pixels: a folder, or one.")
    ],
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 400,
    width: Annotated[
        float, typer.Option(help="Share of the published widths; 1 needs a GPU or patience.")
    ] = 0.25,
    fusion: Annotated[
        int,
        typer.Option(help="Channels of the fusion: what a linear head can learn; published: 192."),
    ] = 384,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    output: JsonOption = None,
) -> None:
    """Learn eight 64x64 patches by heart; check that gradients reach and move every parameter."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    try:
        target = read_patches(pictures)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    network = narrow_network(width, fusion)
    show = "step {step:4d}  MSE {mse:.2e}  PSNR {psnr:.2f} dB"
    result = overfit(network, target, steps, lambda point: console.print(show.format(**point)))
    console.print(
        f"PSNR {result.psnr:.2f} dB after {steps} steps, {result.cpu_seconds:.0f} s of CPU time; bilinear "
        f"{result.bilinear:.2f}, bicubic {result.bicubic:.2f} dB"
    )
    console.print(f"mean squared error: fell by a factor of {result.factor:.1f}")
    limits = ", ".join(f"{channels}: {limit:.2f} dB" for channels, limit in result.limits.items())
    console.print(
        f"limit of a linear head by channels of the fusion (cells on their own): {limits}"
    )
    reached = f"{result.reached:,} of {result.parameters:,}"
    console.print(f"numbers that a gradient reached: {reached}; of the parameters that hold them,")
    for what, names in (
        ("without a gradient", result.without_gradient),
        ("with one that was not finite", result.not_finite),
        ("that never moved", result.not_moved),
    ):
        console.print(f"  {what}: {', '.join(names) or 'none'}")
    write_figures(output, "benchmarks.dense_iso", {"what": "train", **asdict(result)})
    if result.without_gradient or result.not_finite or result.not_moved:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
