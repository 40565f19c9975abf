"""What is compared: the reference, the engine and tiles; and the machine's own limit."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import fields
from unittest import mock

import torch
from spandrel.architectures.FDAT import FDAT as SpandrelFDAT
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import (
    interleaved,
)
from fdat_dense_iso.arch.fdat.architecture import InferenceFDAT
from fdat_dense_iso.arch.fdat.config import FDATConfig
from fdat_dense_iso.arch.fdat.engine.plan import Plan
from fdat_dense_iso.arch.fdat.network import FDAT
from fdat_dense_iso.arch.kernels.heap import keep_freed_memory
from fdat_dense_iso.arch.kernels.products import Product

TILE, OVERLAP = 512, 32


def strong_gates(config: FDATConfig, seed: int = 0) -> FDAT:
    """An FDAT with random weights, strong gates and sharp attention: global statistics matter.

    The weights have about unit gain.
    """
    model = InferenceFDAT(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("attn.temp"):
            parameter.copy_(2 + 6 * torch.rand(parameter.shape, generator=generator))
        elif name.endswith("attn.bias"):
            parameter.copy_(0.5 * noise)
        elif parameter.ndim == 1:
            parameter.copy_(
                0.1 * noise + (1 if ".n1.weight" in name or ".n2.weight" in name else 0)
            )
        else:
            gain = 3.0 if ".inter." in name else 0.7
            parameter.copy_(gain * noise / parameter[0].numel() ** 0.5)
    return model


def reference_of(model: FDAT) -> SpandrelFDAT:
    """spandrel's network with the same configuration and weights."""
    values = {f.name: getattr(model.config, f.name) for f in fields(model.config)}
    values["group_block_pattern"] = list(model.config.group_block_pattern)
    reference = SpandrelFDAT(**values).eval().requires_grad_(False)
    reference.load_state_dict(model.state_dict())
    return reference


def engine_run(
    model: FDAT, image: Tensor, dtype: torch.dtype, keep: bool = True, **options: object
) -> Tensor:
    """The engine's output in float32 (float64 for float64); an empty tensor without ``keep``."""
    batch, _, height, width = image.shape
    scale = model.config.scale
    plan = model.exact_engine.plan(
        batch, height, width, **{"dtype": dtype, "device": "cpu", **options}
    )
    out_dtype = torch.promote_types(dtype, torch.float32)
    shape = (batch, model.config.num_out_ch, height * scale, width * scale) if keep else (0,)
    output = torch.empty(shape, dtype=out_dtype)

    def write(top: int, rows: Tensor) -> None:
        if keep:
            output[:, :, top : top + rows.shape[2]] = rows

    model.exact_engine.run(image, plan, write)
    return output


def tiled(network: nn.Module, image: Tensor, scale: int) -> Tensor:
    """Tiles of 512 with feathered overlaps of 32, as ComfyUI's own upscale node makes them.

    The result differs from that of the whole image.
    """
    batch, _, height, width = image.shape
    output = torch.zeros(batch, 3, height * scale, width * scale)
    weights = torch.zeros_like(output)

    def starts(length: int) -> list[int]:
        return list(range(0, length - OVERLAP, TILE - OVERLAP)) if length > TILE else [0]

    for y in starts(height):
        for x in starts(width):
            part = network(image[:, :, y : y + TILE, x : x + TILE])
            mask = torch.ones_like(part)
            feather = OVERLAP * scale
            for step in range(feather):
                factor = (step + 1) / feather
                if y:
                    mask[:, :, step] *= factor
                if y + TILE < height:
                    mask[:, :, -1 - step] *= factor
                if x:
                    mask[:, :, :, step] *= factor
                if x + TILE < width:
                    mask[:, :, :, -1 - step] *= factor
            place = (
                ...,
                slice(y * scale, y * scale + part.shape[2]),
                slice(x * scale, x * scale + part.shape[3]),
            )
            output[place] += part * mask
            weights[place] += mask
    return output / weights


def product_rate(dtype: torch.dtype, clock: Callable[[], float]) -> Callable[[], float]:
    """A function that measures FLOP/s of a (8192, 512) x (512, 512) product in the engine's way."""
    x, product = (
        torch.randn(8, 1024, 512, dtype=dtype),
        Product.of(torch.randn(512, 512, dtype=dtype)),
    )

    def measure() -> float:
        keep_freed_memory()  # otherwise clearing the pages of the result would be measured, too
        return (
            2
            * x.numel()
            * 512
            / statistics.median(interleaved({"product": lambda: product(x)}, 7, clock)["product"])
        )

    return measure


def engine_flops(model: FDAT, height: int, width: int) -> int:
    """Operations of the engine's matrix products, convolutions and attention.

    Counted on the meta device, by the CPU's way: fused operators show no products.
    """
    plan = model.exact_engine.plan(1, height, width, dtype=torch.float32, device="meta")
    with mock.patch.object(Plan, "fused", False), FlopCounterMode(display=False) as counter:
        model.exact_engine.run(
            torch.empty(1, 3, height, width, device="meta"), plan, lambda top, rows: None
        )
    return counter.get_total_flops()
