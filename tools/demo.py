"""``make demo``: upscale the sample by the bundled checkpoint, compare with bicubic interpolation.

    python -m tools.demo [--output-folder demo]

The sample is reduced by the model's scale first, so that the original is there to compare with.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import Progress

from fdat_dense_iso.arch import load_model
from fdat_dense_iso.upscale import upscale_image
from tools.bicubic import imresize
from tools.metrics import evaluate, modcrop

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "models" / "fdat_demo_x2.safetensors"
SAMPLE = ROOT / "samples" / "coffee.png"
DETAIL = (slice(60, 300), slice(180, 420))


def side_by_side(pictures: dict[str, np.ndarray], zoom: int = 2) -> Image.Image:
    """A detail of every picture under its name."""
    tiles = [
        Image.fromarray(p[DETAIL]).resize((240 * zoom, 240 * zoom), Image.Resampling.NEAREST)
        for p in pictures.values()
    ]
    sheet = Image.new(
        "RGB", (sum(t.width for t in tiles) + 8 * (len(tiles) - 1), tiles[0].height + 20), "white"
    )
    left = 0
    for name, tile in zip(pictures, tiles):
        sheet.paste(tile, (left, 20))
        ImageDraw.Draw(sheet).text((left + 4, 4), name, fill="black")
        left += tile.width + 8
    return sheet


def demo(
    output_folder: Annotated[Path, typer.Option(help="Where the pictures go.")] = ROOT / "demo",
    checkpoint: Annotated[Path, typer.Option(help="The model.")] = CHECKPOINT,
    sample: Annotated[Path, typer.Option(help="The picture.")] = SAMPLE,
) -> None:
    """Upscale the sample, print PSNR and SSIM against bicubic, and write the pictures."""
    console = Console()
    model = load_model(checkpoint)
    scale = model.scale
    truth = modcrop(np.asarray(Image.open(sample).convert("RGB")), scale)
    low = imresize(truth, 1 / scale)
    bicubic = imresize(low, scale)
    output_folder.mkdir(parents=True, exist_ok=True)
    image = torch.from_numpy(low).float()[None] / 255
    started = time.perf_counter()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(
            f"{low.shape[1]}x{low.shape[0]} -> {truth.shape[1]}x{truth.shape[0]}", total=None
        )
        result = upscale_image(
            model, image, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    seconds = time.perf_counter() - started
    upscaled = (result[0] * 255).round().byte().numpy()
    name = f"{model.architecture.name} x{scale}"
    for file, picture in (("input", low), ("bicubic", bicubic), ("upscaled", upscaled)):
        Image.fromarray(picture).save(output_folder / f"{file}.png")
    side_by_side({"bicubic": bicubic, name: upscaled, "original": truth}).save(
        output_folder / "side_by_side.png"
    )
    console.print(
        f"{sample.name}: {low.shape[1]}x{low.shape[0]} -> {truth.shape[1]}x{truth.shape[0]}, {seconds:.1f} s"
    )
    for label, picture in (("bicubic", bicubic), (name, upscaled)):
        psnr, ssim = evaluate(picture, truth, scale)
        console.print(f"  {label:12s} {psnr:6.2f} dB  SSIM {ssim:.4f}", highlight=False)
    console.print(f"result        {output_folder / 'upscaled.png'}", soft_wrap=True)
    console.print(f"side by side  {output_folder / 'side_by_side.png'}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(demo)
