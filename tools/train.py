"""Trains a small FDAT or Dense-Iso-ViT on a folder of pictures; made the bundled checkpoints.

    python -m tools.train PICTURES OUTPUT.safetensors --scale 2 --steps 20000
    python -m tools.train PICTURES OUTPUT.safetensors --architecture dense-iso --scale 4 --patch 64

Clean bicubic degradation, L1, AdamW with cosine decay, EMA of the weights. Two things make minutes
on one core enough: the network starts as bicubic interpolation (`tools.initial`), and patches on
which bicubic interpolation is worse are drawn more often (`tools.patches`). The file's
metadata records the command, the data and its licence and the loss curve; scores are added by
``python -m benchmarks.quality --record``.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from fdat_dense_iso.arch.fdat.network import FDAT
from tools.degrade import STRENGTHS, Degradation
from tools.flat import FlatPatches
from tools.initial import fdat_grown
from tools.metadata import LOSS_CURVE
from tools.networks import NETWORKS, Built
from tools.patches import Mixture, PatchSampler, Source
from tools.progress import Progress
from tools.spoilt import SpoiltPatches

REDUCTION = "made smaller (bicubic)"
SPOILING = "made blurred, noisy and compressed (JPEG, WebP)"

REPORT_EVERY = 500
"""Steps over which the loss is averaged for one point of the curve."""


def learning_rate(step: int, steps: int, peak: float, warmup: int = 200) -> float:
    """Linear warm-up, then half a cosine down to 1 % of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def build(architecture: str, scale: int, patch: int, options: dict[str, Any]) -> Built:
    """Build one of `NETWORKS`. Options that were not given are None.

    Raises typer.BadParameter for options of another architecture.
    """
    if architecture not in NETWORKS:
        raise typer.BadParameter(
            f"--architecture is one of {', '.join(NETWORKS)}, not {architecture}"
        )
    builder = NETWORKS[architecture]
    given = {name: value for name, value in options.items() if value is not None}
    if foreign := given.keys() - inspect.signature(builder).parameters.keys():
        names = ", ".join(sorted(f"--{name.replace('_', '-')}" for name in foreign))
        raise typer.BadParameter(f"{names}: not for --architecture {architecture}")
    try:
        return builder(scale, patch, **given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def continue_from(
    start: Path, model: nn.Module, command: str
) -> tuple[str, int, list[tuple[int, float]]]:
    """Load the weights of ``start`` into ``model``, to continue its training.

    A network that does not enlarge takes the last convolution of one that does by the mean over
    the pixels that a pixel becomes. Blocks and groups of an FDAT that ``start`` lacks begin by adding
    nothing.

    Returns:
        The commands of both trainings as one text, and the steps and the loss curve of the first.
    """
    with safe_open(start, "pt") as file:
        before = file.metadata()
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if before["scale"] != "1" and getattr(model.config, "scale", None) == 1:
        weights |= phases_averaged(weights, model.state_dict())
    if isinstance(model, FDAT):
        weights = fdat_grown(model, weights)
    model.load_state_dict(weights)
    steps = int(before["training_steps"])
    curve = [(step, loss) for step, loss in json.loads(before.get(LOSS_CURVE, "[]"))]
    return f"{before['training_command']}  (its save of step {steps}), then {command}", steps, curve


def phases_averaged(
    weights: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The upsampler's tensors of an FDAT with ``pixelshuffledirect`` for the network of x1."""
    names = ("upsampler.0.weight", "upsampler.0.bias")
    averaged = {name: weights[name].unflatten(0, (3, -1)).mean(1) for name in names}
    return {**averaged, "upsampler.MetaUpsample": wanted["upsampler.MetaUpsample"]}


def border_weights(side: int, scale: int, weight: float) -> torch.Tensor:
    """(side * scale, side * scale), ``weight`` for what the outermost two low pixels become, else 1;
    divided by their mean."""
    weights = torch.full((side * scale, side * scale), weight)
    weights[2 * scale : -2 * scale, 2 * scale : -2 * scale] = 1
    return weights / weights.mean()


def train(
    pictures: Annotated[Path, typer.Argument(help="Folder of pictures to train on.")],
    output: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    architecture: Annotated[str, typer.Option(help="fdat or dense-iso.")] = "fdat",
    scale: Annotated[int, typer.Option(help="Upscaling factor.")] = 2,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 20_000,
    embed_dim: Annotated[int | None, typer.Option(help="FDAT: width of the network [48].")] = None,
    num_groups: Annotated[int | None, typer.Option(help="FDAT: residual groups [2].")] = None,
    num_heads: Annotated[int | None, typer.Option(help="FDAT: attention heads [4].")] = None,
    dims: Annotated[
        str | None, typer.Option(help="Dense-Iso-ViT: width of every stage [64,72,80,88].")
    ] = None,
    hidden_ratio: Annotated[
        int | None, typer.Option(help="Dense-Iso-ViT: width of GDFN / of its stage [2].")
    ] = None,
    patch_size: Annotated[
        int | None, typer.Option(help="Dense-Iso-ViT: side of a token in pixels [4].")
    ] = None,
    features: Annotated[
        int | None, typer.Option(help="Dense-Iso-ViT: channels per pixel in the head [28].")
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            help="FDAT: pairs of blocks in a group [1]. Dense-Iso-ViT: blocks of a stage [2]."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Patches per step.")] = 8,
    patch: Annotated[
        int, typer.Option(help="Side of a low-resolution patch (Dense-Iso-ViT: the window).")
    ] = 48,
    peak_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    warmup: Annotated[int, typer.Option(help="Steps until the peak is reached.")] = 200,
    ema_decay: Annotated[
        float, typer.Option(help="Decay of the averaged weights, which are what is saved.")
    ] = 0.999,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Begin with the weights of this checkpoint, made here, of the same network or an FDAT "
            "of fewer groups or blocks."
        ),
    ] = None,
    spoilt: Annotated[
        float,
        typer.Option(help="Share of patches that are spoilt as real pictures are (tools.degrade)."),
    ] = 0.0,
    flat: Annotated[
        float, typer.Option(help="Share of flat and framed patches (tools.flat).")
    ] = 0.0,
    border_weight: Annotated[
        float, typer.Option(help="Weight of the outermost two low-resolution pixels in the loss.")
    ] = 1.0,
    cache: Annotated[
        Path | None,
        typer.Option(help="Keeps the spoilt patches [the output's name with .patches.npz]."),
    ] = None,
    spoilt_patches: Annotated[int, typer.Option(help="How many are prepared.")] = 6000,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Everything is kept here with every save; the same command goes on from there."
        ),
    ] = None,
    purpose: Annotated[str, typer.Option(help="What the model is for, for its metadata.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of weights and patches.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    bf16: Annotated[
        bool, typer.Option(help="Compute in bfloat16 where PyTorch's autocast does.")
    ] = True,
    data_licence: Annotated[
        str, typer.Option(help="Licence of the pictures, for the metadata.")
    ] = "unknown",
    save_every: Annotated[int, typer.Option(help="Steps between intermediate saves.")] = 2000,
) -> None:
    """Train a network and write its averaged weights with metadata."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    options = {
        "embed_dim": embed_dim,
        "num_groups": num_groups,
        "num_heads": num_heads,
        "dims": dims,
        "hidden_ratio": hidden_ratio,
        "patch_size": patch_size,
        "features": features,
        "depth": depth,
    }
    model, about = build(architecture, scale, patch, options)
    command, steps_before, curve = shlex.join(["python", "-m", "tools.train", *sys.argv[1:]]), 0, []
    if start is not None:
        command, steps_before, curve = continue_from(start, model, command)
    rng = np.random.default_rng(seed)
    clean = PatchSampler(pictures, scale, patch, rng)
    sources: list[tuple[float, Source]] = [(1 - spoilt - flat, clean)]
    if spoilt:
        kept = cache or output.with_suffix(".patches.npz")
        sources.append((spoilt, SpoiltPatches(clean, spoilt_patches, rng, seed, kept)))
    if flat:
        spoils = Degradation(scale, rng) if spoilt else None
        sources.append((flat, FlatPatches(scale, patch, rng, spoils)))
    sampler = Mixture(sources, rng) if len(sources) > 1 else clean
    weights = border_weights(patch, scale, border_weight)
    model.train()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    average = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(
        model.parameters(), peak_rate, betas=(0.9, 0.99), weight_decay=0.0
    )
    losses: list[float] = []
    progress = Progress(state, command, model, average, optimizer, rng)
    first = progress.load(curve, losses)
    started = time.monotonic()
    for step in range(first, steps):
        low, high = sampler.batch(batch)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak_rate, warmup)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            restored = model(low)
        loss = ((restored.float() - high).abs() * weights).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        decay = min(ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for averaged, current in zip(average.parameters(), model.parameters()):
                averaged.lerp_(current, 1 - decay)
        losses.append(loss.item())
        if (step + 1) % REPORT_EVERY == 0 or step + 1 == steps:
            elapsed = time.monotonic() - started
            curve.append((steps_before + step + 1, round(sum(losses) / len(losses), 5)))
            print(f"step {step + 1}/{steps}  L1 {curve[-1][1]:.5f}  {elapsed:.0f} s", flush=True)
            losses.clear()
        if (step + 1) % save_every == 0 or step + 1 == steps:
            metadata = {
                **about,
                "scale": str(scale),
                "training_command": command,
                "training_steps": str(steps_before + step + 1),
                "training_data": ", ".join(clean.names),
                "training_data_licence": data_licence,
                LOSS_CURVE: json.dumps(curve),
                "degradation": " and ".join([REDUCTION] * (scale > 1) + [SPOILING] * bool(spoilt)),
                "licence": "MIT",
                **({"degradation_strengths": json.dumps(asdict(STRENGTHS))} if spoilt else {}),
                **({"purpose": purpose} if purpose else {}),
            }
            save_file(average.state_dict(), output, metadata)
            progress.save(step + 1, curve, losses)


if __name__ == "__main__":
    typer.run(train)
