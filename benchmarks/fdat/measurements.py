"""The measurements: speed, exactness, memory, growth; parameters of presets."""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.fdat.contestants import (
    engine_flops,
    engine_run,
    product_rate,
    reference_of,
    strong_gates,
    tiled,
)
from benchmarks.measure import (
    MIB,
    UNPRINTED,
    interleaved,
    interleaved_beside,
    peak_above_base,
    spread,
)
from fdat_dense_iso.arch.fdat.architecture import InferenceFDAT
from fdat_dense_iso.arch.fdat.config import PRESETS
from fdat_dense_iso.arch.fdat.network import FDAT
from fdat_dense_iso.arch.fdat.upsampler import UPSAMPLER_TYPES

MANY_PIXELS = 10_000
"""Pixels from which on only the preset's own upsampler is compared, unless others are named,
because float64 is slow."""


def clock_of(arguments: argparse.Namespace) -> Callable[[], float]:
    """CPU time or wall-clock time, in seconds."""
    return time.process_time if arguments.cpu_time else time.perf_counter


def cases(arguments: argparse.Namespace) -> list[tuple[str, tuple[int, int]]]:
    """Every preset on every size (height, width)."""
    return [(preset, size) for preset in arguments.presets for size in arguments.sizes]


def print_table(rows: list[dict], header: bool) -> None:
    """Print rows under their names, in columns as wide as the names."""
    least = {"upsampler": max(map(len, UPSAMPLER_TYPES))}
    widths = {
        key: max(len(key), least.get(key, 10))
        for row in rows
        for key in row
        if key not in UNPRINTED
    }
    if header:
        print("  ".join(f"{key:>{width}}" for key, width in widths.items()), flush=True)
    for row in rows:
        print(
            "  ".join(f"{row[key]!s:>{width}}" for key, width in widths.items() if key in row),
            flush=True,
        )


def speed_case(preset: str, height: int, width: int, arguments: argparse.Namespace) -> dict:
    """Times of all contestants on one size, ratios to the engine, its share of the matrix rate."""
    dtype = getattr(torch, arguments.dtype)
    model = strong_gates(PRESETS[preset])
    reference, image = reference_of(model), torch.rand(1, 3, height, width)
    contestants: dict[str, Callable[[], object]] = {
        "reference": lambda: reference(image),
        "engine": lambda: engine_run(model, image, torch.float32),
    }
    half = arguments.dtype if dtype != torch.float32 else None
    if half:
        contestants[half] = lambda: engine_run(model, image, dtype)
    if arguments.tiles:
        contestants["tiles"] = lambda: tiled(reference, image, model.config.scale)
    rounds = max(arguments.rounds, arguments.repeats)
    rate_now = product_rate(dtype, clock_of(arguments))
    of_all_rounds, rates = interleaved_beside(contestants, rounds, rate_now, clock_of(arguments))
    most_idle = sorted(range(rounds), key=lambda round_: rates[round_])[-arguments.repeats :]
    runs = {
        name: [values[round_] for round_ in most_idle] for name, values in of_all_rounds.items()
    }
    seconds = {name: statistics.median(values) for name, values in runs.items()}

    row: dict = {"preset": preset, "size": f"{height}x{width}"}
    row |= {f"{name} s": round(value, 3) for name, value in seconds.items()}
    row |= ratios(seconds, half)
    if rounds > arguments.repeats:
        medians = {name: statistics.median(values) for name, values in of_all_rounds.items()}
        row |= {
            f"{name}, all {rounds} rounds": value for name, value in ratios(medians, half).items()
        }
    row["spread"] = {name: spread(values) for name, values in runs.items()}
    row["rounds"] = of_all_rounds | {"matrix GFLOP/s": [round(rate / 1e9) for rate in rates]}
    reached = engine_flops(model, height, width) / seconds[half or "engine"]
    rate = statistics.median(rates[round_] for round_ in most_idle)
    return row | {
        "GFLOP/s": round(reached / 1e9, 1),
        "share of matrix rate": round(reached / rate, 3),
    }


def ratios(seconds: dict[str, float], half: str | None) -> dict[str, float]:
    """Ratios of every contestant's time to the engine's, and of that to half precision's."""
    engine = seconds["engine"]
    row = {
        f"{name}/engine": round(value / engine, 2)
        for name, value in seconds.items()
        if name not in ("engine", half)
    }
    return row | ({f"engine/{half}": round(engine / seconds[half], 2)} if half else {})


def speed(arguments: argparse.Namespace) -> list[dict]:
    """Seconds of spandrel's network and the engine, and of the other contestants if asked for."""
    rows = []
    for preset, (height, width) in cases(arguments):
        rows.append(speed_case(preset, height, width, arguments))
        print_table(rows[-1:], header=len(rows) == 1)
    return rows


def exactness(arguments: argparse.Namespace) -> list[dict]:
    """Largest difference from the network in float64, and PSNR of half precision to float32.

    Differences are in the output's units.
    """
    rows = []
    for preset, (height, width) in cases(arguments):
        usual = (
            [PRESETS[preset].upsampler_type] if height * width >= MANY_PIXELS else UPSAMPLER_TYPES
        )
        for upsampler in arguments.upsamplers or usual:
            row = {"preset": preset, "upsampler": upsampler, "size": f"{height}x{width}"}
            rows.append(row | exactness_case(preset, upsampler, height, width))
            print_table(rows[-1:], header=len(rows) == 1)
    return rows


def exactness_case(preset: str, upsampler: str, height: int, width: int) -> dict:
    """The row of `exactness` for one preset with one upsampler on one size."""
    scale = 1 if upsampler == "conv" else PRESETS[preset].scale
    model = strong_gates(replace(PRESETS[preset], upsampler_type=upsampler, scale=scale)).double()
    image = torch.rand(
        1, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    expected = model(image)
    row: dict = {"largest output": round(expected.abs().max().item(), 2)}
    row["float64"] = (
        f"{(engine_run(model, image, torch.float64) - expected).abs().max().item():.1e}"
    )
    single = engine_run(model.float(), image.float(), torch.float32)
    row["float32"] = f"{(single - expected).abs().max().item():.1e}"
    span = expected.max() - expected.min()
    for dtype in (torch.bfloat16, torch.float16):
        error = (engine_run(model, image.float(), dtype) - single).pow(2).mean()
        row[str(dtype).removeprefix("torch.") + " dB"] = round(
            (20 * span.log10() - 10 * error.log10()).item(), 1
        )
    return row


def memory_case(preset: str, height: int, width: int, threads: int, options: dict) -> dict:
    """One measurement; runs in a process of its own.

    The peak is above what the model, the image and a first small run have taken.
    """
    torch.set_num_threads(threads)
    dtype = getattr(torch, options["dtype"])
    model = strong_gates(replace(PRESETS[preset], scale=options["scale"]))
    scale, image = model.config.scale, torch.rand(1, 3, height, width)
    contestant = {
        "engine": lambda picture: engine_run(
            model, picture, dtype, keep=options["keep"], map_dtype=options["map_dtype"]
        ),
        "reference": lambda picture: reference_of(model)(picture),
        "tiles": lambda picture: tiled(reference_of(model), picture, scale),
    }[options["contestant"]]
    with torch.inference_mode():
        contestant(image[:, :, :64, :64])
        start = time.perf_counter()
        peak = peak_above_base(lambda: contestant(image))
        seconds = time.perf_counter() - start
    row = {"preset": preset, "size": f"{height}x{width}", "contestant": options["contestant"]}
    row |= {"peak MiB": round(peak / MIB, 1), "seconds": round(seconds, 1)}
    # not comparable if the output is kept: the plan does not count what ``write`` keeps
    if options["contestant"] == "engine" and not options["keep"]:
        plan = model.exact_engine.plan(
            1, height, width, dtype=dtype, device="cpu", map_dtype=options["map_dtype"]
        )
        required = plan.memory_required
        row |= {
            "required MiB": round(required / MIB, 1),
            "peak/required": round(peak / required, 3),
        }
    return row


def memory(arguments: argparse.Namespace) -> list[dict]:
    """Peak memory of every contestant on every size, each in a process of its own."""
    rows = []
    for preset, (height, width) in cases(arguments):
        for contestant in ["engine", *(["reference", "tiles"] if arguments.tiles else [])]:
            options = {
                "contestant": contestant,
                "dtype": arguments.dtype,
                "scale": arguments.scale,
                "keep": not arguments.drop_output,
                "map_dtype": getattr(torch, arguments.map_dtype) if arguments.map_dtype else None,
            }
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(
                    pool.apply(memory_case, (preset, height, width, arguments.threads, options))
                )
            print_table(rows[-1:], header=len(rows) <= 1)
    return rows


def growth(arguments: argparse.Namespace) -> list[dict]:
    """Seconds per megapixel of the engine, and their ratio to those of the first size."""
    dtype = getattr(torch, arguments.dtype)

    def runs_of(model: FDAT) -> dict[str, Callable[[], object]]:
        images = [torch.rand(1, 3, height, width) for height, width in arguments.sizes]
        return {
            f"{i.shape[2]}x{i.shape[3]}": lambda image=i: engine_run(model, image, dtype)
            for i in images
        }

    rows = []
    for preset in arguments.presets:
        runs = interleaved(
            runs_of(strong_gates(PRESETS[preset])), arguments.repeats, clock_of(arguments)
        )
        first, *_ = spreads = [
            [s / (h * w / 1e6) for s in spread(values)]
            for values, (h, w) in zip(runs.values(), arguments.sizes)
        ]
        for size, values in zip(runs, spreads):
            row: dict = {"preset": preset, "size": size, "s/Mpx": round(values[1], 2)}
            row |= {"to the first": round(values[1] / first[1], 3), "spread": {"engine": values}}
            rows.append(row)
            print_table(rows[-1:], header=len(rows) == 1)
    return rows


def parameters(arguments: argparse.Namespace) -> list[dict]:
    """Number of parameters of the presets at ``--scale``, with their own upsampler."""
    rows = []
    for preset in arguments.presets:
        with torch.device("meta"):
            model = InferenceFDAT(replace(PRESETS[preset], scale=arguments.scale))
        count = sum(parameter.numel() for parameter in model.parameters())
        about = {
            "preset": preset,
            "scale": arguments.scale,
            "upsampler": model.config.upsampler_type,
        }
        rows.append({**about, "parameters": f"{count:,}"})
        print_table(rows[-1:], header=len(rows) == 1)
    return rows
