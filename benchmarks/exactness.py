"""Does exactness matter with trained weights? FDAT whole, exact, in tiles, with local statistics.

    MODEL=models/fdat_demo_x2.safetensors
    python -m benchmarks.exactness pictures FOLDER [FOLDER ...] --model $MODEL
    python -m benchmarks.exactness large FOLDER --model $MODEL
    python -m benchmarks.exactness heatmap PICTURE --model $MODEL --output heatmap.png

``pictures`` takes every picture reduced by the scale (as `benchmarks.quality`) and compares with
the plain network on the whole picture, and with the ground truth. ``large`` joins the pictures of a
folder to one that is 4096x3072 after the reduction, and compares with the exact mode, because the
plain network would need tens of GiB. ``--page`` writes the table into a page of the documentation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from spandrel import ImageModelDescriptor
from torch import Tensor

from benchmarks.local_statistics import with_local_statistics
from benchmarks.page import command, write_section
from benchmarks.quality import SUFFIXES, read_picture
from fdat_dense_iso.arch import load_model
from fdat_dense_iso.arch.fdat.network import FDAT
from fdat_dense_iso.upscale import upscale_image
from tools.bicubic import imresize
from tools.metrics import luma, modcrop

TILES = "64,128,256,512"
LOCAL_WINDOWS = "48,72,96,128,192,256"
BAND = 512
"""Rows that are compared at a time."""
HEAT_STEPS = 24
"""Colours of the heat map besides black."""

app = typer.Typer(add_completion=False)

Upscale = Callable[[Tensor], Tensor]
"""(1, H, W, C) -> (1, H * scale, W * scale, C), both in [0, 1]."""


def levels(difference: float) -> str:
    """Two significant digits, but all digits before the decimal point."""
    return f"{difference:.0f}" if difference >= 10 else f"{difference:.2g}"


@dataclass
class Comparison:
    """One method against a reference and the ground truth, over all pictures so far."""

    to_reference: list[float] = field(default_factory=list)  # dB
    largest: float = 0.0  # difference in levels of 255
    # dB on Y by which the method is nearer to the ground truth than the reference is
    gain: list[float] = field(default_factory=list)

    def row(self, name: str) -> str:
        """One line of the table whose head is `HEADER`."""
        finite = [value for value in self.to_reference if np.isfinite(value)]
        mean, least = (f"{f(finite):.1f}" if finite else "equal" for f in (np.mean, np.min))
        return (
            f"| {name} | {len(self.to_reference)} | {mean} | {least} | {levels(self.largest)} | "
            f"{np.mean(self.gain):+.3f} | {np.min(self.gain):+.3f} | "
            f"{sum(gain > 0 for gain in self.gain)} |"
        )


HEADER = [
    "| input pixels | pictures | PSNR to whole: mean | least | largest difference, levels "
    "| gain, dB: mean | worst | pictures with gain |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
]


def bands(height: int) -> Iterator[slice]:
    """Slices of `BAND` rows, so that large pictures are compared in little memory."""
    return (slice(top, min(top + BAND, height)) for top in range(0, height, BAND))


def difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[float, float]:
    """(PSNR, largest difference in levels) of (H, W, C) in [0, 1], not rounded to 8 bit."""
    squares, largest = 0.0, 0.0
    for rows in bands(a.shape[0]):
        error = a[rows].astype(np.float64) - b[rows]
        squares += float((error**2).sum())
        largest = max(largest, float(np.abs(error).max()))
    return (float("inf") if squares == 0 else -10 * np.log10(squares / a.size)), largest * 255


def to_truth(result: NDArray[np.float32], truth: NDArray[np.uint8], scale: int) -> float:
    """PSNR on Y of the rounded result, borders cropped, as `tools.metrics.evaluate`, in bands."""
    height, width = truth.shape[:2]
    squares = 0.0
    for rows in bands(height - 2 * scale):
        inner = slice(rows.start + scale, rows.stop + scale), slice(scale, width - scale)
        rounded = (result[inner] * 255).round().astype(np.uint8).reshape(truth[inner].shape)
        squares += float(((luma(rounded) - luma(truth[inner])) ** 2).sum())
    return 10 * np.log10(255**2 * (height - 2 * scale) * (width - 2 * scale) / squares)


def in_mode(model: ImageModelDescriptor, mode: str, tile: int | None = None) -> Upscale:
    """The model through `upscale_image` in one mode, in float32."""
    return lambda image: upscale_image(model, image, mode=mode, tile=tile, precision="fp32")


def with_local(model: ImageModelDescriptor, window: int) -> Upscale:
    """The model with statistics over windows of ``window`` input pixels, on the whole picture."""
    assert isinstance(model.model, FDAT)
    network = with_local_statistics(model.model, window)
    local = ImageModelDescriptor(
        network,
        network.state_dict(),
        architecture=model.architecture,
        purpose="SR",
        tags=[],
        supports_half=False,
        supports_bfloat16=False,
        scale=model.scale,
        input_channels=model.input_channels,
        output_channels=model.output_channels,
    )
    return in_mode(local, "whole")


def load_fdat(path: Path) -> ImageModelDescriptor:
    """Load a checkpoint. Raises typer.BadParameter where it is not an FDAT."""
    model = load_model(path)
    if not isinstance(model.model, FDAT):
        raise typer.BadParameter(
            f"{path} is a {model.architecture.name}; only FDAT has statistics of the whole image"
        )
    return model


def pictures_of(places: list[Path]) -> list[Path]:
    """The given files and the pictures of the given folders."""
    found = []
    for place in places:
        found += (
            sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES)
            if place.is_dir()
            else [place]
        )
    if not found:
        raise typer.BadParameter(
            f"no pictures in {', '.join(map(str, places))} ({', '.join(sorted(SUFFIXES))})"
        )
    return found


def sizes(text: str) -> list[int]:
    """Numbers from text, separated by commas."""
    return [int(size) for size in text.split(",") if size]


def reduced(truth: NDArray[np.uint8], scale: int) -> Tensor:
    """The picture reduced by ``scale``, as (1, H, W, C) in [0, 1]."""
    return torch.from_numpy(np.atleast_3d(imresize(truth, 1 / scale))).float()[None] / 255


def report(page: Path | None, section: str, lines: list[str]) -> None:
    """Print the table, and write it with its command into a section of ``page``."""
    print("\n".join(lines))
    if page:
        write_section(
            page, section, "\n".join([f"`{command('benchmarks.exactness')}`", "", *lines])
        )


@app.command()
def pictures(
    places: Annotated[
        list[Path], typer.Argument(help="Ground-truth pictures, or folders of them.")
    ],
    model: Annotated[Path, typer.Option(help="An FDAT checkpoint.")],
    windows: Annotated[
        str, typer.Option(help="Sides of the windows of local statistics.")
    ] = LOCAL_WINDOWS,
    page: Annotated[Path | None, typer.Option(help="Write the table into this page.")] = None,
    section: Annotated[str, typer.Option(help="Its section.")] = "pictures",
) -> None:
    """Whole pictures against tiles and local statistics."""
    loaded = load_fdat(model)
    scale = loaded.scale
    methods: dict[str, tuple[int, Upscale]] = {"exact": (0, in_mode(loaded, "exact"))}
    methods |= {f"tiles of {size}": (size, in_mode(loaded, "tile", size)) for size in sizes(TILES)}
    methods |= {
        f"statistics over {size}": (size, with_local(loaded, size)) for size in sizes(windows)
    }
    comparisons = {name: Comparison() for name in methods}
    whole, truths = in_mode(loaded, "whole"), []
    for path in pictures_of(places):
        truth = modcrop(read_picture(path), scale)
        low = reduced(truth, scale)
        reference = whole(low)[0].numpy()
        truths.append(to_truth(reference, truth, scale))
        for name, (size, upscale) in methods.items():
            if size >= max(low.shape[1:3]):
                continue  # one tile or window would hold the whole picture
            result = upscale(low)[0].numpy()
            decibels, largest = difference(result, reference)
            one = comparisons[name]
            one.to_reference.append(decibels)
            one.largest = max(one.largest, largest)
            one.gain.append(to_truth(result, truth, scale) - truths[-1])
    title = f"{model.stem}, {', '.join(place.stem for place in places)}: {len(truths)} pictures"
    lines = [f"{title}, whole {np.mean(truths):.3f} dB to the truth.", "", *HEADER]
    lines += [one.row(name) for name, one in comparisons.items() if one.gain]
    report(page, section, lines)


def sew(paths: list[Path], height: int, width: int) -> NDArray[np.uint8]:
    """Put pictures side by side at their own size until (height, width) is full.

    If they are too few, they are used again, mirrored.
    """
    canvas = np.zeros((height, width, 3), np.uint8)
    top, index = 0, 0
    while top < height:
        left, tall = 0, height - top
        row = []
        while left < width:
            picture = read_picture(paths[index % len(paths)])
            picture = np.stack([picture] * 3, 2) if picture.ndim == 2 else picture
            picture = picture[:, ::-1] if index // len(paths) % 2 else picture
            row.append((left, picture))
            left, tall, index = left + picture.shape[1], min(tall, picture.shape[0]), index + 1
        for left, picture in row:
            part = picture[:tall, : width - left]
            canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
        top += tall
    return canvas


@app.command()
def large(
    folder: Annotated[Path, typer.Argument(help="Folder of pictures to sew together.")],
    model: Annotated[Path, typer.Option(help="An FDAT checkpoint.")],
    width: Annotated[int, typer.Option(help="Width of the input.")] = 4096,
    height: Annotated[int, typer.Option(help="Height of the input.")] = 3072,
    tiles: Annotated[str, typer.Option(help="Sizes of the tiles.")] = TILES,
    windows: Annotated[
        str, typer.Option(help="Sides of the windows of local statistics; about 3 KiB per pixel.")
    ] = "",
    page: Annotated[Path | None, typer.Option(help="Write the table into this page.")] = None,
    section: Annotated[str, typer.Option(help="Its section.")] = "large",
) -> None:
    """One large picture: the exact mode against tiles and local statistics."""
    loaded = load_fdat(model)
    scale = loaded.scale
    truth = sew(pictures_of([folder]), height * scale, width * scale)
    low = reduced(truth, scale)

    def timed(upscale: Upscale) -> tuple[NDArray[np.float32], str]:
        started = time.process_time()
        result = upscale(low)[0].numpy()
        return result, f"{time.process_time() - started:.0f}"

    reference, seconds = timed(in_mode(loaded, "exact"))
    best = to_truth(reference, truth, scale)
    lines = [
        f"{model.stem}, {width}x{height} -> {width * scale}x{height * scale}, CPU seconds of "
        f"{torch.get_num_threads()} thread(s).",
        "",
        "| mode | PSNR to exact | largest difference, levels | PSNR to the truth | CPU seconds |",
        "| --- | --- | --- | --- | --- |",
        f"| exact | | | {best:.3f} | {seconds} |",
    ]
    print("\n".join(lines[2:]), flush=True)
    methods = {f"tiles of {size}": in_mode(loaded, "tile", size) for size in sizes(tiles)}
    methods |= {f"statistics over {size}": with_local(loaded, size) for size in sizes(windows)}
    for name, upscale in methods.items():
        result, seconds = timed(upscale)
        decibels, largest = difference(result, reference)
        against = to_truth(result, truth, scale)
        lines.append(f"| {name} | {decibels:.1f} | {levels(largest)} | {against:.3f} | {seconds} |")
        print(lines[-1], flush=True)
        del result
    report(page, section, lines)


def heat(levels: NDArray[np.float32], top: float) -> NDArray[np.uint8]:
    """(H, W, 3): black, red, yellow, white from 0 to ``top`` levels.

    In few steps, to leave most of the file's palette to the picture.
    """
    x = np.round(np.clip(levels / top, 0, 1)[..., None] * HEAT_STEPS) / HEAT_STEPS * 3
    return (np.clip(x - np.arange(3), 0, 1) * 255).astype(np.uint8)


@app.command()
def heatmap(
    picture: Annotated[Path, typer.Argument(help="A ground-truth picture.")],
    model: Annotated[Path, typer.Option(help="An FDAT checkpoint.")],
    output: Annotated[Path, typer.Option(help="The PNG to write.")],
    tiles: Annotated[str, typer.Option(help="Sizes of the tiles.")] = "64,128,256",
    width: Annotated[int, typer.Option(help="Width of every panel.")] = 440,
    top: Annotated[float, typer.Option(help="Levels that are white.")] = 2.0,
) -> None:
    """Show where tiles differ from the whole picture.

    For a pixel the largest difference of its colours counts; reduced panels show means of it.
    """
    loaded = load_fdat(model)
    truth = modcrop(read_picture(picture), loaded.scale)
    low = reduced(truth, loaded.scale)
    exact = in_mode(loaded, "exact")(low)[0]
    size = width, round(width * exact.shape[0] / exact.shape[1])
    panels = {
        "exact": Image.fromarray((exact * 255).round().byte().numpy()).resize(
            size, Image.Resampling.LANCZOS
        )
    }
    for tile in sizes(tiles):
        levels = (in_mode(loaded, "tile", tile)(low)[0] - exact).abs().amax(2) * 255  # (H, W)
        shown = torch.nn.functional.adaptive_avg_pool2d(levels[None, None], (size[1], size[0]))[
            0, 0
        ]
        name = f"tiles of {tile}: up to {levels.max():.1f} levels of 255, mean {levels.mean():.2f}"
        panels[name] = Image.fromarray(heat(shown.numpy(), top))
        print(name, flush=True)
    columns = 2
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * (width + 8) - 8, rows * (size[1] + 24)), "white")
    for index, (name, panel) in enumerate(panels.items()):
        left, upper = index % columns * (width + 8), index // columns * (size[1] + 24)
        ImageDraw.Draw(sheet).text((left + 4, upper + 6), name, fill="black")
        sheet.paste(panel, (left, upper + 20))
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(256).save(output, optimize=True)
    print(f"{output}: {output.stat().st_size // 1024} KiB, white is {top:g} levels or more")


if __name__ == "__main__":
    app()
