"""PSNR, SSIM and LPIPS of checkpoints on folders of pictures, against bicubic and Lanczos.

    python -m benchmarks.quality FOLDER [FOLDER ...] --model models/fdat_demo_x2.safetensors
    python -m benchmarks.quality FOLDER --scale 4                             (interpolation alone)
    python -m benchmarks.quality FOLDER [FOLDER ...] --model A --model B --page docs/quality.md

The standard protocol: MATLAB-style bicubic reduction to 8 bit, upscaling by `upscale_image`,
rounding to 8 bit, border cropped by the scale, PSNR and SSIM on Y and on RGB. Grey files stay grey,
as in published figures. Lanczos is Pillow's (a = 3). ``--record`` writes the averages into the
metadata of the checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from spandrel import ImageModelDescriptor

from benchmarks.page import command, write_section
from fdat_dense_iso.arch import load_model
from fdat_dense_iso.upscale import upscale_image
from tools.bicubic import imresize
from tools.metadata import add_metadata, read_metadata
from tools.metrics import evaluate, evaluate_rgb, load_lpips, modcrop

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
SCORES = "scores_psnr_ssim_y"
"""Metadata entry: {"folder xscale": "PSNR/SSIM"}."""

Upscale = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]
Lpips = Callable[[NDArray[np.uint8], NDArray[np.uint8], int], float]


@dataclass(frozen=True)
class Scores:
    """The scores of one method on one picture, or their mean over pictures."""

    psnr_y: float
    ssim_y: float
    psnr_rgb: float
    ssim_rgb: float
    lpips: float = float("nan")

    def __str__(self) -> str:
        lpips = "" if np.isnan(self.lpips) else f"  LPIPS {self.lpips:.4f}"
        return f"Y {self.y}  RGB {self.rgb}{lpips}"

    @property
    def y(self) -> str:
        """PSNR in dB / SSIM on Y."""
        return f"{self.psnr_y:.2f}/{self.ssim_y:.4f}"

    @property
    def rgb(self) -> str:
        """PSNR in dB / SSIM over the colours."""
        return f"{self.psnr_rgb:.2f}/{self.ssim_rgb:.4f}"


def lanczos(low: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """(H, W, ...) enlarged ``scale`` times by Pillow's Lanczos (a = 3)."""
    size = low.shape[1] * scale, low.shape[0] * scale
    return np.asarray(Image.fromarray(low).resize(size, Image.Resampling.LANCZOS))


def by_model(model: ImageModelDescriptor, mode: str) -> Upscale:
    """A function that upscales by the model through `upscale_image`; grey pictures stay grey."""

    def upscale(low: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
        image = torch.from_numpy(np.atleast_3d(low)).float()[None] / 255
        result = (upscale_image(model, image, mode=mode)[0] * 255).round().byte().numpy()
        return result.reshape(low.shape[0] * scale, low.shape[1] * scale, *low.shape[2:])

    return upscale


def read_picture(path: Path) -> NDArray[np.uint8]:
    """The picture as (H, W, 3), or (H, W) for a grey file."""
    with Image.open(path) as image:
        return np.asarray(image if image.mode == "L" else image.convert("RGB"))


def evaluate_folder(
    folder: Path, scale: int, methods: dict[str, Upscale], lpips: Lpips | None = None
) -> dict[str, dict[str, Scores]]:
    """Scores of every picture of a folder by every method: picture -> method -> scores."""
    scores: dict[str, dict[str, Scores]] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
        truth = modcrop(read_picture(path), scale)
        low = imresize(truth, 1 / scale)
        scores[path.name] = {}
        for name, method in methods.items():
            result = method(low, scale)
            distance = lpips(result, truth, scale) if lpips else float("nan")
            both = (*evaluate(result, truth, scale), *evaluate_rgb(result, truth, scale))
            scores[path.name][name] = Scores(*both, distance)
    if not scores:
        raise typer.BadParameter(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return scores


def average(scores: dict[str, dict[str, Scores]], method: str) -> Scores:
    """Mean of one method's scores over the pictures of a folder."""
    return Scores(
        *np.mean([astuple(picture[method]) for picture in scores.values()], axis=0).tolist()
    )


def table(results: dict[str, dict[str, Scores]], scale: int) -> str:
    """A Markdown table with a row per method: PSNR/SSIM on Y and RGB for every folder.

    ``results`` is folder -> method -> mean.
    """
    folders = list(results)
    with_lpips = not any(
        np.isnan(mean.lpips) for means in results.values() for mean in means.values()
    )
    columns = ["Y", "RGB", *(["LPIPS"] if with_lpips else [])]
    lines = [
        "| "
        + " | ".join(
            [f"x{scale}", *(f"{folder} {column}" for folder in folders for column in columns)]
        )
        + " |",
        "| --- " * (1 + len(folders) * len(columns)) + "|",
    ]
    for method in next(iter(results.values())):
        means = [results[folder][method] for folder in folders]
        cells = [
            [mean.y, mean.rgb, *([f"{mean.lpips:.4f}"] if with_lpips else [])] for mean in means
        ]
        lines.append(
            "| " + " | ".join([method, *(cell for group in cells for cell in group)]) + " |"
        )
    return "\n".join(lines)


def quality(
    folders: Annotated[list[Path], typer.Argument(help="Folders of ground-truth pictures.")],
    model: Annotated[
        list[Path] | None, typer.Option(help="Checkpoint; repeatable. None: interpolation alone.")
    ] = None,
    scale: Annotated[int, typer.Option(help="Upscaling factor where no model gives it.")] = 2,
    mode: Annotated[str, typer.Option(help="As for upscale_image.")] = "auto",
    details: Annotated[bool, typer.Option(help="Print every picture.")] = True,
    record: Annotated[
        bool, typer.Option("--record", help="Write averages into the checkpoints' metadata.")
    ] = False,
    page: Annotated[
        Path | None, typer.Option(help="Write the table into this page's `quality` section.")
    ] = None,
    alexnet: Annotated[
        Path | None, typer.Option(help="LPIPS's network (tools.alexnet); None: it is fetched.")
    ] = None,
) -> None:
    """Print scores of every picture and folder, per scale."""
    models = {path: load_model(path) for path in model or []}
    lpips = load_lpips(alexnet)
    tables = []
    for factor in sorted({loaded.scale for loaded in models.values()} or {scale}):
        chosen = {path.stem: path for path, loaded in models.items() if loaded.scale == factor}
        methods: dict[str, Upscale] = {"bicubic": imresize, "Lanczos": lanczos}
        methods |= {name: by_model(models[path], mode) for name, path in chosen.items()}
        results: dict[str, dict[str, Scores]] = {}
        for folder in folders:
            scores = evaluate_folder(folder, factor, methods, lpips)
            results[folder.name] = {method: average(scores, method) for method in methods}
            for name, row in {
                **(scores if details else {}),
                f"{folder.name} average": results[folder.name],
            }.items():
                for method, values in row.items():
                    print(f"{name:20s} x{factor} {method:24s} {values}", flush=True)
        tables.append(table(results, factor))
        if record:
            for name, path in chosen.items():
                new = {f"{folder} x{factor}": means[name].y for folder, means in results.items()}
                old = json.loads(read_metadata(path).get(SCORES, "{}"))
                add_metadata(path, {SCORES: json.dumps({**old, **new})})
    if page:
        write_section(page, "quality", "\n\n".join([f"`{command('benchmarks.quality')}`", *tables]))


if __name__ == "__main__":
    typer.run(quality)
