"""The exact engine against spandrel's FDAT: speed, exactness, memory, growth with the image;
parameters of presets.

    python -m benchmarks.fdat speed --presets tiny medium --sizes 256x256 --threads 2
    python -m benchmarks.fdat speed --presets tiny --sizes 768x1024 --tiles
    python -m benchmarks.fdat exactness
    python -m benchmarks.fdat memory --presets tiny --sizes 512x768 --tiles
    python -m benchmarks.fdat memory --presets tiny medium large --drop-output
    python -m benchmarks.fdat growth --presets tiny --sizes 512x512 2048x2048
    python -m benchmarks.fdat parameters

The reference is spandrel's class on the whole image with the same weights, in the same process;
runs of all contestants alternate, and each figure is the median of ``--repeats`` (5). Where
neighbours share the machine, more ``--rounds`` are run, and the figures are of those in which it
was most idle, by nothing but the rate of matrix products that is measured before and after every
run; the median of all rounds stands beside them. Sizes are height x width in input pixels. Prints a
table and, as the last line, the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path

from fdat_dense_iso.cpu_torchvision import make_torchvision_importable

make_torchvision_importable()

import torch  # noqa: E402
from spandrel.architectures.FDAT import FDAT as SpandrelFDAT  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from benchmarks.measure import (  # noqa: E402
    MIB,
    UNPRINTED,
    interleaved,
    interleaved_beside,
    machine,
    peak_above_base,
    spread,
    write_figures,
)
from fdat_dense_iso.arch.fdat.architecture import InferenceFDAT  # noqa: E402
from fdat_dense_iso.arch.fdat.config import PRESETS, FDATConfig  # noqa: E402
from fdat_dense_iso.arch.fdat.network import FDAT  # noqa: E402
from fdat_dense_iso.arch.fdat.upsampler import UPSAMPLER_TYPES  # noqa: E402
from fdat_dense_iso.arch.kernels.heap import keep_freed_memory  # noqa: E402
from fdat_dense_iso.arch.kernels.products import Product  # noqa: E402

TILE, OVERLAP = 512, 32
MANY_PIXELS = 10_000
"""Of an input that is compared with the preset's own upsampler only, where none are named: float64
takes its time."""


def strong_gates(config: FDATConfig, seed: int = 0) -> FDAT:
    """Random weights of unit gain with strong gates and sharp attention, so that global statistics
    matter."""
    model = InferenceFDAT(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("attn.temp"):
            parameter.copy_(2 + 6 * torch.rand(parameter.shape, generator=generator))
        elif name.endswith("attn.bias"):
            parameter.copy_(0.5 * noise)
        elif parameter.ndim == 1:
            parameter.copy_(
                0.1 * noise + (1 if ".n1.weight" in name or ".n2.weight" in name else 0)
            )
        else:
            gain = 3.0 if ".inter." in name else 0.7
            parameter.copy_(gain * noise / parameter[0].numel() ** 0.5)
    return model


def reference_of(model: FDAT) -> SpandrelFDAT:
    """spandrel's network with the same configuration and weights."""
    values = {f.name: getattr(model.config, f.name) for f in fields(model.config)}
    values["group_block_pattern"] = list(model.config.group_block_pattern)
    reference = SpandrelFDAT(**values).eval().requires_grad_(False)
    reference.load_state_dict(model.state_dict())
    return reference


def engine_run(
    model: FDAT, image: Tensor, dtype: torch.dtype, keep: bool = True, **options: object
) -> Tensor:
    """The engine's whole output in float32 (float64 for float64), or an empty tensor without
    ``keep``."""
    batch, _, height, width = image.shape
    scale = model.config.scale
    plan = model.exact_engine.plan(
        batch, height, width, **{"dtype": dtype, "device": "cpu", **options}
    )
    out_dtype = torch.promote_types(dtype, torch.float32)
    shape = (batch, model.config.num_out_ch, height * scale, width * scale) if keep else (0,)
    output = torch.empty(shape, dtype=out_dtype)

    def write(top: int, rows: Tensor) -> None:
        if keep:
            output[:, :, top : top + rows.shape[2]] = rows

    model.exact_engine.run(image, plan, write)
    return output


def tiled(network: nn.Module, image: Tensor, scale: int) -> Tensor:
    """Tiles of 512 with feathered overlaps of 32, as ComfyUI's own upscale node makes them: not the
    same result."""
    batch, _, height, width = image.shape
    output = torch.zeros(batch, 3, height * scale, width * scale)
    weights = torch.zeros_like(output)

    def starts(length: int) -> list[int]:
        return list(range(0, length - OVERLAP, TILE - OVERLAP)) if length > TILE else [0]

    for y in starts(height):
        for x in starts(width):
            part = network(image[:, :, y : y + TILE, x : x + TILE])
            mask = torch.ones_like(part)
            feather = OVERLAP * scale
            for step in range(feather):
                factor = (step + 1) / feather
                if y:
                    mask[:, :, step] *= factor
                if y + TILE < height:
                    mask[:, :, -1 - step] *= factor
                if x:
                    mask[:, :, :, step] *= factor
                if x + TILE < width:
                    mask[:, :, :, -1 - step] *= factor
            place = (
                ...,
                slice(y * scale, y * scale + part.shape[2]),
                slice(x * scale, x * scale + part.shape[3]),
            )
            output[place] += part * mask
            weights[place] += mask
    return output / weights


def product_rate(dtype: torch.dtype, clock: Callable[[], float]) -> Callable[[], float]:
    """Measures FLOP/s of a (8192, 512) x (512, 512) matrix product, as the engine computes its
    products."""
    x, product = (
        torch.randn(8, 1024, 512, dtype=dtype),
        Product.of(torch.randn(512, 512, dtype=dtype)),
    )

    def measure() -> float:
        keep_freed_memory()  # or the pages of the result would be part of it
        return (
            2
            * x.numel()
            * 512
            / statistics.median(interleaved({"product": lambda: product(x)}, 7, clock)["product"])
        )

    return measure


def engine_flops(model: FDAT, height: int, width: int) -> int:
    """Operations of the engine's matrix products, convolutions and attention, counted on the meta
    device."""
    plan = model.exact_engine.plan(1, height, width, dtype=torch.float32, device="meta")
    with FlopCounterMode(display=False) as counter:
        model.exact_engine.run(
            torch.empty(1, 3, height, width, device="meta"), plan, lambda top, rows: None
        )
    return counter.get_total_flops()


def speed_case(preset: str, height: int, width: int, arguments: argparse.Namespace) -> dict:
    """Times of all contestants on one size, their ratios to the engine, and its share of the matrix
    rate."""
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
    """Every contestant's seconds to the engine's; the engine's to its own in half precision."""
    engine = seconds["engine"]
    row = {
        f"{name}/engine": round(value / engine, 2)
        for name, value in seconds.items()
        if name not in ("engine", half)
    }
    return row | ({f"engine/{half}": round(engine / seconds[half], 2)} if half else {})


def speed(arguments: argparse.Namespace) -> list[dict]:
    """Seconds of spandrel's network, the engine, and others on demand."""
    rows = []
    for preset, (height, width) in cases(arguments):
        rows.append(speed_case(preset, height, width, arguments))
        print_table(rows[-1:], header=len(rows) == 1)
    return rows


def exactness(arguments: argparse.Namespace) -> list[dict]:
    """Largest difference from the network in float64, in the output's units; half precision's PSNR
    to float32."""
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
    """One preset with one upsampler on one size: differences from the network in float64, PSNR of
    half precision."""
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
    """One measurement in a process of its own: peak above what the model, the image and a small run
    had taken."""
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
    if (
        options["contestant"] == "engine" and not options["keep"]
    ):  # the plan does not count what ``write`` keeps
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
    """Seconds per megapixel of the engine, against the first size."""
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
    """Trained numbers of the presets at ``--scale``, with their own upsampler."""
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


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of text such as 256x512."""
    height, _, width = text.partition("x")
    return int(height), int(width)


def main() -> None:
    """Read the command line, measure, print and write."""
    what = {
        "speed": speed,
        "exactness": exactness,
        "memory": memory,
        "growth": growth,
        "parameters": parameters,
    }
    sizes = {
        "speed": ["256x256"],
        "exactness": ["64x64", "5x7", "1x40", "203x317"],
        "memory": ["256x256", "512x512", "512x768", "768x1024", "1024x1024"],
        "growth": ["512x512", "2048x2048"],
        "parameters": [],
    }
    presets = {"exactness": ["tiny", "medium", "large"], "parameters": list(PRESETS)}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=what)
    parser.add_argument(
        "--presets",
        nargs="+",
        choices=PRESETS,
        help="[tiny; for exactness tiny medium large; for parameters all]",
    )
    parser.add_argument(
        "--sizes", nargs="+", type=parse_size, help="height x width of the input, such as 256x256"
    )
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16", "float16"],
        help="of the arithmetic",
    )
    parser.add_argument(
        "--map-dtype",
        choices=["float32", "bfloat16", "float16"],
        help="of the feature maps (memory)",
    )
    parser.add_argument("--scale", type=int, default=4, help="memory and parameters")
    parser.add_argument(
        "--upsamplers",
        nargs="+",
        choices=UPSAMPLER_TYPES,
        help="exactness [all; for large inputs the preset's own]",
    )
    parser.add_argument(
        "--tiles",
        action="store_true",
        help="also ComfyUI-style tiles; for memory also the reference",
    )
    parser.add_argument(
        "--drop-output",
        action="store_true",
        help="memory: don't keep the output; compare with the plan",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--rounds", type=int, default=0, help="speed: of these, the most idle --repeats count [all]"
    )
    parser.add_argument(
        "--json", type=Path, dest="json_file", help="also write the figures to this file"
    )
    parser.add_argument(
        "--cpu-time", action="store_true", help="CPU time in place of wall-clock time (one thread)"
    )
    arguments = parser.parse_args()
    arguments.presets = arguments.presets or presets.get(arguments.what, ["tiny"])
    arguments.sizes = arguments.sizes or [parse_size(size) for size in sizes[arguments.what]]
    if arguments.cpu_time:
        arguments.threads = 1
    torch.set_num_threads(arguments.threads)
    about = {
        "what": arguments.what,
        "dtype": arguments.dtype,
        "clock": "CPU time" if arguments.cpu_time else "wall",
        "machine": machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "spandrel": version("spandrel"),
    }
    print("  ".join(f"{key}: {value}" for key, value in about.items()))
    with torch.inference_mode():
        rows = what[arguments.what](arguments)
    print(json.dumps({**about, "rows": rows}))
    write_figures(arguments.json_file, "benchmarks.fdat", {**about, "rows": rows})


if __name__ == "__main__":
    main()
