"""From a state dict to a list of layers: prefixes, copies, weights with their biases.

Names are kept as evidence; what they mean is decided in `roles`, `body` and `head`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...errors import ModelLoadError

Path = tuple[str, ...]
Ordered = tuple[list["Layer"], bool]

MOST_TENSORS = 2000  # about 140 blocks; what follows takes longer than in proportion to them
MOST_COMPONENTS, MOST_CHARACTERS = 32, 400  # of a name, behind what all names share
MOST_NUMBERS = 4  # elements of an integer tensor that describes: a window size, a counter, a flag
LARGEST_SIDE = 2**15
REPARAMETRISED = tuple(f"weight_{end}" for end in ("g", "v", "u", "orig", "mask"))


class NotDenseIsoViTError(ModelLoadError):
    """The tensors are not those of a Dense-Iso-ViT; the message says what did not fit."""


@dataclass
class Notes:
    """What was decided and on which grounds, for tags, log and report."""

    chosen: list[str] = field(default_factory=list)  # certain: which copy, what was left out
    by_file_order: set[str] = field(default_factory=set)  # told only by the order of definition
    guessed: set[str] = field(default_factory=set)  # by alphabet or convention

    def add(self, other: Notes) -> None:
        """Take over what another attempt noted."""
        self.chosen += other.chosen
        self.by_file_order |= other.by_file_order
        self.guessed |= other.guessed


@dataclass(frozen=True, eq=False)
class Layer:
    """A weight with its bias, or a lone tensor, of the kind "linear" (also a 1x1 convolution),
    "depthwise" (3x3), "conv", "norm", "vector" (one-dimensional without bias), or "other"."""

    path: Path  # components of the module's name
    index: int  # place in the file
    kind: str
    weight: Tensor
    bias: Tensor | None
    leaf: str  # last component of the weight's name

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.weight.shape)

    @property
    def matrix(self) -> Tensor:
        """The weight of a linear layer or 1x1 convolution as (out, in)."""
        return self.weight.flatten(1)

    @property
    def may_be_turned(self) -> bool:
        """Whether it may be a parameter used as x @ W, of the shape (in, out): a square matrix that
        no module calls its weight."""
        square = self.weight.ndim == 2 and self.shape[0] == self.shape[1]
        return square and not self.leaf.endswith("weight")

    def __repr__(self) -> str:
        return f"{'.'.join(self.path)} {self.shape}"


def check_size(tensors: Mapping[Any, Tensor]) -> None:
    """Raise NotDenseIsoViTError for more or larger tensors than a plausible network has."""
    if len(tensors) > MOST_TENSORS:
        starts = [*dict.fromkeys(clipped(key).split(".", 1)[0][:40] for key in tensors)][:6]
        what = f"{len(tensors)} tensors, more than the {MOST_TENSORS} that one network may have"
        raise NotDenseIsoViTError(f"{what}; option prefix takes those of one, names start {starts}")
    if len({tensor.is_meta for tensor in tensors.values()}) > 1:
        raise NotDenseIsoViTError("some tensors are on the device meta, others hold numbers")
    for key, tensor in tensors.items():
        plain = tensor.layout is torch.strided and not tensor.is_complex()
        if not plain or not tensor.numel() > 0 or max(tensor.shape, default=1) > LARGEST_SIDE:
            what = f"{clipped(key)}, {tensor.layout}, {tensor.dtype}, {tuple(tensor.shape)}"
            raise NotDenseIsoViTError(f"{what}: no weight with sides from 1 to {LARGEST_SIDE}")


def clipped(key: str | Path) -> str:
    """A name for messages."""
    name = key if isinstance(key, str) else ".".join(key)
    return name if len(name) <= 80 else name[:80] + "..."


def read_layers(found: Mapping[str, Tensor], notes: Notes) -> Ordered:
    """The layers of one network in file order, and whether that is the order of definition."""
    tensors = {tuple(key.split(".")): tensor for key, tensor in found.items()}
    check_size(tensors)
    for path in tensors:
        if len(path) > MOST_COMPONENTS or sum(map(len, path)) > MOST_CHARACTERS:
            most = f"more than {MOST_COMPONENTS} parts or {MOST_CHARACTERS} characters"
            raise NotDenseIsoViTError(f"the name {clipped(path)} has {most}")
        if "parametrizations" in path or path[-1].endswith(REPARAMETRISED):
            what = f"{clipped(path)}: weight or spectral normalisation or pruning, no plain weight"
            raise NotDenseIsoViTError(f"{what}; remove it (torch.nn.utils) and save again")
    return _grouped(_without_numbers(tensors, notes))


def common_prefix(paths: Sequence[Path]) -> Path:
    """Longest start that all paths share."""
    first, last = min(paths), max(paths)
    length = 0
    while length < min(len(first), len(last)) and first[length] == last[length]:
        length += 1
    return first[:length]


def _without_numbers(tensors: dict[Path, Tensor], notes: Notes) -> dict[Path, Tensor]:
    """Without integers that describe rather than compute (flags, sizes, and 0, 1, 2, ... as the
    index of an embedding); vectors without sides of one around them."""
    result, described = {}, []
    for path, tensor in tensors.items():
        if tensor.is_floating_point():
            lone = tensor.ndim != 1 and tensor.numel() == max(tensor.shape, default=1)
            result[path] = tensor.reshape(-1) if lone else tensor
        elif tensor.numel() <= MOST_NUMBERS:
            described.append(path)
        else:
            usable = tensor.dtype in (torch.int64, torch.int32) and not tensor.is_meta
            indices = torch.arange(tensor.numel(), device=tensor.device)
            if not usable or (tensor.flatten() != indices).any():
                result[path] = tensor
    if described:
        names = ", ".join(map(clipped, described[:4]))
        notes.chosen.append(f"numbers that are no weights left out: {names}")
    return result


_ENDS = re.compile(r"[._]?(weight|bias|kernel|gamma|beta)$", re.IGNORECASE)
_ROLES = {
    **dict.fromkeys(("weight", "w", "g", "scale", "kernel", "gamma", "a_2"), "weight"),
    **dict.fromkeys(("bias", "b", "shift", "beta", "b_2"), "bias"),
}


def _module_and_role(path: Path) -> tuple[Path, str]:
    leaf = path[-1]
    if len(path) > 1 and leaf.lower() in _ROLES:
        return path[:-1], _ROLES[leaf.lower()]
    end = _ENDS.search(leaf)
    if end is None:
        return path, "weight"
    stem = leaf[: end.start()]
    return (*path[:-1], stem) if stem else path[:-1] or path, _ROLES[end[1].lower()]


def _grouped(tensors: dict[Path, Tensor]) -> Ordered:
    """Weights with their biases, and whether the order of the file is that of definition: modules
    register the weight before the bias, and a module's tensors follow each other. Sorted names put
    the bias first; a hash keeps neither. Without any bias the order can't be trusted."""
    parts: dict[Path, dict[str, Path]] = {}
    parents = {path[:end] for path in tensors for end in range(len(path) - 1)}
    for path in tensors:
        module, role = _module_and_role(path)
        scale = module in parents and path[-1] in ("beta", "gamma")  # of a block, as in NAFNet
        if scale or role in parts.get(module, {}):
            module, role = path, "weight"
        parts.setdefault(module, {})[role] = path
    place = {path: index for index, path in enumerate(tensors)}
    layers, in_order = [], []

    def add(path: Path, weight: Path, bias: Path | None = None) -> None:
        given = None if bias is None else tensors[bias]
        kind = _kind(tensors[weight], given)
        index = min(place[p] for p in (weight, bias) if p is not None)
        layers.append(Layer(path, index, kind, tensors[weight], given, weight[-1]))

    for module, roles in parts.items():
        paths = list(roles.values())
        weight, bias = roles.get("weight", paths[0]), roles.get("bias", paths[0])
        if weight != bias and tensors[bias].shape == tensors[weight].shape[:1]:
            add(module, weight, bias)
            in_order.append(place[weight] < place[bias])
        else:  # a lone tensor, or a weight and a bias by name, but not by shape
            for path in paths:
                add(module if len(paths) == 1 and path == roles.get("weight") else path, path)
    spans: dict[Path, list[int]] = {}
    for path, index in place.items():
        for end in range(1, len(path)):
            spans.setdefault(path[:end], []).append(index)
    contiguous = all(span[-1] - span[0] + 1 == len(span) for span in spans.values())
    ordered = bool(in_order) and all(in_order) and contiguous
    return sorted(layers, key=lambda layer: layer.index), ordered


def _kind(weight: Tensor, bias: Tensor | None) -> str:
    shape = weight.shape
    if not weight.is_floating_point():
        return "other"
    if weight.ndim == 1:
        return "vector" if bias is None else "norm"
    if weight.ndim == 2 or (weight.ndim in (3, 4) and shape[2:].numel() == 1 < min(shape[:2])):
        return "linear"
    if weight.ndim == 4 and shape[1] == 1 and shape[2:] == (3, 3):
        return "depthwise"
    if weight.ndim == 4 and shape[2] == shape[3] and min(shape) > 1:
        return "conv"
    return "other"
