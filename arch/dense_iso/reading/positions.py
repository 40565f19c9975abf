"""The position embedding among tensors of unknown names: one vector per token of a square grid, in
any layout."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .evidence import Evidence, NotDenseIsoViTError
from .layers import Layer, words

POSITION_WORDS = {
    "pos",
    "position",
    "positions",
    "positional",
    "posemb",
    "posembed",
    "ape",
    "coords",
    "location",
}

Found = tuple[list[Layer], Tensor]  # the layers that it is made of, and the embedding (1, N, width)


def speaks_of_positions(layer: Layer, evidence: Evidence) -> bool:
    """Whether the name says so, or is that of a bare parameter, which a module's weight never
    is."""
    return evidence.use_names and bool(set(words(layer.path)) & POSITION_WORDS)


def position_embedding(layers: Sequence[Layer], width: int, layout: str, evidence: Evidence,
                       certain: bool = False) -> Found | None:  # fmt: skip
    """The embedding; None where there is none.

    Args:
        layers: all outside the blocks.
        width: of a token.
        layout: "channels_first", "channels_last" or "auto", for shapes that fit both ways.
        evidence: receives what was guessed.
        certain: leave out what could also be a linear layer, unless its name speaks of positions.

    Raises:
        NotDenseIsoViTError: several tensors could be it.
    """
    fitting = [e for e in layers if _bare(e) and _readings(e.weight, width)]
    spoken = [e for e in fitting if speaks_of_positions(e, evidence)]
    found = spoken or [e for e in fitting if e.kind == "other"]
    if not found and not certain:
        found = [e for e in fitting if not e.keys[0].endswith("weight")] or fitting
    if len(found) == 2 and (both := _of_rows_and_columns(found, width, layout, evidence)):
        return both
    if len(found) > 1:
        raise NotDenseIsoViTError(f"{len(found)} position embeddings: {found[:4]}, expected one")
    if found:
        return found, _read(found[0], found[0].weight, width, layout, evidence)
    return _of_rows_and_columns(layers, width, layout, evidence)


def _bare(layer: Layer) -> bool:
    """Whether it may be a parameter of its own, not one of a linear layer or convolution."""
    other = layer.kind == "other" or (layer.kind == "linear" and layer.weight.ndim == 2)
    return layer.bias is None and layer.weight.is_floating_point() and other


def _readings(tensor: Tensor, width: int) -> dict[str, Tensor]:
    """The tensor as (N, width), by the layouts that fit."""
    shape = [side for side in tensor.shape if side > 1]
    tensor = tensor.reshape(shape)
    found: dict[str, Tensor] = {}
    if len(shape) == 2 and shape[1] == width and _is_square(shape[0]):
        found["channels_last"] = tensor
    if len(shape) == 2 and shape[0] == width and _is_square(shape[1]):
        found["channels_first"] = tensor.T
    if len(shape) == 3 and shape[2] == width and shape[0] == shape[1]:
        found["channels_last"] = tensor.flatten(0, 1)
    if len(shape) == 3 and shape[0] == width and shape[1] == shape[2]:
        found["channels_first"] = tensor.flatten(1).T
    return found


def _is_square(number: int) -> bool:
    return number > 1 and math.isqrt(number) ** 2 == number


def _read(layer: Layer, tensor: Tensor, width: int, layout: str, evidence: Evidence) -> Tensor:
    found = _readings(tensor, width)
    if len(found) > 1 and layout == "auto":
        layout = "channels_first" if sum(side > 1 for side in tensor.shape) > 2 else "channels_last"
        evidence.notes.guessed.add(
            f"{layout.replace('_', ' ')} in {layer} (option position_layout)"
        )
    return found.get(layout, next(iter(found.values())))[None]


def _of_rows_and_columns(
    layers: Sequence[Layer], width: int, layout: str, evidence: Evidence
) -> Found | None:
    """The sum of one embedding for rows and one for columns, as (1, C, g, 1) and (1, C, 1, g) or
    channels last."""
    lone = [e for e in layers if _bare(e) and e.weight.ndim > 2]
    for first, second in itertools.combinations(lone, 2):
        one, other = first.shape, second.shape
        if (
            len(one) != len(other)
            or one == other
            or any(a != b and 1 not in (a, b) for a, b in zip(one, other))
        ):
            continue
        shape = torch.broadcast_shapes(one, other)
        if torch.Size(shape).numel() > max(first.weight.numel(), second.weight.numel()):
            total = first.weight + second.weight
            if _readings(total, width):
                return [first, second], _read(first, total, width, layout, evidence)
    return None
