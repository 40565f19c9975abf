"""Makes the pack's icon and banner and the README's picture: left bicubic, right the bundled model.

    python -m tools.artwork [--model models/fdat_demo_x2.safetensors]

Writes assets/icon.png (400x400), assets/banner.png (21:9) and docs/images/before_after.png. The
sample is reduced by the model's scale first; the right side is what the model made of the reduced
picture. The README's picture shows one detail twice, enlarged without interpolation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image, ImageDraw, ImageFont

from fdat_dense_iso.arch import load_model
from fdat_dense_iso.upscale import upscale_image
from tools.bicubic import imresize
from tools.metrics import modcrop

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "models" / "fdat_demo_x2.safetensors"
SAMPLE = ROOT / "samples" / "coffee.png"
Box = tuple[int, int, int, int]
ICON: Box = (230, 60, 430, 260)  # left, top, right, bottom in the sample
BANNER: Box = (60, 70, 480, 250)
README: Box = (300, 30, 460, 190)
COLOURS = 256


def split(
    left: Image.Image, right: Image.Image, box: Box, size: tuple[int, int], slant: float = 0.0
) -> Image.Image:
    """Join the same detail of two pictures at a white line in the middle.

    Args:
        left, right: pictures of one size.
        box: the detail, in their pixels.
        size: (width, height) of the result.
        slant: how far the line leans from bottom to top, as a share of the width.
    """
    before, after = (p.crop(box).resize(size, Image.Resampling.LANCZOS) for p in (left, right))
    width, height = size
    top, bottom = width * (0.5 + slant / 2), width * (0.5 - slant / 2)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon(
        [(top, 0), (width, 0), (width, height), (bottom, height)], fill=255
    )
    joined = Image.composite(after, before, mask)
    ImageDraw.Draw(joined).line(
        [(top, 0), (bottom, height)], fill="white", width=max(2, width // 200)
    )
    return joined


def label(picture: Image.Image, text: str, place: tuple[int, int], size: int, anchor: str) -> None:
    """Write white text with a dark rim at ``place``."""
    ImageDraw.Draw(picture).text(
        place,
        text,
        "white",
        ImageFont.load_default(size),
        anchor,
        stroke_width=max(1, size // 14),
        stroke_fill="#222",
    )


def save(picture: Image.Image, path: Path) -> None:
    """Save as a PNG with a palette, which is small enough to ship."""
    path.parent.mkdir(parents=True, exist_ok=True)
    palette = picture.quantize(COLOURS)
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


def artwork(
    model: Annotated[Path, typer.Option(help="The checkpoint.")] = CHECKPOINT,
    sample: Annotated[Path, typer.Option(help="The picture, 600x400.")] = SAMPLE,
    folder: Annotated[Path, typer.Option(help="Where assets/ and docs/images/ are.")] = ROOT,
) -> None:
    """Make the three pictures."""
    descriptor = load_model(model)
    truth = modcrop(np.asarray(Image.open(sample).convert("RGB")), descriptor.scale)
    low = imresize(truth, 1 / descriptor.scale)
    result = upscale_image(descriptor, torch.from_numpy(low).float()[None] / 255)
    bicubic = Image.fromarray(imresize(low, descriptor.scale))
    upscaled = Image.fromarray((result[0] * 255).round().byte().numpy())

    save(split(bicubic, upscaled, ICON, (400, 400), 0.25), folder / "assets" / "icon.png")
    banner = split(bicubic, upscaled, BANNER, (840, 360), 0.1)
    label(banner, "FDAT & Dense-Iso-ViT", (420, 300), 44, "mm")
    label(banner, "upscaling for ComfyUI", (420, 338), 20, "mm")
    save(banner, folder / "assets" / "banner.png")
    readme = Image.new("RGB", (964, 480), "white")
    names = (
        f"bicubic x{descriptor.scale}",
        f"{descriptor.architecture.name} x{descriptor.scale}, bundled model",
    )
    for left, picture, name in zip((0, 484), (bicubic, upscaled), names):
        readme.paste(picture.crop(README).resize((480, 480), Image.Resampling.NEAREST), (left, 0))
        label(readme, name, (left + 12, 468), 24, "ls")
    save(readme, folder / "docs" / "images" / "before_after.png")


if __name__ == "__main__":
    typer.run(artwork)
