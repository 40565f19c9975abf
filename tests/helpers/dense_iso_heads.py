"""Heads of a Dense-Iso-ViT of every kind, and small networks with them."""

from __future__ import annotations

import math

import torch
from torch import nn

from fdat_dense_iso.arch.dense_iso.config import (
    DenseIsoViTConfig,
    HeadLayer,
    pixel_shuffle_head,
)
from fdat_dense_iso.arch.dense_iso.engine.run import InferenceDenseIsoViT
from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT
from fdat_dense_iso.arch.dense_iso.reading.options import activations


def layers(*items: dict) -> tuple[HeadLayer, ...]:
    return tuple(HeadLayer(**item) for item in items)


def with_activation(head: tuple[HeadLayer, ...], name: str, place: str) -> tuple[HeadLayer, ...]:
    names = activations(head, (name,), place)
    return tuple(
        HeadLayer(**{**vars(layer), "activation": name}) for layer, name in zip(head, names)
    )


LINEAR = pixel_shuffle_head(fusion_width=16, widths=(16, 18, 17, 16))
# head, index of the first folded layer
HEADS = {
    "linear": (LINEAR, 1),
    "activation after fusion": (with_activation(LINEAR, "gelu", "fusion"), 1),
    "activations between": (with_activation(LINEAR, "relu", "between"), 4),
    "activations everywhere": (with_activation(LINEAR, "silu", "all"), None),
    "no tail": (layers({"channels": 32}, *[{"channels": 128, "shuffle": 2}] * 3, {"channels": 12, "shuffle": 2}), 1),
    "x3 and x2": (layers({"channels": 20, "kernel": 1}, {"channels": 180, "shuffle": 3},
                         {"channels": 80, "shuffle": 2, "bias": False}, {"channels": 80, "shuffle": 2},
                         {"channels": 3, "kernel": 1}), 1),
    "wide enough for Winograd": (
        with_activation(pixel_shuffle_head(fusion_width=64, widths=(64, 16, 64, 64)), "leaky_relu_0.2", "all"), None),
    "1x1 kernels": (
        layers(
            {"channels": 24, "kernel": 1, "shuffle": 2},
            {"channels": 96, "kernel": 1, "shuffle": 4},
            {"channels": 12, "shuffle": 2},
        ),
        None,
    ),
    "refinement before the tail": (
        layers({"channels": 16}, *[{"channels": 64, "shuffle": 4}] * 2, {"channels": 8}, {"channels": 3}), None),
    "one convolution": (layers({"channels": 768, "shuffle": 16}), None),
    "5x5 tail": (
        layers({"channels": 16}, *[{"channels": 256, "shuffle": 4}] * 2, {"channels": 3, "kernel": 5}), None),
}  # fmt: skip


def random_(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator) / math.sqrt(max(fan, 1))
            )
    return module.eval()


def pair(
    head: str | tuple[HeadLayer, ...], **changes: object
) -> tuple[DenseIsoViT, InferenceDenseIsoViT]:
    chosen = HEADS[head][0] if isinstance(head, str) else head
    fields = {
        "window": 16,
        "dims": (8, 12),
        "depths": (1, 2),
        "heads": (2, 3),
        "hidden": (16, 20),
        "head": chosen,
    }
    config = DenseIsoViTConfig(**{**fields, **changes})  # type: ignore[arg-type]
    plain = random_(DenseIsoViT(config)).double()
    engine = InferenceDenseIsoViT(config).double().eval()
    engine.load_state_dict(plain.state_dict())
    return plain, engine  # type: ignore[return-value]
