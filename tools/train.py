"""Train a small FDAT on a folder of pictures: how the bundled demo checkpoints were made.

    python -m tools.train PICTURES OUTPUT.safetensors --scale 2 --steps 20000

Clean bicubic degradation, L1, AdamW with cosine decay, EMA of the weights. Two things make minutes on one core enough:
the network is initialised to BE bicubic interpolation (`init_as_bicubic`), and patches are drawn by how wrong bicubic
interpolation is on them (`PatchSampler`). The file's metadata records the command, the data and its licence; scores are
added by ``python -m benchmarks.quality --record``.
"""

from __future__ import annotations

import copy
import json
import math
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from arch.fdat import FDAT, FDATConfig
from tools.bicubic import cubic_kernel, imresize
from tools.metrics import modcrop

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"}


def init_as_bicubic(model: FDAT) -> None:
    """Make an untrained FDAT with ``pixelshuffledirect`` compute bicubic interpolation (away from the border).

    conv_first copies the image shifted by -1, 0, 1 in both directions, the upsampler's 3x3 kernels hold the bicubic
    taps at -2..2 (a shift of the copy plus a shift of the kernel), and conv_after is zero, so that what the blocks
    compute is added from nothing.
    """
    config = model.config
    if config.upsampler_type != "pixelshuffledirect" or config.unshuffle_mod or config.embed_dim < 9 * config.num_in_ch:
        raise ValueError("init_as_bicubic needs pixelshuffledirect, no unshuffle and embed_dim >= 9 * num_in_ch")
    channels, scale = config.num_in_ch, config.scale
    first, last = model.conv_first, model.upsampler[0]
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    with torch.no_grad():
        torch.nn.init.zeros_(model.conv_after.weight)
        first.weight[: 9 * channels] = 0
        first.bias.zero_()
        last.weight.zero_()
        last.bias.zero_()
        for index, (dy, dx) in enumerate(shifts):
            for channel in range(channels):
                first.weight[index * channels + channel, channel, 1 + dy, 1 + dx] = 1
        offsets = np.arange(-2, 3)
        taps = np.stack([cubic_kernel((i + 0.5) / scale - 0.5 - offsets) for i in range(scale)])  # (scale, 5)
        for phase_y in range(scale):
            for phase_x in range(scale):
                for y, tap_y in zip(offsets, taps[phase_y]):
                    for x, tap_x in zip(offsets, taps[phase_x]):
                        copy_y, copy_x = int(np.clip(y, -1, 1)), int(np.clip(x, -1, 1))
                        source = shifts.index((copy_y, copy_x)) * channels
                        for channel in range(channels):
                            row = channel * scale**2 + phase_y * scale + phase_x
                            last.weight[row, source + channel, 1 + y - copy_y, 1 + x - copy_x] += tap_y * tap_x


class PatchSampler:
    """Pairs of aligned patches, drawn in proportion to the error of bicubic interpolation, flipped and rotated."""

    def __init__(self, folder: Path, scale: int, patch: int, rng: np.random.Generator) -> None:
        self.scale, self.patch, self.rng = scale, patch, rng
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self.names: list[str] = []
        errors: list[float] = []
        self.corners: list[tuple[int, int, int]] = []
        for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES):
            high = modcrop(np.asarray(Image.open(path).convert("RGB")), scale)
            low = imresize(high, 1 / scale)
            error = np.abs(imresize(low, scale).astype(np.float64) - high).mean(2)
            summed = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
            side = patch * scale
            for y in range(0, low.shape[0] - patch + 1, patch // 4):
                for x in range(0, low.shape[1] - patch + 1, patch // 4):
                    top, left = y * scale, x * scale
                    total = summed[top + side, left + side] + summed[top, left]
                    errors.append(total - summed[top + side, left] - summed[top, left + side])
                    self.corners.append((len(self.pairs), y, x))
            self.pairs.append((low, high))
            self.names.append(path.name)
        if not self.corners:
            raise ValueError(f"{folder} holds no picture of at least {patch * scale} pixels a side")
        weights = np.maximum(errors, 0.0)  # the summed-area table rounds
        self.probabilities = weights / weights.sum()

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Low (B, 3, patch, patch) and high (B, 3, patch * scale, patch * scale) in [0, 1]."""
        lows, highs = [], []
        for choice in self.rng.choice(len(self.corners), size, p=self.probabilities):
            index, y, x = self.corners[choice]
            low, high = self.pairs[index]
            y = min(y + int(self.rng.integers(self.patch // 4)), low.shape[0] - self.patch)
            x = min(x + int(self.rng.integers(self.patch // 4)), low.shape[1] - self.patch)
            turns, flip = int(self.rng.integers(4)), bool(self.rng.integers(2))
            for picture, factor, patches in ((low, 1, lows), (high, self.scale, highs)):
                side = self.patch * factor
                part = picture[y * factor : y * factor + side, x * factor : x * factor + side]
                part = np.rot90(part, turns)
                patches.append((part[:, ::-1] if flip else part).transpose(2, 0, 1))
        return tuple(torch.from_numpy(np.stack(p).astype(np.float32) / 255) for p in (lows, highs))  # type: ignore[return-value]


def learning_rate(step: int, steps: int, peak: float, warmup: int = 200) -> float:
    """Linear warm-up, then half a cosine down to 1 % of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def train(
    pictures: Annotated[Path, typer.Argument(help="Folder of pictures to train on.")],
    output: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    scale: Annotated[int, typer.Option(help="Upscaling factor.")] = 2,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 20_000,
    embed_dim: Annotated[int, typer.Option(help="Width of the network.")] = 48,
    num_groups: Annotated[int, typer.Option(help="Residual groups.")] = 2,
    depth: Annotated[int, typer.Option(help="Pairs of blocks in a group.")] = 1,
    num_heads: Annotated[int, typer.Option(help="Attention heads.")] = 4,
    batch: Annotated[int, typer.Option(help="Patches per step.")] = 8,
    patch: Annotated[int, typer.Option(help="Side of a low-resolution patch in pixels.")] = 48,
    peak_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    ema_decay: Annotated[float, typer.Option(help="Decay of the averaged weights, which are what is saved.")] = 0.999,
    seed: Annotated[int, typer.Option(help="Seed of weights and patches.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    data_licence: Annotated[str, typer.Option(help="Licence of the pictures, for the metadata.")] = "unknown",
    save_every: Annotated[int, typer.Option(help="Steps between intermediate saves.")] = 2000,
) -> None:
    """Train an FDAT with pixelshuffledirect and write its averaged weights with metadata."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    sampler = PatchSampler(pictures, scale, patch, np.random.default_rng(seed))
    config = FDATConfig(
        scale=scale,
        embed_dim=embed_dim,
        num_groups=num_groups,
        depth_per_group=depth,
        num_heads=num_heads,
        upsampler_type="pixelshuffledirect",
        drop_path_rate=0.0,
    )
    model = FDAT(config).train()
    init_as_bicubic(model)
    average = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(model.parameters(), peak_rate, betas=(0.9, 0.99), weight_decay=0.0)
    started, running = time.monotonic(), 0.0
    for step in range(steps):
        low, high = sampler.batch(batch)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak_rate)
        with torch.autocast("cpu", torch.bfloat16):
            restored = model(low)
        loss = F.l1_loss(restored.float(), high)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        decay = min(ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for averaged, current in zip(average.parameters(), model.parameters()):
                averaged.lerp_(current, 1 - decay)
        running += loss.item()
        if (step + 1) % 500 == 0:
            elapsed = time.monotonic() - started
            print(f"step {step + 1}/{steps}  L1 {running / 500:.5f}  {elapsed:.0f} s", flush=True)
            running = 0.0
        if (step + 1) % save_every == 0 or step + 1 == steps:
            metadata = {
                "architecture": "FDAT",
                "scale": str(scale),
                "config": json.dumps({k: v for k, v in vars(config).items()}),
                "training_command": shlex.join(["python", "-m", "tools.train", *sys.argv[1:]]),
                "training_steps": str(step + 1),
                "training_data": ", ".join(sampler.names),
                "training_data_licence": data_licence,
                "degradation": "MATLAB-style bicubic, 8 bit",
                "licence": "MIT",
            }
            save_file(average.state_dict(), output, metadata)


if __name__ == "__main__":
    typer.run(train)
