"""What a Dense-Iso-ViT checkpoint is, its conversion to this project's naming, and which reading
suits a picture best.

    python -m tools.dense_iso model.pth
    python -m tools.dense_iso model.pth --set heads=6,8,6,8 --convert model.safetensors
    python -m tools.dense_iso model.pth --rank photo.png

The ranking upscales a downscaled copy of the picture under every answer to every open question, one
question at a time, and keeps the answer with the highest PSNR before it goes on to the next.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor

from fdat_dense_iso.arch.dense_iso.config import ACTIVATIONS, VALUE_RANGES, DenseIsoViTConfig
from fdat_dense_iso.arch.dense_iso.meta import META_KEY, encode
from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT
from fdat_dense_iso.arch.dense_iso.reading.options import METADATA_KEY, PLACES, QKV_LAYOUTS
from fdat_dense_iso.arch.dense_iso.reading.recognise import Recognised, recognise
from fdat_dense_iso.arch.errors import ModelLoadError
from fdat_dense_iso.arch.files import read_checkpoint, read_sidecar
from fdat_dense_iso.arch.options import parse_options

console = Console()
CROPS = 4  # windows of the picture that are compared
LEAST_GAIN = 0.01  # dB by which another answer must be better


def main(
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors, .pth, .pt or .ckpt file.")],
    answers: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE, an answer to what tensors can't tell; repeatable."),
    ] = None,
    convert: Annotated[
        Path | None, typer.Option(help="Write this .safetensors file in this project's naming.")
    ] = None,
    rank: Annotated[
        Path | None, typer.Option(help="Rank the open readings on this picture.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Let --convert replace a file.")] = False,
) -> None:
    """Print what was found and what was assumed; convert; rank."""
    try:
        options = parse_options(answers or [])
        content, metadata = read_checkpoint(checkpoint)
        sources = {"sidecar": read_sidecar(checkpoint), "metadata": metadata}
        recognised = recognise(content, options=options, **sources)
        print_report(checkpoint, recognised)
        if rank is not None:
            best = print_ranking(
                rank_readings(content, options, sources, read_crops(rank, recognised.config))
            )
            recognised = recognise(content, options={**options, **best}, **sources)
        if convert is not None:
            write_converted(recognised, convert, overwrite)
    except (ModelLoadError, OSError, ValueError) as error:
        console.print(f"[red]{checkpoint.name}:[/red] {error}", highlight=False)
        sys.exit(1)


def print_report(checkpoint: Path, recognised: Recognised) -> None:
    """Print what was found, the configuration, and who said what tensors cannot tell."""
    config = recognised.config
    parameters = sum(tensor.numel() for tensor in recognised.weights.values())
    console.print(
        f"[bold]{checkpoint.name}[/bold]: Dense-Iso-ViT x{config.scale}, {parameters:,} parameters"
    )
    if recognised.found:
        found = Table(
            "part", "tensors in the file", title="Found (the first block stands for its stage)"
        )
        for role, names in recognised.found:
            found.add_row(role, names)
        console.print(found)
    else:
        console.print("Found: this project's own naming")
    fields = Table("field", "value", title="Configuration")
    for name, value in vars(config).items():
        fields.add_row(name, "\n".join(map(str, value)) if name == "head" else str(value))
    console.print(fields)
    settled = Table("question", "answer", "from", title="Not in the tensors")
    for name, value, source in recognised.settled:
        settled.add_row(
            name, str(value), "[yellow]assumed[/yellow]" if source == "default" else source
        )
    console.print(settled)
    for remark in recognised.remarks():
        if not remark.startswith("assumed"):
            console.print(f"[yellow]{remark}[/yellow]", highlight=False)


def answers_of(config: DenseIsoViTConfig) -> dict[str, str]:
    """The metadata entry that answers everything that tensors in this project's naming can't
    tell."""
    names = (
        "heads",
        "gated_half",
        "norm_eps",
        "skip",
        "align_corners",
        "value_range",
        "stage_norm_routing",
    )
    answers = {name: getattr(config, name) for name in (*names, "window")}
    answers["head_activation"] = [layer.activation for layer in config.head]
    return {METADATA_KEY: json.dumps(answers)}


def write_converted(recognised: Recognised, path: Path, overwrite: bool = False) -> None:
    """Write safetensors in this project's naming, with every answer in the metadata."""
    if path.suffix != ".safetensors":
        raise ModelLoadError(
            f"--convert writes .safetensors, not {path.suffix or 'a file without a suffix'}"
        )
    if path.exists() and not overwrite:
        raise ModelLoadError(f"{path} exists; --overwrite replaces it")
    metadata = {
        "format": "pt",
        "architecture": "DenseIsoViT",
        "scale": str(recognised.config.scale),
        **answers_of(recognised.config),
        "remarks": json.dumps(recognised.remarks()),
    }
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in recognised.weights.items()}
        | {META_KEY: encode(recognised.config)},
        path,
        metadata,
    )
    console.print(f"wrote {path}")


def read_crops(picture: Path, config: DenseIsoViTConfig) -> Tensor:
    """Up to `CROPS` crops of window * scale pixels, those with most detail. (N, 3, side, side) in
    [0, 1]."""
    with Image.open(picture) as opened:
        pixels = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1).float() / 255
    side = config.window * config.scale
    if min(pixels.shape[1:]) < side:
        raise ModelLoadError(
            f"{picture.name} is {tuple(pixels.shape[:0:-1])}, at least {side} x {side} pixels are needed"
        )
    crops = pixels.unfold(1, side, side).unfold(2, side, side).permute(1, 2, 0, 3, 4).flatten(0, 1)
    detail = (crops - F.avg_pool2d(crops, 5, 1, 2)).square().mean((1, 2, 3))
    return crops[detail.argsort(descending=True)[:CROPS]]


def rank_readings(
    content: Any, options: dict[str, Any], sources: dict[str, Any], crops: Tensor
) -> Iterator[tuple]:
    """Yield (question, answer, PSNR in dB, whether it is kept so far), question by question.

    Questions that an option, the sidecar or the metadata has answered are not asked.
    """
    chosen: dict[str, Any] = {}
    best = _psnr(content, {**options, **chosen}, sources, crops)
    yield "as assumed", {}, best, True
    recognised = recognise(content, options=options, **sources)
    open_questions = {name for name, _, source in recognised.settled if source == "default"}
    candidates = {
        name: tried
        for name, tried in _candidates(recognised.config).items()
        if name in open_questions
    }
    before = -math.inf
    while best > before:  # an answer may turn out better once another has changed
        before = best
        for name, tried in candidates.items():
            for answer in tried:
                if answer.items() <= chosen.items():
                    continue
                found = _psnr(content, {**options, **chosen, **answer}, sources, crops)
                kept = found > best + LEAST_GAIN
                if kept:
                    best, chosen = found, {**chosen, **answer}
                yield name, answer, found, kept


def _candidates(config: DenseIsoViTConfig) -> dict[str, list[dict[str, Any]]]:
    """Answers to try, for every question."""
    heads = [[width // size for width in config.dims] for size in (16, 24, 32, 48, 64, 96)]
    fitting = [
        h for h in heads if all(n >= 1 and width % n == 0 for n, width in zip(h, config.dims))
    ]
    equal = [
        [n] * len(config.dims)
        for n in (1, 2, 4, 6, 8, 12, 16)
        if all(width % n == 0 for width in config.dims)
    ]
    return {
        "gated_half": [{"gated_half": "first"}, {"gated_half": "second"}],
        "value_range": [{"value_range": name} for name in VALUE_RANGES],
        "heads": [{"heads": h} for h in (*fitting, *equal) if tuple(h) != config.heads],
        "qkv_layout": [{"qkv_layout": layout} for layout in QKV_LAYOUTS[1:]],
        "shuffles": [{"shuffles": "twos"}],
        "head_activation": [
            {"head_activation": f"{name}@{place}"}
            for name in ACTIVATIONS
            if name != "none"
            for place in PLACES
        ],
        "stage_norm_routing": [{"stage_norm_routing": "head"}],
        "align_corners": [{"align_corners": True}],
        "norm_eps": [{"norm_eps": 1e-6}],
    }


def _psnr(content: Any, options: dict[str, Any], sources: dict[str, Any], crops: Tensor) -> float:
    """PSNR of the upscaled downscaled crops, in dB."""
    recognised = recognise(content, options=options, **sources)
    network = DenseIsoViT(recognised.config).eval()
    network.load_state_dict(recognised.weights)
    scale = recognised.config.scale
    small = F.interpolate(crops, scale_factor=1 / scale, mode="bicubic", antialias=True).clamp(0, 1)
    with torch.inference_mode():
        out = torch.cat([network(window) for window in small.split(1)]).clamp(0, 1)
    return -10 * math.log10(max(float((out - crops).square().mean()), 1e-12))


def print_ranking(readings: Iterator[tuple]) -> dict[str, Any]:
    """Print the readings as they are found; return the answers that were kept."""
    rows, kept = [], {}
    for question, answer, found, better in readings:
        rows.append(
            (
                found,
                question,
                ", ".join(f"{name}={value}" for name, value in answer.items()),
                better,
            )
        )
        if better:
            kept.update(answer)
    table = Table(
        "PSNR",
        "question",
        "answer",
        title="Readings, best first (each on top of the ones kept before)",
    )
    for found, question, answer, better in sorted(rows, key=lambda row: -row[0]):
        table.add_row(
            f"{found:.2f} dB", question, f"[green]{answer} kept[/green]" if better else answer
        )
    console.print(table)
    return kept


if __name__ == "__main__":
    typer.run(main)
