"""What a network does to its pixels first and last: the patch embedding, and the mean and deviation
of colours.

Both end up in the weights of this project's network. A patch embedding written as a linear layer
over the pixels of a patch is a convolution, and colours are normalised by linear maps in front of
it and behind the head:

    (x - mean) / std -> network -> + skip, * std + mean      =      x -> W / std, b - W mean / std ... * std -> + skip
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config import RGB
from .evidence import AmbiguousCheckpointError, Evidence, NoResemblanceError
from .layers import Layer, words

PATCH_WORDS = {
    "patch",
    "patches",
    "embed",
    "embedding",
    "embeddings",
    "embedder",
    "stem",
    "token",
    "tokens",
    "unfold",
}
MEAN_WORDS = {"mean", "means", "mu"}
DEVIATION_WORDS = {"std", "stds", "deviation", "sigma"}


@dataclass(frozen=True)
class Colours:
    """Per-channel normalisation, each (3,), in the network's value range."""

    mean: Tensor
    deviation: Tensor


def patch_convolution(layers: Sequence[Layer]) -> Layer | None:
    """The convolution from colours to tokens; None where there is none.

    Raises:
        NoResemblanceError: there are several.
    """
    convolutions = [e for e in layers if e.kind in ("conv", "linear") and e.weight.ndim == 4]
    found = [e for e in convolutions if e.shape[1] == RGB < e.shape[0]]
    if len(found) > 1:
        raise NoResemblanceError(
            f"{len(found)} convolutions from {RGB} channels ({found[:3]}), expected one, the patch embedding"
        )
    return found[0] if found else None


def patch_linears(layers: Sequence[Layer]) -> list[Layer]:
    """The linear layers (or 1x1 convolutions) that could be over the pixels of a patch, by their
    inputs.

    Raises:
        NoResemblanceError: there is none.
    """
    found = [e for e in layers if e.kind == "linear" and _patch_side(e.shape[1]) > 1]
    if not found:
        raise NoResemblanceError(
            f"0 convolutions from {RGB} channels and no linear layer from {RGB} * p * p pixels, expected the patch "
            "embedding"
        )
    return found


def patch_linear(layers: Sequence[Layer], width: int, evidence: Evidence) -> Layer:
    """The linear layer (or 1x1 convolution) over the pixels of a patch, as a convolution with its
    rows (3, p, p).

    Raises:
        NoResemblanceError: there is none.
        AmbiguousCheckpointError: there are several, and neither names nor order tell.
    """
    found = [e for e in patch_linears(layers) if e.shape[0] == width]
    if not found:
        raise NoResemblanceError(
            f"0 convolutions from {RGB} channels and no linear layer from {RGB} * p * p pixels to {width}, expected "
            "the patch embedding"
        )
    if len(found) > 1:
        spoken = [e for e in found if evidence.use_names and set(words(e.path)) & PATCH_WORDS]
        found = spoken if len(spoken) == 1 else found
    if len(found) > 1 and not evidence.definition_order:
        raise evidence.ambiguous(found, "the patch embedding")
    if len(found) > 1:
        evidence.notes.by_file_order.add("patch embedding")
    layer = min(found, key=lambda e: e.index)
    side = _patch_side(layer.shape[1])
    return replace(layer, kind="conv", weight=layer.matrix.reshape(width, RGB, side, side))


def _patch_side(pixels: int) -> int:
    """p with pixels == 3 * p * p, or 0."""
    side = math.isqrt(pixels // RGB)
    return side if pixels == RGB * side**2 else 0


def take_colours(layers: Sequence[Layer], evidence: Evidence) -> tuple[Colours | None, list[Layer]]:
    """Mean and deviation, as buffers or as 1x1 convolutions at both ends (EDSR's MeanShift), and
    the layers they use.

    Raises:
        AmbiguousCheckpointError: two 1x1 convolutions between colours that do not undo each other.
    """
    vectors = [e for e in layers if e.kind == "vector" and e.shape == (RGB,)]
    mean = [e for e in vectors if set(words(e.path)) & MEAN_WORDS]
    deviation = [e for e in vectors if set(words(e.path)) & DEVIATION_WORDS and e not in mean]
    if len(mean) <= 1 and len(deviation) <= 1 and mean + deviation:
        zero, one = torch.zeros(RGB), torch.ones(RGB)
        colours = Colours(
            mean[0].weight if mean else zero, deviation[0].weight if deviation else one
        )
        return colours, mean + deviation
    shifts = [
        e
        for e in layers
        if e.weight.ndim == 4 and e.shape == (RGB, RGB, 1, 1) and e.bias is not None
    ]
    if len(shifts) != 2:
        return None, []
    first, last = _mean_shifts(shifts, evidence)
    gain, offset = first.matrix.float().diagonal(), first.bias
    assert offset is not None
    return Colours(-offset.float() / gain, 1 / gain), [first, last]


def _mean_shifts(pair: Sequence[Layer], evidence: Evidence) -> tuple[Layer, Layer]:
    """Of two convolutions between colours the one before the network and the one behind it, which
    undoes it."""
    biases = [e.bias.float() for e in pair if e.bias is not None]
    if not any(e.weight.is_meta for e in pair):
        matrices = [e.matrix.float() for e in pair]
        identity = torch.eye(RGB)
        undone = torch.allclose(matrices[0] @ matrices[1], identity, atol=1e-3)
        undone &= torch.allclose(matrices[1] @ biases[0] + biases[1], torch.zeros(RGB), atol=1e-2)
        diagonal = all(torch.allclose(m, m.diagonal().diag()) for m in matrices)
        if not (undone and diagonal):
            raise AmbiguousCheckpointError(
                f"two 1x1 convolutions between colours, {pair[0]} and {pair[1]}, that do not undo each other: whether "
                "they stand before or behind the network can't be told; remove them from the network, or name them "
                "mean and std as buffers of three values"
            )
    subtracts = [bool(e.sum() < 0) if not e.is_meta else False for e in biases]
    if subtracts[0] == subtracts[1]:
        evidence.notes.guessed.add("which of two colour shifts comes first")
    return (pair[1], pair[0]) if subtracts[1] and not subtracts[0] else (pair[0], pair[1])
