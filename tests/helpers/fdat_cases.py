"""Small FDAT configurations and weights whose attention, gates and biases all matter."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from fdat_dense_iso.arch.fdat.architecture import InferenceFDAT
from fdat_dense_iso.arch.fdat.config import FDATConfig
from fdat_dense_iso.arch.fdat.network import FDAT

SMALL = FDATConfig(
    embed_dim=24, num_groups=2, depth_per_group=1, num_heads=3, mid_dim=16, ffn_expansion_ratio=1.5
)

UPSAMPLER_SCALES = [
    ("conv", 1),
    *[("pixelshuffledirect", s) for s in (1, 2, 3, 4, 8)],
    *[("pixelshuffle", s) for s in (1, 2, 3, 4, 8)],
    *[("nearest+conv", s) for s in (1, 2, 3, 4, 8)],
    *[("dysample", s) for s in (1, 2, 3, 4, 8)],
    *[("transpose+conv", s) for s in (1, 2, 3, 4)],
    *[("lda", s) for s in (1, 2, 3, 4, 8)],
    *[("pa_up", s) for s in (1, 2, 3, 4, 8)],
]


def small(upsampler: str = "pixelshuffledirect", scale: int = 2, **fields: object) -> FDATConfig:
    return replace(SMALL, upsampler_type=upsampler, scale=scale, **fields)  # type: ignore[arg-type]


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Unit-gain weights, temperatures up to 8 and strong gates, so that every path shows in the
    output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("attn.temp"):
                value = 2 + 6 * torch.rand(parameter.shape, generator=generator)
            elif name.endswith("attn.bias"):
                value = 0.5 * noise
            elif parameter.ndim == 1:  # norms and biases
                value = 0.1 * noise + (
                    1 if ".n1.weight" in name or ".n2.weight" in name or "norm" in name else 0
                )
            else:
                gain = 3.0 if ".inter." in name else 0.7
                value = gain * noise / math.sqrt(parameter[0].numel())
            parameter.copy_(value)
    return model.eval()


def random_fdat(config: FDATConfig = SMALL, seed: int = 0) -> FDAT:
    return randomise(InferenceFDAT(config), seed)  # type: ignore[return-value]
