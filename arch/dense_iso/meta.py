"""The configuration as a buffer of the network, because the weights alone can't tell all of it.

Head counts, activations, eps, value range and the like are not visible in any weight. A file's
metadata could hold them, but most loaders (ComfyUI's own among them) pass on tensors only. So the
network has a buffer ``MetaDenseIsoViT``: uint8, the bytes of a JSON object ``{"version": 1,
"config": {...}}`` with every field of `DenseIsoViTConfig`. It is part of every saved state dict.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelLoadError
from .config import DenseIsoViTConfig, HeadLayer

META_KEY = "MetaDenseIsoViT"
VERSION = 1
MOST_BYTES = 2**16
MOST_LAYERS = 4096
"""Most blocks and convolutions: a buffer that names more is damaged, and no network is built."""


def encode(config: DenseIsoViTConfig) -> Tensor:
    """The buffer (bytes,) uint8 for a configuration, on the CPU."""
    content = {"version": VERSION, "config": dataclasses.asdict(config)}
    text = json.dumps(content, separators=(",", ":"))
    return torch.tensor(list(text.encode()), dtype=torch.uint8, device="cpu")


def decode(buffer: Tensor) -> DenseIsoViTConfig:
    """The configuration in a buffer, which may have been cast together with the weights.

    Raises:
        ModelLoadError: it is damaged, or of a version that is not known here.
    """
    if buffer.ndim != 1 or not 0 < buffer.numel() <= MOST_BYTES or buffer.is_meta:
        raise ModelLoadError(
            f"{META_KEY} has the shape {tuple(buffer.shape)}; 1 to {MOST_BYTES} bytes were expected: "
            "the checkpoint is damaged"
        )
    try:
        numbers = [round(number) for number in buffer.to(torch.float64).tolist()]
        content = json.loads(bytes(numbers).decode())
        version = content["version"]
    except (ValueError, OverflowError, KeyError, TypeError, RecursionError) as error:
        raise ModelLoadError(f"{META_KEY} holds no JSON of a version: {error}") from error
    if version != VERSION:
        raise ModelLoadError(
            f"{META_KEY} is of version {version!r}, and {VERSION} is known here; use a newer release "
            "of this pack"
        )
    try:
        return _config(content["config"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelLoadError(f"{META_KEY} holds no configuration known here: {error}") from error


def _config(fields: dict[str, Any]) -> DenseIsoViTConfig:
    known = {field.name for field in dataclasses.fields(DenseIsoViTConfig)}
    if unknown := set(fields) - known:
        raise ValueError(f"unknown fields {', '.join(sorted(unknown))}")
    if missing := known - set(fields):
        raise ValueError(f"missing fields {', '.join(sorted(missing))}")
    layers = len(fields["head"]) + sum(fields["depths"])
    if not layers <= MOST_LAYERS:
        raise ValueError(f"{layers} blocks and convolutions")
    fields = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return DenseIsoViTConfig(**{**fields, "head": tuple(HeadLayer(**h) for h in fields["head"])})
