"""The exact engine against spandrel's FDAT: speed, exactness, memory, growth with the image.

    python -m benchmarks.fdat speed --presets tiny medium --sizes 256x256 --threads 2
    python -m benchmarks.fdat speed --presets tiny --sizes 768x1024 --tiles
    python -m benchmarks.fdat exactness
    python -m benchmarks.fdat memory --presets tiny --sizes 512x768 --tiles
    python -m benchmarks.fdat memory --presets tiny medium large --drop-output
    python -m benchmarks.fdat growth --presets tiny --sizes 512x512 2048x2048
    python -m benchmarks.fdat parameters

The reference is spandrel's class on the whole image with the same weights, in the same process;
runs of all contestants alternate, and each figure is the median of ``--repeats`` (5). If other
programs share the machine, run more ``--rounds``: the figures are then of the rounds in which the
machine was most idle, judged only by the rate of matrix products before and after every run. The
median of all rounds stands beside them. Sizes are height x width in input pixels. Prints a table
and, as the last line, the same as JSON.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.fdat.measurements import exactness, growth, memory, parameters, speed
from benchmarks.measure import (
    machine,
    write_figures,
)
from fdat_dense_iso.arch.fdat.config import PRESETS
from fdat_dense_iso.arch.fdat.upsampler import UPSAMPLER_TYPES


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) from text such as 256x512."""
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
