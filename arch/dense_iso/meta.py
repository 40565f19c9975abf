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
from .config import RGB, DenseIsoViTConfig, HeadLayer

META_KEY = "MetaDenseIsoViT"
VERSION = 1
MOST_BYTES = 2**16
MOST_LAYERS = 512
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
    if not isinstance(buffer, Tensor):
        raise ModelLoadError(f"{META_KEY} is a {type(buffer).__name__}, not a tensor of bytes")
    strided = buffer.layout == torch.strided and not buffer.is_meta
    if not strided or buffer.ndim != 1 or not 0 < buffer.numel() <= MOST_BYTES:
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
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ModelLoadError(f"{META_KEY} holds no configuration known here: {error}") from error


def _config(fields: dict[str, Any]) -> DenseIsoViTConfig:
    known = {field.name for field in dataclasses.fields(DenseIsoViTConfig)}
    if unknown := set(fields) - known:
        raise ValueError(f"unknown fields {', '.join(sorted(unknown))}")
    if missing := known - set(fields):
        raise ValueError(f"missing fields {', '.join(sorted(missing))}")
    _check_types(fields, dataclasses.asdict(DenseIsoViTConfig()))
    for layer in fields["head"]:
        _check_types(layer, dataclasses.asdict(HeadLayer(channels=RGB)))
    layers = len(fields["head"]) + sum(fields["depths"])
    if not layers <= MOST_LAYERS:
        raise ValueError(f"{layers} blocks and convolutions")
    fields = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return DenseIsoViTConfig(**{**fields, "head": tuple(HeadLayer(**h) for h in fields["head"])})


def _check_types(fields: dict[str, Any], example: dict[str, Any]) -> None:
    """Python takes 2.0 and True for numbers of heads, and "false" for true."""
    for name, value in fields.items():
        expected = example[name]
        several = isinstance(expected, tuple)
        if several and not isinstance(value, list):
            raise ValueError(f"{name} is no list: {value!r:.100}")
        kind = type(expected[0] if several else expected)
        if kind is float:
            float(value)  # an integer may be too large
        allowed = (int, float) if kind is float else (kind,)
        if wrong := [item for item in (value if several else [value]) if type(item) not in allowed]:
            raise ValueError(f"{name} is no {kind.__name__}: {wrong[0]!r:.100}")
