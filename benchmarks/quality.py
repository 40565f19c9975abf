"""PSNR and SSIM of a checkpoint on folders of pictures, by the standard protocol.

    python -m benchmarks.quality FOLDER [FOLDER ...] --model models/fdat_demo_x2.safetensors
    python -m benchmarks.quality FOLDER --scale 4                     (bicubic interpolation alone)

MATLAB-style bicubic reduction to 8-bit RGB, upscaling, rounding to 8 bit, Y channel, border cropped by the scale.
``--record`` writes the averages into the metadata of the checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from spandrel import ImageModelDescriptor

from arch import load_model
from tools.bicubic import imresize
from tools.metrics import evaluate, modcrop
from upscale import upscale_image

Scores = dict[str, dict[str, tuple[float, float]]]
"""(PSNR, SSIM) by file name and method."""

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def evaluate_folder(folder: Path, scale: int, model: ImageModelDescriptor | None = None, mode: str = "auto") -> Scores:
    """(PSNR, SSIM) of bicubic interpolation and of the model for every picture of a folder, by file name."""
    scores: Scores = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
        truth = modcrop(np.asarray(Image.open(path).convert("RGB")), scale)
        low = imresize(truth, 1 / scale)
        scores[path.name] = {"bicubic": evaluate(imresize(low, scale), truth, scale)}
        if model is not None:
            result = upscale_image(model, torch.from_numpy(low).float()[None] / 255, mode=mode)[0]
            scores[path.name]["model"] = evaluate((result * 255).round().byte().numpy(), truth, scale)
    if not scores:
        raise typer.BadParameter(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return scores


def average(scores: Scores, method: str) -> tuple[float, float]:
    return tuple(np.mean([score[method] for score in scores.values()], axis=0).tolist())  # type: ignore[return-value]


def record(checkpoint: Path, results: dict[str, tuple[float, float]]) -> None:
    """Write the averages into the checkpoint's metadata; its tensors stay as they are."""
    with safe_open(checkpoint, framework="pt") as file:
        metadata = dict(file.metadata() or {})
    scores = {name: f"{psnr:.2f}/{ssim:.4f}" for name, (psnr, ssim) in results.items()}
    metadata["scores_psnr_ssim_y"] = json.dumps({**json.loads(metadata.get("scores_psnr_ssim_y", "{}")), **scores})
    save_file(load_file(checkpoint), checkpoint, metadata)


def quality(
    folders: Annotated[list[Path], typer.Argument(help="Folders of ground-truth pictures.")],
    model: Annotated[Path | None, typer.Option(help="Checkpoint; none: bicubic interpolation alone.")] = None,
    scale: Annotated[int, typer.Option(help="Upscaling factor where no model gives it.")] = 2,
    mode: Annotated[str, typer.Option(help="As for upscale_image.")] = "auto",
    details: Annotated[bool, typer.Option(help="Print every picture.")] = True,
    record_scores: Annotated[bool, typer.Option("--record", help="Write averages into the checkpoint.")] = False,
) -> None:
    """Print PSNR / SSIM for every picture and folder."""
    loaded = load_model(model) if model else None
    scale = loaded.scale if loaded else scale
    methods = ["bicubic", *(["model"] if loaded else [])]
    results: dict[str, tuple[float, float]] = {}
    for folder in folders:
        scores = evaluate_folder(folder, scale, loaded, mode)
        rows = {**scores, f"{folder.name} average": {method: average(scores, method) for method in methods}}
        for name, row in rows.items():
            if details or name.endswith("average"):
                print(f"{name:24s} x{scale} " + "  ".join(f"{m} {row[m][0]:6.2f}/{row[m][1]:.4f}" for m in methods))
        results[f"{folder.name} x{scale}"] = average(scores, methods[-1])
    if record_scores and model:
        record(model, results)


if __name__ == "__main__":
    typer.run(quality)
