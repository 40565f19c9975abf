"""Makes docs/benchmarks.md and its plots from the figures that the benchmarks wrote as JSON.

    python -m benchmarks.fdat speed --json runs/benchmarks/fdat-speed.json      (and others; `make bench` runs all)
    python -m benchmarks.collect runs/benchmarks

One section per file, in the order of their names, each with its command, day, machine and noise.
Noise is the range from the quickest to the slowest of the repeated runs; the tables show medians.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import typer
from matplotlib.axes import Axes

from benchmarks.measure import MIB, UNPRINTED

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Benchmarks

This page was written by `python -m benchmarks.collect runs/benchmarks` from the figures of the
commands below; `make bench` runs all of them (with two threads, and the training on `samples`).
Figures are medians; noise is the range from the quickest to the slowest run. Contestants take
turns in one process, so ratios are more reliable than seconds. With `--rounds`, more rounds are run
than count: the figures are of those in which the machine was most idle, by the rate of matrix
products before and after every run, and the ratio in all rounds stands beside them. FDAT's sizes
are height x width of the input in pixels; its networks have random weights.
"""
NO_GPU = """## On a GPU

Not yet measured. Commands that take the option `--device` can run on a GPU
(`python -m benchmarks.dense_iso speed --device cuda`).
"""

Figures = dict[str, Any]
Row = dict[str, Any]


def markdown(rows: list[Row]) -> str:
    """A table with a column for every key, empty where a row has none."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [
        columns,
        ["---"] * len(columns),
        *([str(row.get(key, "")) for key in columns] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def noise(row: Row, unit: str = " s") -> dict[str, str]:
    """The column of noise of a row that has ``spread``: {contestant: [least, median, largest]}."""
    ranges = (
        f"{name} {least:.3g}-{most:.3g}{unit}" for name, (least, _, most) in row["spread"].items()
    )
    return {"noise": ", ".join(ranges)}


def without_spread(row: Row) -> Row:
    """The columns of a row: without ranges, which plots and `noise` show, and single rounds."""
    return {key: value for key, value in row.items() if key not in UNPRINTED}


def fdat_speed(figures: Figures) -> str:
    """The table of `benchmarks.fdat speed`, with noise in seconds."""
    return markdown([{**without_spread(row), **noise(row)} for row in figures["rows"]])


def fdat_growth(figures: Figures) -> str:
    """The table of `benchmarks.fdat growth`, with noise in seconds per megapixel."""
    return markdown([{**without_spread(row), **noise(row, " s/Mpx")} for row in figures["rows"]])


def plain_rows(figures: Figures) -> str:
    """The rows as a table, unchanged."""
    return markdown(figures["rows"])


def fdat_exactness(figures: Figures) -> str:
    """The table of `benchmarks.fdat exactness`, and an explanation of its columns."""
    return (
        "Random weights with strong gates. float64 and float32: largest difference of the engine from the plain\n"
        "network in float64, in the output's units; bfloat16 and float16: PSNR to the engine in float32, for the\n"
        f"range of its output.\n\n{plain_rows(figures)}"
    )


def dense_iso_speed(figures: Figures) -> str:
    """The table of `benchmarks.dense_iso speed`."""
    half = figures["half"]
    rows = [
        {
            "head": row["head"],
            "plain": f"{row['plain']:.2f} s",
            "engine": f"{row['engine']:.2f} s",
            "ratio": f"{row['plain'] / row['engine']:.2f}x",
            half: f"{row['half']:.2f} s",
            f"{half} to engine": f"{row['half_psnr']:.1f} dB",
            "of matrix rate": f"{row['share_of_limit']:.0%}",
            "largest error": f"{row['error']:.1e}",
            "Mpx/s": f"{row['output_mpx_per_second']:.3f}",
            **noise(row),
        }
        for row in figures["rows"]
    ]
    return f"Input {figures['size']}x{figures['size']} pixels, {figures['device']}.\n\n{markdown(rows)}"


def dense_iso_train(figures: Figures) -> str:
    """The curve of `benchmarks.dense_iso train`, PSNR of interpolation, unreached parameters."""
    rows = [{"step": row["step"], "PSNR": f"{row['psnr']:.2f} dB"} for row in figures["curve"]]
    missed = {
        "without a gradient": figures["without_gradient"],
        "with one that was not finite": figures["not_finite"],
        "that never moved": figures["not_moved"],
    }
    checks = "; ".join(f"{what}: {', '.join(names) or 'none'}" for what, names in missed.items())
    return (
        f"Bilinear {figures['bilinear']:.2f} dB, bicubic {figures['bicubic']:.2f} dB; "
        f"{figures['cpu_seconds']:.0f} s of CPU time. Parameters {checks}.\n\n{markdown(rows)}"
    )


def upscale(figures: Figures) -> str:
    """The four tables of `benchmarks.upscale`."""
    memory = [
        {
            "peak memory": f"x{row['scale']}, tile {row['tile']}",
            **{f"{key} MiB": round(row[key] / MIB) for key in ("peak", "bound", "output")},
        }
        for row in figures["memory"]
    ]
    requirement = [
        {
            "one tile": row["model"],
            "side": row["tile"],
            "asked MiB": round(row["asked"] / MIB),
            "used MiB": round(row["used"] / MIB),
            "asked/used": f"{row['ratio']:.2f}",
        }
        for row in figures["requirement"]
    ]
    overhead = []
    for row in figures["overhead"]:
        least, _, most = row["spread"]["share"]
        line = {"overhead": f"tile {row['tile']}", "outside the network": f"{row['share']:.1%}"}
        line["to ComfyUI's tiled_scale"] = "not measured (no ComfyUI)"
        ranges = [f"share {least:.1%}-{most:.1%}"]
        if row["ratio"] is not None:
            least, _, most = row["spread"]["ratio"]
            line["to ComfyUI's tiled_scale"] = f"{row['ratio']:.3f}"
            ranges.append(f"ratio {least:.3f}-{most:.3f}")
        overhead.append({**line, "noise": ", ".join(ranges)})
    preview = [
        {
            "live previews": f"{row['mode']}, {row['size']}",
            "pictures": row["pictures"],
            "seconds": f"{row['seconds']:.1f}",
            "share of the time": f"{row['share']:.2%}",
        }
        for row in figures["preview"]
    ]
    return "\n\n".join(markdown(rows) for rows in (memory, requirement, overhead, preview))


def bars(axes: Axes, names: list[str], spreads: list[dict[str, list[float]]], unit: str) -> None:
    """Grouped bars of medians, with the range of the runs."""
    contestants = list(dict.fromkeys(name for row in spreads for name in row))
    width = 0.8 / len(contestants)
    for place, contestant in enumerate(contestants):
        at = [
            i + (place - (len(contestants) - 1) / 2) * width
            for i, row in enumerate(spreads)
            if contestant in row
        ]
        values = [row[contestant] for row in spreads if contestant in row]
        errors = [[v[1] - v[0] for v in values], [v[2] - v[1] for v in values]]
        axes.bar(at, [v[1] for v in values], width, yerr=errors, capsize=3, label=contestant)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel(unit)
    axes.set_yscale("log")
    axes.legend()


def plot_speed(axes: Axes, figures: Figures) -> None:
    """Seconds of every contestant, on a logarithmic axis."""
    rows = figures["rows"]
    names = [row["head"] if "head" in row else f"{row['preset']}\n{row['size']}" for row in rows]
    bars(axes, names, [row["spread"] for row in rows], "seconds (log)")


def plot_growth(axes: Axes, figures: Figures) -> None:
    """Seconds per megapixel over the size of the input."""
    for preset in dict.fromkeys(row["preset"] for row in figures["rows"]):
        rows = [row for row in figures["rows"] if row["preset"] == preset]
        values = [row["spread"]["engine"] for row in rows]
        errors = [[v[1] - v[0] for v in values], [v[2] - v[1] for v in values]]
        axes.errorbar(
            [megapixels(r) for r in rows],
            [v[1] for v in values],
            errors,
            marker="o",
            capsize=3,
            label=preset,
        )
    axes.set(xlabel="input, megapixels", ylabel="seconds per megapixel", ylim=(0, None))
    axes.legend()


def plot_memory(axes: Axes, figures: Figures) -> None:
    """Peak MiB over the size of the input, a line per preset and contestant."""
    for name in dict.fromkeys((row["preset"], row["contestant"]) for row in figures["rows"]):
        rows = [row for row in figures["rows"] if (row["preset"], row["contestant"]) == name]
        axes.plot(
            [megapixels(row) for row in rows],
            [row["peak MiB"] for row in rows],
            marker="o",
            label=", ".join(name),
        )
    axes.set(xlabel="input, megapixels", ylabel="peak, MiB", ylim=(0, None))
    axes.legend()


def megapixels(row: Row) -> float:
    """Megapixels of the input of a row, from its height x width."""
    height, width = map(int, row["size"].split("x"))
    return height * width / 1e6


Table = Callable[[Figures], str]
Plot = Callable[[Axes, Figures], None]
SECTIONS: dict[tuple[str, str], tuple[str, Table, Plot | None]] = {
    ("fdat", "speed"): ("FDAT: the exact engine against the plain network", fdat_speed, plot_speed),
    ("fdat", "exactness"): (
        "FDAT: the engine's result against the plain network's",
        fdat_exactness,
        None,
    ),
    ("fdat", "memory"): ("FDAT: peak memory", plain_rows, plot_memory),
    ("fdat", "growth"): ("FDAT: how the cost grows with the picture", fdat_growth, plot_growth),
    ("dense_iso", "speed"): (
        "Dense-Iso-ViT: the engine against the plain network",
        dense_iso_speed,
        plot_speed,
    ),
    ("dense_iso", "train"): (
        "Dense-Iso-ViT: eight patches learned by heart",
        dense_iso_train,
        None,
    ),
    ("upscale", "upscale"): ("Tiles, memory requirements, previews", upscale, None),
}
"""(module, what it measured) -> title, table, plot."""
VARIANTS = {
    " --tiles": ", and its tiles",
    " --dtype bfloat16": ", in bfloat16",
    " --drop-output": " and the plan",
    " --map-dtype float16": " with maps in float16",
}
"""Options of a command -> what they add to the title of its section."""


def section(file: Path, images: Path) -> str:
    """One section of the page. Raises ValueError if the file is from no benchmark known here."""
    figures = json.loads(file.read_text(encoding="utf-8"))
    try:
        module = figures["command"].split("benchmarks.")[1].split()[0]
        title, table, plot = SECTIONS[module, figures["what"]]
    except (KeyError, IndexError, TypeError) as error:
        known = ", ".join(" ".join(key) for key in SECTIONS)
        raise ValueError(
            f"{file} holds no figures of a benchmark known here ({known}); write it with --json"
        ) from error
    shown = re.sub(r" --json \S+", "", figures["command"])
    title += "".join(more for option, more in VARIANTS.items() if option in shown)
    lines = [f"## {title}", f"```sh\n{shown}\n```", table(figures)]
    # a single point is not worth a plot
    if plot is not None and (len(figures["rows"]) > 1 or "spread" in figures["rows"][0]):
        picture = images / f"{file.stem}.png"
        with plt.rc_context({"font.size": 9}):
            drawing, axes = plt.subplots(figsize=(6, 3), layout="constrained")
            plot(axes, figures)
            drawing.savefig(picture, dpi=110)
            plt.close(drawing)
        lines.append(f"![{title}](images/{picture.name})")
    return "\n\n".join([*lines, f"{figures['date']}, {figures['machine']}."])


def collect(
    folder: Annotated[Path, typer.Argument(help="Where the figures are, as *.json.")],
    docs: Annotated[Path, typer.Option(help="Where benchmarks.md and images/ go.")] = ROOT / "docs",
) -> None:
    """Write the page and its plots."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise typer.BadParameter(
            f"{folder} holds no *.json; run the benchmarks with --json first (make bench)"
        )
    images = docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    try:
        sections = [section(file, images) for file in files]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    page = docs / "benchmarks.md"
    on_gpu = any(
        json.loads(file.read_text(encoding="utf-8")).get("device", "cpu") != "cpu" for file in files
    )
    parts = [HEAD, *(f"{text}\n" for text in sections), *([] if on_gpu else [NO_GPU])]
    page.write_text("\n".join(parts), encoding="utf-8")
    typer.echo(f"{page}: {len(sections)} tables")


if __name__ == "__main__":
    typer.run(collect)
