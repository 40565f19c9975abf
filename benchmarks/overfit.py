"""Tests whether Dense-Iso-ViT can learn a few patches by heart.

If so, gradients reach every parameter and training works. Used by ``python -m benchmarks.dense_iso
train`` and by tests/benchmarks/test_overfit.py.

The head limits what can be learned. Without activations it is one linear map from the fusion's
``w`` channels to the 16 x 16 x 3 = 768 numbers of a token's enlarged pixels, so the residuals of
all tokens lie near a space of ``w`` dimensions. The best such space is known in closed form
(`linear_limit`); no optimiser can do better. So `narrow_network` has a wide fusion, and a head that
gets narrower as the number of pixels grows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fdat_dense_iso.arch.dense_iso.config import DenseIsoViTConfig, pixel_shuffle_head
from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT

PEAK_RATE = 1e-3
WARMUP = 0.1
"""Share of the steps in which the rate rises to its peak; then it falls to zero as half a
cosine."""
BETAS = 0.9, 0.99
EPSILON = 1e-12
"""Of AdamW. Gradients of a mean over millions of pixels are as small as 1e-9, and the usual 1e-8
would make their steps too small."""
LIMITS_FOR = 48, 192
"""Widths of the fusion to compare with: a quarter of the published one, and the published one."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
Report = Callable[[dict[str, float]], None]


@dataclass
class Overfit:
    """The results of a training.

    Attributes:
        bilinear, bicubic: PSNR in dB of interpolation on the patches; bilinear is the network's
            skip.
        limits: `linear_limit` in dB, by channels of the fusion (the network's and `LIMITS_FOR`).
        curve: step, and mse and psnr (dB) before it, for every 25th step and after the last.
        without_gradient: parameters whose gradient was zero in every step.
        not_finite: parameters with a NaN or infinity among their gradients in any step.
        not_moved: parameters that are still what they were initialised to.
        parameters, reached: numbers in the network, and those with a gradient other than zero in
            any step.
        cpu_seconds: processor time of the training.
    """

    bilinear: float
    bicubic: float
    limits: dict[int, float]
    curve: list[dict[str, float]] = field(default_factory=list)
    without_gradient: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)
    not_moved: list[str] = field(default_factory=list)
    parameters: int = 0
    reached: int = 0
    cpu_seconds: float = 0.0

    @property
    def psnr(self) -> float:
        """PSNR at the end, in dB."""
        return self.curve[-1]["psnr"]

    @property
    def factor(self) -> float:
        """Factor by which the mean squared error fell."""
        return self.curve[0]["mse"] / self.curve[-1]["mse"]


def psnr(mse: float) -> float:
    """PSNR in dB for a mean squared error of values in [0, 1]."""
    return -10 * math.log10(max(mse, 1e-12))


def narrow_network(width: float = 0.25, fusion: int = 384) -> DenseIsoViT:
    """A network with ``width`` times the published widths, and a head that gets narrower.

    It has four stages of three blocks.
    """
    dims = tuple(max(8, int(share * width) // 8 * 8) for share in (192, 256, 288, 384))
    head = pixel_shuffle_head(
        fusion_width=fusion, widths=tuple(max(3, fusion // 2**i) for i in range(2, 6))
    )
    return DenseIsoViT(DenseIsoViTConfig(dims=dims, head=head))


def linear_limit(residual: Tensor, width: int, cell: int) -> float:
    """PSNR in dB of the best linear approximation of ``residual`` (B, 3, H, W).

    Each cell of ``cell`` x ``cell`` pixels is approximated on its own by ``width`` numbers;
    singular
    values give the error. The head's kernels let a token reach into its neighbours' cells, so a
    network can get a little better than this.
    """
    cells = (
        F.pixel_unshuffle(residual.double(), cell).permute(0, 2, 3, 1).flatten(0, 2)
    )  # (cells, 3 * cell * cell)
    return psnr(float(torch.linalg.svdvals(cells)[width:].square().sum()) / residual.numel())


def overfit(
    network: DenseIsoViT, target: Tensor, steps: int, report: Report | None = None, every: int = 25
) -> Overfit:
    """Train on all of ``target`` in every step, from its bicubic reduction.

    ``target`` is (B, 3, window * scale, window * scale). The loss is the mean squared error: most
    residuals are nearly zero, where the mean absolute error is flat, and it would lose the first
    hundred steps. AdamW with one cycle of the rate, and no regularisation.
    """
    config = network.config
    image = F.interpolate(
        target, scale_factor=1 / config.scale, mode="bicubic", antialias=True
    ).clamp(0, 1)
    skip = network.skip(image)
    bicubic = F.interpolate(image, scale_factor=config.scale, mode="bicubic")
    cell, fusion = config.patch_size * config.scale, config.head[0].channels
    result = Overfit(
        bilinear=psnr(float(F.mse_loss(skip, target))),
        bicubic=psnr(float(F.mse_loss(bicubic, target))),
        limits={
            width: linear_limit(target - skip, width, cell)
            for width in sorted({*LIMITS_FOR, fusion})
        },
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )
    parameters = dict(network.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    reached = {
        name: torch.zeros_like(parameter, dtype=torch.bool)
        for name, parameter in parameters.items()
    }
    finite = dict.fromkeys(parameters, True)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=PEAK_RATE, betas=BETAS, eps=EPSILON, weight_decay=0
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, PEAK_RATE, total_steps=steps, pct_start=WARMUP, cycle_momentum=False
    )
    started = time.process_time()
    for step in range(steps + 1):
        out = network(image)
        loss = F.mse_loss(out, target)
        if step % every == 0 or step == steps:
            result.curve.append({"step": step, "mse": loss.item(), "psnr": psnr(loss.item())})
            if report:
                report(result.curve[-1])
        if step < steps:
            optimiser.zero_grad()
            loss.backward()
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    reached[name] |= parameter.grad != 0
                    finite[name] &= bool(parameter.grad.isfinite().all())
            optimiser.step()
            schedule.step()
    result.cpu_seconds = time.process_time() - started
    result.reached = sum(int(mask.sum()) for mask in reached.values())
    result.without_gradient = [name for name, mask in reached.items() if not mask.any()]
    result.not_finite = [name for name, good in finite.items() if not good]
    result.not_moved = [
        name for name, parameter in parameters.items() if torch.equal(parameter, before[name])
    ]
    return result


def read_patches(pictures: Path, count: int = 8, side: int = 256) -> Tensor:
    """``count`` patches of the pictures in a folder: (count, RGB, side, side) in [0, 1].

    The middle of each of the first ``count`` pictures, by name. If there are fewer pictures, or
    ``pictures`` is one file, several evenly placed patches of each, which may overlap.

    Raises:
        ValueError: no picture is as large as a patch.
    """
    files = sorted(pictures.iterdir()) if pictures.is_dir() else [pictures]
    images = [_pixels(file) for file in files if file.suffix.lower() in SUFFIXES]
    images = [image for image in images if min(image.shape[:2]) >= side][:count]
    if not images:
        raise ValueError(f"{pictures}: no picture of at least {side} x {side} pixels")
    each = math.ceil(count / len(images))
    patches = np.stack([patch for image in images for patch in _evenly(image, each, side)][:count])
    return torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 255


def _pixels(file: Path) -> NDArray[np.uint8]:
    """The picture as (H, W, RGB)."""
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def _evenly(image: NDArray[np.uint8], count: int, side: int) -> Iterator[NDArray[np.uint8]]:
    """``count`` squares of ``side`` pixels, evenly from border to border; for one, the middle."""
    height, width = image.shape[:2]
    rows = max(1, round(math.sqrt(count * height / width)))
    columns = math.ceil(count / rows)
    tops, lefts = (
        [round((size - side) * ((i + 0.5) / n if n == 1 else i / (n - 1))) for i in range(n)]
        for size, n in ((height, rows), (width, columns))
    )
    for top, left in list(product(tops, lefts))[:count]:
        yield image[top : top + side, left : left + side]
