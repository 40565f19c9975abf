"""How this pack compares: the same pictures, other ways to enlarge them; time, memory, quality.

    python -m benchmarks.compare PICTURE [PICTURE ...] --model models/fdat_demo_x2.safetensors
        [--model DAT_light_x2.pth] [--page docs/how-it-compares.md]

Pictures are reduced by MATLAB's bicubic and enlarged again. Every model runs in ComfyUI's own way
(`tiled_scale` with tiles of 512 and 32 of overlap, as its node does; where COMFYUI_ROOT or
~/ComfyUI is a checkout whose modules import here) and in ours. Time is the median of the rounds, in
which the ways take turns; memory is the peak of the process above what it had before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from spandrel import ImageModelDescriptor

from benchmarks.measure import MIB, machine, peak_above_base
from benchmarks.page import command, write_section
from benchmarks.quality import by_model, read_picture
from benchmarks.upscale import import_tiled_scale
from fdat_dense_iso.arch import load_model
from tools.bicubic import imresize
from tools.metrics import evaluate, modcrop

Pixels = NDArray[np.uint8]
Way = Callable[[Pixels], Pixels]
TILE, OVERLAP = 512, 32  # of ComfyUI's node


def by_comfyui(model: ImageModelDescriptor, tiled_scale: Callable[..., torch.Tensor]) -> Way:
    """Upscale as ComfyUI's node does."""

    def upscale(low: Pixels) -> Pixels:
        image = torch.from_numpy(low).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            result = tiled_scale(
                image, model, TILE, TILE, OVERLAP, upscale_amount=model.scale, pbar=None
            )
        return (result[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()

    return upscale


def ways(models: dict[str, ImageModelDescriptor], scale: int) -> dict[str, Way]:
    """Every way to enlarge by ``scale``, by its name in the table."""
    found: dict[str, Way] = {"bicubic": lambda low: imresize(low, scale)}
    tiled_scale = import_tiled_scale()
    for name, model in models.items():
        if tiled_scale is not None:
            found[f"{name}, ComfyUI's node"] = by_comfyui(model, tiled_scale)
        ours = by_model(model, "auto")
        found[f"{name}, this pack"] = lambda low, ours=ours: ours(low, scale)
    return found


def compare(
    pictures: Annotated[list[Path], typer.Argument(help="Ground-truth pictures.")],
    model: Annotated[list[Path], typer.Option(help="Checkpoints of one scale; repeatable.")],
    rounds: Annotated[int, typer.Option(help="Runs of each way.")] = 3,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    page: Annotated[
        Path | None, typer.Option(help="Write the table into this page's `compared` section.")
    ] = None,
) -> None:
    """Print a table: quality, seconds and memory of every way."""
    torch.set_num_threads(threads)
    models = {path.stem: load_model(path) for path in model}
    scales = {loaded.scale for loaded in models.values()}
    if len(scales) != 1:
        raise typer.BadParameter(f"the models enlarge by {sorted(scales)}; one scale was expected")
    (scale,) = scales
    lines = ["| picture | way | PSNR / SSIM on Y | seconds | peak, MiB |", "| --- " * 5 + "|"]
    for path in pictures:
        truth = modcrop(np.atleast_3d(read_picture(path)), scale)
        low = imresize(truth, 1 / scale)
        size = f"{path.stem}, {low.shape[1]}x{low.shape[0]}"
        seconds: dict[str, list[float]] = {}
        results: dict[str, Pixels] = {}
        found = ways(models, scale)
        for _ in range(rounds):
            for name, way in found.items():
                start = time.perf_counter()
                results[name] = way(low)
                seconds.setdefault(name, []).append(time.perf_counter() - start)
        for name, way in found.items():
            peak = peak_above_base(partial(way, low)) / MIB
            psnr, ssim = evaluate(results[name], truth, scale)
            median = statistics.median(seconds[name])
            lines.append(
                f"| {size} | {name} | {psnr:.2f} / {ssim:.4f} | {median:.2f} | {peak:.0f} |"
            )
            print(lines[-1], flush=True)
    table = "\n".join([f"`{command('benchmarks.compare')}`", "", *lines, "", f"{machine()}."])
    if page:
        write_section(page, "compared", table)


if __name__ == "__main__":
    typer.run(compare)
