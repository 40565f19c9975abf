"""Makes the pictures of the example workflows that ComfyUI's list of templates shows.

    python -m tools.thumbnails [--sample samples/coffee.png]

Writes example_workflows/NAME.jpg, 480x480, since the list shows squares (of about 240 pixels, whose
top left corner it covers). Each shows what its workflow does, done here by the bundled models to a
reduced sample; what was not enlarged is shown in squares, pixel by pixel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fdat_dense_iso.arch import load_model
from fdat_dense_iso.upscale import upscale_image
from tools.artwork import ROOT, SAMPLE, Box, label, split
from tools.bicubic import imresize
from tools.degrade import compress, to_bytes, to_picture

SIDE = 480
TEXT = 44
SIZE = (SIDE, SIDE)
QUALITY = 88
CUP: Box = (230, 60, 430, 260)  # left, top, right, bottom in the sample
SPOON: Box = (310, 160, 470, 320)
HANDLE: Box = (205, 180, 405, 380)
STRIP: Box = (300, 60, 340, 180)
DETAIL: Box = (280, 205, 450, 375)
MASKED: Box = (324, 244, 404, 324)
WHOLE: Box = (110, 10, 490, 390)
Pixels = NDArray[np.uint8]


def run(name: str, pixels: Pixels, **options: str | torch.Tensor) -> Pixels:
    """What a bundled model makes of a picture (H, W, 3)."""
    model = load_model(ROOT / "models" / f"{name}.safetensors")
    result = upscale_image(model, torch.from_numpy(pixels).float()[None] / 255, **options)
    return (result[0] * 255).round().byte().numpy()


def cut(pixels: Pixels, box: Box, scale: float, size: tuple[int, int] = SIZE) -> Image.Image:
    """A box of the sample, from a picture that is ``scale`` times as large as the sample."""
    picture = Image.fromarray(pixels)
    place = [round(edge * scale) for edge in box]
    kind = Image.Resampling.NEAREST if scale < 1 else Image.Resampling.LANCZOS
    return picture.crop((place[0], place[1], place[2], place[3])).resize(size, kind)


def before_after(sample: Pixels, box: Box) -> Image.Image:
    """A quarter of the size in squares, and what the x4 model makes of it."""
    low = imresize(sample, 1 / 4)
    high = run("fdat_demo_x4", low)
    return split(cut(low, box, 1 / 4), cut(high, box, 1), (0, 0, *SIZE), SIZE, 0.2)


def image(sample: Pixels) -> Image.Image:
    """Before and after."""
    picture = before_after(sample, CUP)
    label(picture, "before", (20, SIDE - 20), TEXT, "ls")
    label(picture, "after", (SIDE - 20, SIDE - 20), TEXT, "rs")
    return picture


def video(sample: Pixels) -> Image.Image:
    """Before and after, as a film that can be played."""
    picture = before_after(sample, HANDLE)
    drawn = ImageDraw.Draw(picture)
    for top in (0, SIDE - 64):
        drawn.rectangle((0, top, SIDE, top + 64), "#111")
        for left in range(14, SIDE, 60):
            drawn.rounded_rectangle((left, top + 17, left + 32, top + 47), 8, "#ddd")
    middle, half = SIDE // 2, 66
    drawn.ellipse((middle - half, middle - half, middle + half, middle + half), "#111c", "white", 6)
    drawn.polygon(
        [(middle - 24, middle - 38), (middle - 24, middle + 38), (middle + 42, middle)], "white"
    )
    return picture


def seamless_texture(sample: Pixels) -> Image.Image:
    """A mirrored detail, enlarged, four times; marks at the edges tell where the parts meet."""
    left, top, right, bottom = SPOON
    low = imresize(sample[top:bottom, left:right], 3 / 8)
    low = np.concatenate([low, low[:, ::-1]], 1)
    low = np.concatenate([low, low[::-1]], 0)
    tile = Image.fromarray(run("fdat_demo_x2", low, seamless="both"))
    picture = Image.new("RGB", SIZE)
    for place in ((0, 0), (SIDE // 2, 0), (0, SIDE // 2), (SIDE // 2, SIDE // 2)):
        picture.paste(tile, place)
    drawn, middle = ImageDraw.Draw(picture), SIDE // 2
    for start in (0, SIDE - 36):
        drawn.line((middle, start, middle, start + 36), "white", 6)
        drawn.line((start, middle, start + 36, middle), "white", 6)
    label(picture, "no seams", (middle, SIDE - 46), TEXT, "ms")
    return picture


def with_mask(sample: Pixels) -> Image.Image:
    """The middle by the model, the rest resampled, as the node does it."""
    low = imresize(sample, 1 / 4)
    height, width, _ = low.shape
    left, top, right, bottom = (edge // 4 for edge in MASKED)
    mask = torch.zeros(1, height, width)
    mask[:, top:bottom, left:right] = 1
    picture = cut(run("fdat_demo_x4", low, mask=mask), DETAIL, 1)
    scale = SIDE / (DETAIL[2] - DETAIL[0])
    x0, y0, x1, y1 = (
        round((edge - start) * scale) for edge, start in zip(MASKED, (DETAIL[0], DETAIL[1]) * 2)
    )
    ImageDraw.Draw(picture).rectangle((x0, y0, x1, y1), outline="white", width=5)
    label(picture, "model", ((x0 + x1) // 2, y0 - 16), TEXT, "ms")
    label(picture, "resampled", (SIDE // 2, SIDE - 20), TEXT, "ms")
    return picture


def restore(sample: Pixels) -> Image.Image:
    """Three times one detail: spoilt by JPEG, cleaned, cleaned and enlarged."""
    low = imresize(sample, 1 / 2)
    spoilt = to_bytes(compress(to_picture(low), "JPEG", 15))
    clean = run("fdat_real_x1", spoilt)
    steps = [("JPEG", spoilt, 0.5), ("clean", clean, 0.5), ("x2", run("fdat_demo_x2", clean), 1.0)]
    picture, width = Image.new("RGB", SIZE, "white"), SIDE // 3
    for number, (text, pixels, scale) in enumerate(steps):
        strip = cut(pixels, STRIP, scale, (width - 4, SIDE))
        picture.paste(strip, (number * width + 2, 0))
        label(picture, text, (number * width + width // 2, SIDE - 20), TEXT, "ms")
    return picture


def hires_fix(sample: Pixels) -> Image.Image:
    """A small picture that grows, and a brush that paints on it."""
    low = imresize(sample, 1 / 4)
    picture = cut(run("fdat_demo_x4", low), WHOLE, 1)
    drawn, small = ImageDraw.Draw(picture), SIDE // 4
    picture.paste(cut(low, WHOLE, 1 / 4, (small, small)), (0, SIDE - small))
    for side, width in ((small, 5), (small * 2, 4), (small * 3, 3)):
        drawn.rectangle((-width, SIDE - side, side, SIDE + width), outline="white", width=width)
    drawn.line((445, 35, 330, 150), "#222", 34)
    drawn.line((445, 35, 330, 150), "#d9a15b", 24)
    drawn.line((340, 140, 310, 170), "#ddd", 30)
    drawn.polygon([(322, 180), (300, 158), (262, 178), (240, 240), (302, 218)], "#333", "white", 3)
    label(picture, "redraw", (SIDE - 20, SIDE - 20), TEXT, "rs")
    return picture


PICTURES = {
    "upscale_image": image,
    "upscale_video": video,
    "upscale_seamless_texture": seamless_texture,
    "upscale_with_mask": with_mask,
    "restore_then_upscale": restore,
    "upscale_hires_fix": hires_fix,
}


def thumbnails(
    sample: Annotated[Path, typer.Option(help="The picture, 600x400.")] = SAMPLE,
    folder: Annotated[Path, typer.Option(help="Where they go.")] = ROOT / "example_workflows",
) -> None:
    """Make the six pictures."""
    pixels = np.asarray(Image.open(sample).convert("RGB"))
    for name, picture in PICTURES.items():
        picture(pixels).save(folder / f"{name}.jpg", quality=QUALITY, optimize=True)


if __name__ == "__main__":
    typer.run(thumbnails)
