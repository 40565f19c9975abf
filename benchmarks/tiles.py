"""How far tiles are from the whole picture, for networks that take statistics over all of it.

    python -m benchmarks.tiles FOLDER_OR_PICTURE ... --model DAT_light_x4.pth --model RCAN

A model is a checkpoint, or the name of one of `RANDOM`, which has random weights (and so gates and
attentions that are stronger than trained ones). Pictures go in as they are. Beside tiles of every
size stands the generic form of an exact mode, for networks whose statistics are averages by
``AdaptiveAvgPool2d(1)``: in a first pass every tile has its own averages; in each further one, all
tiles have the whole picture's averages of the pass before. The n-th average is right after the n-th
pass, since it depends on those before it; how soon all are right enough is what is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from spandrel import ImageModelDescriptor
from spandrel.architectures.HAT import HAT
from spandrel.architectures.NAFNet import NAFNet
from spandrel.architectures.RCAN import RCAN
from torch import Tensor, nn

from benchmarks.exactness import Comparison, difference, levels, pictures_of, report, sizes
from benchmarks.quality import read_picture
from fdat_dense_iso.arch import load_model
from fdat_dense_iso.arch.more import MEMBERS
from fdat_dense_iso.common.tiling import AxisPlan, plan_grid
from fdat_dense_iso.upscale import upscale_image

OVERLAP = 32
GRANULE = 16
"""Pictures are cut to multiples of this, so that no network pads them."""


def random_nafnet() -> nn.Module:
    """As published for SIDD, width 32. What scales its blocks starts at 0, and is drawn here."""
    network = NAFNet(
        width=32, middle_blk_num=12, enc_blk_nums=[2, 2, 4, 8], dec_blk_nums=[2, 2, 2, 2]
    )
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            parameter.data.normal_(0, 0.2)
    return network


RANDOM: dict[str, Callable[[], nn.Module]] = {
    "RCAN": lambda: RCAN(scale=2, n_resgroups=3, n_resblocks=6, n_feats=64),
    "HAT": lambda: HAT(
        upscale=2, embed_dim=48, depths=(3, 3), num_heads=(4, 4), window_size=16, upsampler="pixelshuffle",
        compress_ratio=3, squeeze_factor=30, overlap_ratio=0.5, resi_connection="1conv", mlp_ratio=2,
    ),
    "NAFNet": random_nafnet,
} | {
    member.title: lambda member=member: member().build(member.examples[0]) for member in MEMBERS
}  # fmt: skip
app = typer.Typer(add_completion=False)


def named(model: str) -> ImageModelDescriptor:
    """A checkpoint, or a network of `RANDOM` by its name."""
    if model not in RANDOM:
        return load_model(model)
    torch.manual_seed(0)
    network = RANDOM[model]()
    options = next((one.example_options for one in MEMBERS if one.title == model), {})
    return load_model(network.state_dict(), **options)


def pools(model: ImageModelDescriptor) -> list[nn.AdaptiveAvgPool2d]:
    """What takes averages over the whole picture, as far as it can be seen from outside."""
    parts = model.model.modules()
    return [one for one in parts if isinstance(one, nn.AdaptiveAvgPool2d) and one.output_size == 1]


class Averages:
    """The averages of a network over tiles, and those that it is given instead."""

    def __init__(self, model: ImageModelDescriptor) -> None:
        self.sums: dict[nn.Module, Tensor] = {}
        self.given: dict[nn.Module, Tensor] = {}
        self.core: tuple[float, float, float, float] = (0, 1, 0, 1)
        self.share = 0.0
        self.hooks = [one.register_forward_hook(self._seen) for one in pools(model)]

    def _seen(self, pool: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
        x = inputs[0]
        top, bottom, left, right = self.core
        rows = slice(round(top * x.shape[2]), round(bottom * x.shape[2]))
        columns = slice(round(left * x.shape[3]), round(right * x.shape[3]))
        mean = x[:, :, rows, columns].mean((2, 3), keepdim=True) * self.share
        self.sums[pool] = self.sums.get(pool, 0) + mean
        return self.given.get(pool)


def in_passes(model: ImageModelDescriptor, image: Tensor, tile: int, passes: int) -> list[Tensor]:
    """The result of each pass, for (1, C, H, W)."""
    grid = plan_grid(*image.shape[2:], tile, OVERLAP, GRANULE)
    averages, results, scale = Averages(model), [], model.scale
    for _ in range(passes):
        averages.sums = {}
        result = image.new_empty(1, model.output_channels, *(n * scale for n in image.shape[2:]))
        for number in range(len(grid)):
            rows, columns = grid.window(number)
            inner = [
                middle(axis, index)
                for axis, index in zip((grid.rows, grid.columns), grid.index(number))
            ]
            heights, widths = rows.stop - rows.start, columns.stop - columns.start
            (top, bottom), (left, right) = inner
            averages.core = (
                (top - rows.start) / heights, (bottom - rows.start) / heights,
                (left - columns.start) / widths, (right - columns.start) / widths,
            )  # fmt: skip
            averages.share = (bottom - top) * (right - left) / image[0, 0].numel()
            made = model(image[:, :, rows, columns])
            result[:, :, top * scale : bottom * scale, left * scale : right * scale] = made[
                :,
                :,
                (top - rows.start) * scale : (bottom - rows.start) * scale,
                (left - columns.start) * scale : (right - columns.start) * scale,
            ]
        results.append(result)
        averages.given = averages.sums
    for hook in averages.hooks:
        hook.remove()
    return results


def middle(axis: AxisPlan, index: int) -> tuple[int, int]:
    """The pixels that are taken from a tile: up to the middle of what it shares with others."""
    begin, end = axis.starts[index], axis.starts[index] + axis.size
    if index:
        begin = (axis.starts[index - 1] + axis.size + begin) // 2 // GRANULE * GRANULE
    if index + 1 < len(axis.starts):
        end = (axis.starts[index + 1] + end) // 2 // GRANULE * GRANULE
    return begin, end


Results = dict[tuple[int, int], Comparison]
"""By the size of tiles, and by the pass; 0: ordinary tiles, which overlap and are blended."""


def compared(
    model: ImageModelDescriptor, image: Tensor, sides: list[int], passes: int, into: Results
) -> None:
    """Add one picture (1, H, W, C) to the comparisons with its whole result."""

    def upscaled(**options: Any) -> NDArray[np.float32]:
        return upscale_image(model, image, precision="fp32", border="model", **options)[0].numpy()

    def compare(key: tuple[int, int], result: NDArray[np.float32]) -> None:
        decibels, largest = difference(result, whole)
        one = into.setdefault(key, Comparison())
        one.to_reference.append(decibels)
        one.largest = max(one.largest, largest)

    whole = upscaled(mode="whole")
    for side in sides:
        if side >= max(image.shape[1:3]):
            continue  # one tile would hold the whole picture
        compare((side, 0), upscaled(mode="tile", tile=side, overlap=OVERLAP))
        if passes > 1 and pools(model):
            with torch.inference_mode():
                made = in_passes(model, image.movedim(-1, 1), side, passes)
            for number, result in enumerate(made[1:], 2):
                compare((side, number), result[0].movedim(0, -1).clamp(0, 1).numpy())


@app.command()
def tiles(
    places: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    model: Annotated[list[str], typer.Option(help="A checkpoint, or a name of `RANDOM`.")],
    tiles: Annotated[str, typer.Option(help="Sizes of the tiles.")] = "256,512",
    passes: Annotated[int, typer.Option(help="Of the generic form; 0: leave it out.")] = 2,
    limit: Annotated[int, typer.Option(help="Cut pictures to this side; 0: do not.")] = 0,
    page: Annotated[Path | None, typer.Option(help="Write the table into this page.")] = None,
) -> None:
    """Tiles, and tiles in several passes, against the whole picture, in levels of 255."""
    lines = [
        "| network | tiles | pictures | PSNR to whole: mean | least | largest, levels |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in model:
        loaded, results = named(one), Results()
        for path in pictures_of(places):
            pixels = read_picture(path)
            pixels = np.stack([pixels] * 3, 2) if pixels.ndim == 2 else pixels
            high, wide = (min(n, limit or n) // GRANULE * GRANULE for n in pixels.shape[:2])
            image = torch.from_numpy(pixels[:high, :wide].copy()).float()[None] / 255
            compared(loaded, image, sizes(tiles), passes, results)
        name = Path(one).stem + " (random)" * (one in RANDOM)
        for (side, number), found in results.items():
            finite = [value for value in found.to_reference if np.isfinite(value)] or [np.inf]
            what = f"{side}" + (f", pass {number} of {len(pools(loaded))}" if number else "")
            lines.append(
                f"| {name} | {what} | {len(found.to_reference)} | {np.mean(finite):.1f} | "
                f"{np.min(finite):.1f} | {levels(found.largest)} |"
            )
    report(page, "tiles", lines)


if __name__ == "__main__":
    app()
