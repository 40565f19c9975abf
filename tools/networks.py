"""The small networks that `tools.train` trains, starting as bicubic interpolation."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

from torch import nn

from fdat_dense_iso.arch.dense_iso.config import RGB, DenseIsoViTConfig, HeadLayer
from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT
from fdat_dense_iso.arch.fdat.config import FDATConfig
from fdat_dense_iso.arch.fdat.network import FDAT
from tools.dense_iso import answers_of
from tools.initial import dense_iso_as_bicubic, fdat_as_bicubic

Built = tuple[nn.Module, dict[str, str]]
"""A network and the entries of its checkpoint's metadata."""


def small_fdat(
    scale: int,
    patch: int,
    *,
    embed_dim: int = 48,
    num_groups: int = 2,
    depth: int = 1,
    num_heads: int = 4,
) -> Built:
    """A small FDAT with ``pixelshuffledirect``; ``patch`` is ignored, as any size will do."""
    config = FDATConfig(
        scale=scale,
        embed_dim=embed_dim,
        num_groups=num_groups,
        depth_per_group=depth,
        num_heads=num_heads,
        upsampler_type="pixelshuffledirect",
        drop_path_rate=0.0,
    )
    model = FDAT(config)
    fdat_as_bicubic(model)
    return model, {"architecture": "FDAT", "config": json.dumps(dataclasses.asdict(config))}


def small_dense_iso(
    scale: int,
    patch: int,
    *,
    dims: str = "64,72,80,88",
    depth: int = 2,
    hidden_ratio: int = 2,
    patch_size: int = 4,
    features: int = 28,
) -> Built:
    """A small Dense-Iso-ViT with a narrow head; ``patch`` is its window.

    The head is fusion, ``features`` channels per pixel, then enlarged pixels.
    """
    widths = tuple(map(int, dims.split(",")))
    config = DenseIsoViTConfig(
        window=patch,
        patch_size=patch_size,
        dims=widths,
        depths=(depth,),
        hidden=tuple(hidden_ratio * width for width in widths),
        head=(
            HeadLayer(channels=widths[0], kernel=3, activation="leaky_relu_0.2"),
            HeadLayer(
                channels=features * patch_size**2, shuffle=patch_size, activation="leaky_relu_0.2"
            ),
            HeadLayer(channels=RGB * scale**2, shuffle=scale),
        ),
    )
    model = DenseIsoViT(config)
    dense_iso_as_bicubic(model)
    about = {
        "architecture": "DenseIsoViT",
        "config": json.dumps(dataclasses.asdict(config)),
        **answers_of(config),
    }
    return model, about


NETWORKS: dict[str, Callable[..., Built]] = {"fdat": small_fdat, "dense-iso": small_dense_iso}
