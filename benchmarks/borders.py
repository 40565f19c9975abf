"""How near to the truth a model's borders are, and how a picture is best continued beyond them.

    python -m benchmarks.borders FOLDER --model models/fdat_demo_x2.safetensors
        [--model models/fdat_demo_x4.safetensors] [--pixels 8] [--page docs/exactness.md]

Pictures are reduced by MATLAB's bicubic, as in `benchmarks.quality`, then continued in several ways,
enlarged in mode exact, and cropped again. Reducing mirrors a picture beyond its border, which
favours mirroring; so the same is measured on the middle of the reduced pictures, whose borders the
reduction knew nothing of.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from spandrel import ImageModelDescriptor

from benchmarks.page import command, write_section
from benchmarks.quality import SUFFIXES
from fdat_dense_iso.arch import load_model
from fdat_dense_iso.upscale import upscale_image
from tools.bicubic import imresize
from tools.metrics import modcrop

WAYS = {
    "nothing": None,
    "{} pixels, mirrored with the outermost": "symmetric",
    "{} pixels, mirrored without it": "reflect",
    "the outermost pixel, {} times": "edge",
}
"""What follows beyond a border, and the mode of numpy.pad that makes it."""

NEAR, WIDE = 1, 4
"""Rows and columns at the border that are compared, in pixels of the input."""
CUT = slice(19, -21)
"""What is left of a reduced picture whose borders are cut off."""

Pixels = NDArray[np.float64]


def enlarged(model: ImageModelDescriptor, low: Pixels, way: str | None, pixels: int) -> Pixels:
    """(H, W, C) in [0, 1], continued by ``pixels``, enlarged and cropped."""
    margin = pixels if way else 0
    if way:
        low = np.pad(low, ((margin, margin), (margin, margin), (0, 0)), mode=way)  # type: ignore[call-overload]
    image = torch.from_numpy(low).float()[None]
    result = upscale_image(model, image, mode="exact", border="model", precision="fp32")[0]
    top = margin * model.scale
    return result.double().numpy()[top : len(result) - top, top : result.shape[1] - top]


def border_psnr(result: Pixels, truth: Pixels, width: int) -> float:
    """PSNR in dB of the colours within ``width`` pixels of the border."""
    outside = np.ones(truth.shape[:2], bool)
    outside[width:-width, width:-width] = False
    return float(-10 * np.log10(np.mean((result - truth)[outside] ** 2)))


def scores(
    model: ImageModelDescriptor, paths: list[Path], way: str | None, pixels: int, cut: bool
) -> str:
    """Means over the pictures: of the outermost rows and columns, and of `WIDE` ones."""
    found = []
    for path in paths:
        truth = modcrop(np.asarray(Image.open(path).convert("RGB")), model.scale)
        low, high = imresize(truth, 1 / model.scale) / 255, truth / 255
        if cut:
            low = low[CUT, CUT]
            inner = slice(CUT.start * model.scale, CUT.stop * model.scale)
            high = high[inner, inner]
        result = enlarged(model, low, way, pixels)
        found.append([border_psnr(result, high, n * model.scale) for n in (NEAR, WIDE)])
    near, wide = np.mean(found, axis=0)
    return f"{near:.2f}, {wide:.2f}"


def borders(
    folder: Annotated[Path, typer.Argument(help="Ground-truth pictures.")],
    model: Annotated[list[Path], typer.Option(help="Checkpoints; repeatable.")],
    pixels: Annotated[int, typer.Option(min=1, help="Input pixels beyond a border.")] = 8,
    page: Annotated[
        Path | None, typer.Option(help="Write the table into this page's `borders` section.")
    ] = None,
) -> None:
    """Print a table: what is missing of white, and PSNR at the border, by what follows beyond it."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    heads = ("white: levels off", "border row, 4 rows (dB)", "the same, cut out (dB)")
    lines = [
        "| model | continued by | " + " | ".join(heads) + " |",
        "| --- | --- | --- | --- | --- |",
    ]
    for path in model:
        loaded = load_model(path)
        for name, way in WAYS.items():
            white = enlarged(loaded, np.ones((64, 64, 3)), way, pixels)
            cells = [path.stem, name.format(pixels), f"{255 * np.abs(1 - white).max():.1f}"]
            cells += [scores(loaded, paths, way, pixels, cut) for cut in (False, True)]
            lines.append("| " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    if page:
        write_section(page, "borders", f"`{command('benchmarks.borders')}`\n\n" + "\n".join(lines))


if __name__ == "__main__":
    typer.run(borders)
