"""One transformer block of an unknown spelling: which layer plays which role, from shapes first and
evidence second.

The shapes: two norms of width d, one or two depthwise 3x3 convolutions that make the GDFN's 2h
channels, a layer d -> 2h (or two d -> h), a layer h -> d, and attention as one of

    (3d, d) | (3d, d) (d, d) | 3 x (d, d) | 4 x (d, d) | (d, d) (2d, d) | (d, d) (2d, d) (d, d)

and perhaps two vectors of width d (layer scale). Norms without bias are vectors too. A group of
layers with anything else is no block.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .evidence import (
    ATTENTION_WORDS,
    FEED_FORWARD_WORDS,
    GATE_WORDS,
    VALUE_WORDS,
    Evidence,
    Path,
    nesting,
    number_order,
    two_branches,
)
from .layers import Layer, common_prefix, natural_key, words

Q_WORDS = {"q", "query", "queries", "wq", "toq", "qproj", "qlin", "qw", "qlinear"}
K_WORDS = {"k", "key", "keys", "wk", "tok", "kproj", "klin", "kw", "klinear"}
V_WORDS = {"v", "value", "values", "val", "wv", "tov", "vproj", "vlin", "vw", "vlinear"}
KV_WORDS = {"kv", "vk", "wkv", "tokv", "kvproj", "keyvalue"}
NORM_WORDS = {"ln", "rms"}
SCALE_WORDS = {"ls", "scale", "gamma", "lambda", "alpha", "beta", "layerscale"}
IN_WORDS = {"in", "input", "up", "expand", "lift", "inner"}
OUT_WORDS = {"out", "output", "down", "contract", "squeeze", "shrink", "drop"}
QK_WORDS = {"qk", "kq", "wqk", "toqk", "qkproj", "querykey"}
RESTORMER = ["project_in", "dwconv", "project_out"]
MOST_LAYERS = 14


class NotABlock(Exception):
    """A group of layers that is no block of this network; the message says why."""


@dataclass
class Block:
    """A recognised block.

    Attributes:
        root: path that all of its layers share.
        width, hidden: d and h.
        qkv_parts: what the layers of queries, keys and values hold, in the order of their rows:
            ("q", "kv").
        roles: role -> layers, as found (several where this project's layer is stored in parts).
        weights: this project's names inside a block -> tensors.
        gate_is_first: by the names the first half is gated; None: they do not say.
    """

    root: Path
    width: int
    hidden: int
    qkv_parts: tuple[str, ...]
    roles: dict[str, list[Layer]]
    weights: dict[str, Tensor]
    gate_is_first: bool | None

    @property
    def layers(self) -> list[Layer]:
        return [layer for layers in self.roles.values() for layer in layers]

    @property
    def index(self) -> int:
        return min(layer.index for layer in self.layers)


@dataclass
class _Linears:
    """An assignment of a block's linear layers that fits the shapes."""

    expand: list[Layer]
    contract: Layer
    attention: list[Layer]


def parse_block(group: Sequence[Layer], root: Path, evidence: Evidence) -> Block:
    """Assign every layer of ``group`` its role.

    Raises:
        NotABlock: the shapes are not those of a block.
        AmbiguousCheckpointError: they are, but nothing tells equal shapes apart.
    """
    by_kind: dict[str, list[Layer]] = {}
    for layer in group:
        by_kind.setdefault(layer.kind, []).append(layer)
    depthwise, norms = by_kind.pop("depthwise", []), by_kind.pop("norm", [])
    linears, vectors = by_kind.pop("linear", []), by_kind.pop("vector", [])
    norms, vectors = _norms_and_scales(norms, vectors, root, evidence)
    if by_kind:
        raise NotABlock(
            f"layers that no block has: {[layer for rest in by_kind.values() for layer in rest][:3]}"
        )
    if len(depthwise) not in (1, 2) or len({layer.shape for layer in depthwise}) != 1:
        raise NotABlock(f"depthwise convolutions {depthwise}, expected one, or two of equal width")
    if len(norms) != 2 or norms[0].shape != norms[1].shape:
        raise NotABlock(f"norms {norms}, expected two of equal width")
    width, channels = norms[0].shape[0], depthwise[0].shape[0] * len(depthwise)
    if channels % 2:
        raise NotABlock(
            f"one depthwise convolution of {channels} channels, expected an even number"
        )
    hidden = channels // 2
    if len(vectors) not in (0, 2) or any(
        vector.shape not in ((width,), (1,)) for vector in vectors
    ):
        raise NotABlock(f"vectors {vectors}, expected none, or two of width {width} (layer scale)")

    parts = _linears(linears, depthwise, width, hidden, root, evidence)
    feed_forward = [*parts.expand, *depthwise, parts.contract]
    qkv_parts, attention_roles = _attention(parts.attention, width, root, evidence)
    norms = two_branches(norms, parts.attention, feed_forward, len(root), evidence, "norm1/norm2")
    if vectors:
        if vectors[0].shape != (width,):
            evidence.notes.guessed.add("single numbers in blocks as scales of the two branches")
        vectors = two_branches(
            vectors, parts.attention, feed_forward, len(root), evidence, "layer scale 1/2"
        )
    expand = _gate_last(parts.expand, evidence, "the two halves of g_proj")[0]
    depthwise, gate_is_first = _gate_last(depthwise, evidence, "path_1/path_2")
    if evidence.use_names and _crossed(expand, depthwise, len(root)):
        depthwise, gate_is_first = (
            depthwise[::-1],
            None if gate_is_first is None else not gate_is_first,
        )
    if [e.path[-1] for e in (*parts.expand, *depthwise, parts.contract)] == RESTORMER:
        gate_is_first = True  # where these names come from, the first half is gated
    roles = {
        "norm1": norms[:1],
        **attention_roles,
        "norm2": norms[1:],
        "g_proj": expand,
        "paths": depthwise,
        "out_proj": [parts.contract],
        "layer_scale": vectors,
    }
    return Block(
        root, width, hidden, qkv_parts, roles, _weights(roles, width, hidden), gate_is_first
    )


def _norms_and_scales(norms: list[Layer], vectors: list[Layer], root: Path,
                      evidence: Evidence) -> tuple[list[Layer], list[Layer]]:  # fmt: skip
    """Norms without bias look like layer scale: two vectors are norms, of four names must tell.

    Raises:
        NotABlock: they do not. Other networks have four vectors in a block, too, so this is no sign
            of a Dense-Iso-ViT.
    """
    wide = [e for e in vectors if e.shape != (1,)]
    if norms or len(wide) not in (2, 4):
        return norms, vectors
    if len(wide) == 4:
        norms = [
            e
            for e in wide
            if any("norm" in w or w in NORM_WORDS for w in words(e.path[len(root) :]))
        ]
        if not evidence.use_names or len(norms) != 2:
            scales = [e for e in wide if set(words(e.path[len(root) :])) & SCALE_WORDS]
            norms = [e for e in wide if e not in scales]
        if not evidence.use_names or len(norms) != 2:
            raise NotABlock(
                f"four vectors of which the names do not tell norms without bias from layer scale: {wide}"
            )
        wide = norms
    return wide, [e for e in vectors if e not in wide]


def _linears(linears: list[Layer], depthwise: list[Layer], width: int, hidden: int, root: Path,
             evidence: Evidence) -> _Linears:  # fmt: skip
    """Which linear layers are the GDFN's and which are attention's."""
    shape = {layer: tuple(layer.matrix.shape) for layer in linears}
    fitting = []
    expands = [[layer] for layer in linears if shape[layer] == (2 * hidden, width)]
    expands += [
        list(pair)
        for pair in itertools.combinations(linears, 2)
        if all(shape[e] == (hidden, width) for e in pair)
    ]
    for expand in expands:
        for contract in linears:
            if shape[contract] != (width, hidden) or contract in expand:
                continue
            rest = [layer for layer in linears if layer not in expand and layer is not contract]
            if all(shape[e][1] == width for e in rest) and _pattern(rest, width):
                fitting.append(_Linears(expand, contract, rest))
    if not fitting:
        raise NotABlock(
            f"linear layers {sorted(shape.values())} do not make attention of width {width} and a GDFN of {hidden}"
        )
    if len(fitting) == 1:
        return fitting[0]

    def apart(parts: _Linears) -> int:
        """Attention layers outside the smallest module around the GDFN's layers."""
        name = nesting if evidence.use_names else tuple
        module = common_prefix([name(e.path) for e in (*parts.expand, parts.contract, *depthwise)])
        return sum(name(layer.path)[: len(module)] != module for layer in parts.attention)

    def spoken(parts: _Linears) -> int:
        def count(layer: Layer, wanted: set[str]) -> int:
            return evidence.use_names and bool(set(words(layer.path[len(root) :])) & wanted)

        attention_words = ATTENTION_WORDS | Q_WORDS | K_WORDS | V_WORDS | KV_WORDS | QK_WORDS
        own = [*parts.expand, parts.contract]
        score = sum(count(e, FEED_FORWARD_WORDS) - count(e, attention_words) for e in own)
        score += count(parts.contract, OUT_WORDS) - count(parts.contract, IN_WORDS)
        score += (
            evidence.use_names and parts.contract.path[-1].lower() == "w2"
        )  # as in LLaMA: w2(act(w1 x) * w3 x)
        score += sum(count(e, IN_WORDS) - count(e, OUT_WORDS) for e in parts.expand)
        return score + sum(
            count(e, attention_words) - count(e, FEED_FORWARD_WORDS) for e in parts.attention
        )

    def fairly_spoken(parts: _Linears) -> int:
        """As `spoken`, but attention may call its projection "out" as well."""

        def direction(layer: Layer) -> int:
            found = set(words(layer.path[len(root) :])) if evidence.use_names else set()
            return bool(found & OUT_WORDS) - bool(found & IN_WORDS)

        return spoken(parts) + sum(map(direction, parts.attention))

    def in_order(parts: _Linears) -> int:
        """How far the GDFN's layers stand from just before and just after its depthwise
        convolutions."""
        first, last = depthwise[0].index, depthwise[-1].index
        between = [abs(e.index - first) + 100 * (e.index > first) for e in parts.expand]
        return (
            -sum(between) - abs(parts.contract.index - last) - 100 * (parts.contract.index < last)
        )

    best = _best(_best(fitting, apart), fairly_spoken)
    if len(best) > 1 and not _same_layers(best):
        if evidence.definition_order:
            evidence.notes.by_file_order.add("attention/GDFN")
            best = _best(best, in_order)
        else:
            best = _best(best, spoken)
            if not _same_layers(best):
                raise evidence.ambiguous(linears, "attention and GDFN")
            evidence.notes.guessed.add("the output called out is the GDFN's, not attention's")
    return best[0]


def _best(candidates: list[_Linears], score) -> list[_Linears]:
    scores = [score(parts) for parts in candidates]
    return [parts for parts, value in zip(candidates, scores) if value == max(scores)]


def _same_layers(candidates: list[_Linears]) -> bool:
    return len({(frozenset(parts.expand), parts.contract) for parts in candidates}) == 1


def _pattern(rest: Sequence[Layer], width: int) -> str | None:
    """How attention is stored, from the output widths of its layers."""
    sizes = sorted(layer.shape[0] / width for layer in rest)
    return {
        (3,): "fused",
        (1, 3): "fused",
        (1, 1, 1): "separate",
        (1, 1, 1, 1): "separate",
        (1, 2): "pair",
        (1, 1, 2): "pair",
    }.get(tuple(sizes))


def _letter(layer: Layer, root: Path) -> str | None:
    """What a name says: "q", "k", "v", "kv", "qk", "out" (a known word, but none of these), or
    nothing."""
    found = set(words(layer.path[len(root) :][-2:]))
    for letter, known in (
        ("kv", KV_WORDS),
        ("qk", QK_WORDS),
        ("q", Q_WORDS),
        ("k", K_WORDS),
        ("v", V_WORDS),
    ):
        if found & known:
            return letter
    return None


def _spelled(layer: Layer, root: Path, letters: str, evidence: Evidence) -> str:
    """``letters`` in the order in which the name of a fused layer spells them (kvq, to_vk), else as
    they are."""
    spelled = [
        word for word in words(layer.path[len(root) :][-2:]) if sorted(word) == sorted(letters)
    ]
    return spelled[-1] if spelled and evidence.use_names else letters


def _attention(layers: list[Layer], width: int, root: Path,
               evidence: Evidence) -> tuple[tuple[str, ...], dict[str, list[Layer]]]:  # fmt: skip
    """What the layers hold; and the roles "qkv" (one layer, or parts) and "projection"."""
    pattern = _pattern(layers, width)
    if pattern == "fused":
        layers = sorted(layers, key=lambda layer: -layer.shape[0])
        return (_spelled(layers[0], root, "qkv", evidence),), {
            "qkv": layers[:1],
            "projection": layers[1:],
        }
    letters = [_letter(layer, root) if evidence.use_names else None for layer in layers]
    if pattern == "separate":
        named = [
            next((e for e, letter in zip(layers, letters) if letter == wanted), None)
            for wanted in "qkv"
        ]
        known = [layer for layer in named if layer is not None]
        if len(known) == 3 and all(letters.count(wanted) == 1 for wanted in "qkv"):
            return ("q", "k", "v"), {
                "qkv": known,
                "projection": [e for e in layers if e not in known],
            }
        if any(letters):
            raise evidence.ambiguous(layers, "q, k, v and the output projection")
        ordered = _numbered_trio(layers, evidence) or evidence.in_order(layers, "q/k/v/projection")
        return ("q", "k", "v"), {"qkv": ordered[:3], "projection": ordered[3:]}
    double = next(layer for layer in layers if layer.shape[0] == 2 * width)
    single = [layer for layer in layers if layer is not double]
    second_is_v = letters[layers.index(double)] == "qk"
    wanted = "v" if second_is_v else "q"
    part = [layer for layer in single if evidence.use_names and _letter(layer, root) == wanted]
    if len(single) == 1:
        part = single
        if letters[layers.index(double)] not in ("kv", "qk"):
            evidence.notes.guessed.add("q + kv, not qk + v")
    elif len(part) != 1:
        part = evidence.by_order(single, "q/projection")[:1]
    both = _spelled(double, root, "qk" if second_is_v else "kv", evidence)
    roles = {"qkv": [double, *part] if second_is_v else [*part, double]}
    roles["projection"] = [e for e in single if e not in part]
    return (both, "v") if second_is_v else ("q", both), roles


def _numbered_trio(layers: list[Layer], evidence: Evidence) -> list[Layer] | None:
    """Three layers of a module list (q, k, v), then the one beside it; None where there is no such
    list."""
    for projection in layers if len(layers) == 4 and evidence.use_names else ():
        trio = {e.path: e for e in layers if e is not projection}
        parents = {path[:-1] for path in trio}
        numbered = number_order(list(trio), evidence.universe) if len(parents) == 1 else None
        if numbered and projection.path[:-1] not in parents:
            return [*(trio[path] for path in numbered), projection]
    return None


def _gate_last(
    layers: list[Layer], evidence: Evidence, what: str
) -> tuple[list[Layer], bool | None]:
    """Two paths in the order of their halves; and whether the one that is named as the gate stands
    first."""
    if len(layers) < 2:
        return list(layers), None
    gates = [
        layer
        for layer, other in (layers, layers[::-1])
        if evidence.use_names and set(words(layer.path)) & GATE_WORDS - set(words(other.path))
    ]
    values = [
        layer
        for layer, other in (layers, layers[::-1])
        if evidence.use_names and set(words(layer.path)) & VALUE_WORDS - set(words(other.path))
    ]
    if len(gates) != 1 and len(values) != 1:
        return evidence.in_order(layers, what), None
    gate = (
        gates[0] if len(gates) == 1 else next(layer for layer in layers if layer is not values[0])
    )
    if evidence.definition_order:
        evidence.notes.by_file_order.add(what)
        ordered = sorted(layers, key=lambda layer: layer.index)
        return ordered, ordered[0] is gate
    evidence.notes.guessed.add(what)
    return sorted(layers, key=lambda layer: (layer is gate, natural_key(layer.path))), False


def _crossed(expand: list[Layer], depthwise: list[Layer], root: int) -> bool:
    """Whether the names pair the first half's linear layer with the second half's convolution."""
    if len(expand) != 2 or len(depthwise) != 2:
        return False
    spoken = [set(words(layer.path[root:])) for layer in (*expand, *depthwise)]
    straight = len(spoken[0] & spoken[2]) + len(spoken[1] & spoken[3])
    return straight < len(spoken[0] & spoken[3]) + len(spoken[1] & spoken[2])


def _weights(roles: dict[str, list[Layer]], width: int, hidden: int) -> dict[str, Tensor]:
    """This project's tensors of one block."""
    named = {
        "norm1": roles["norm1"],
        "attention.qkv": roles["qkv"],
        "attention.projection": roles["projection"],
        "norm2": roles["norm2"],
        "gdfn.g_proj": roles["g_proj"],
        "gdfn.out_proj": roles["out_proj"],
    }
    weights: dict[str, Tensor] = {}
    for name, layers in named.items():
        if not layers:
            continue
        weights[name + ".weight"] = (
            layers[0].weight
            if layers[0].weight.ndim == 1
            else torch.cat([layer.matrix for layer in layers])
        )
        bias = _joined_bias(layers)
        if bias is not None:
            weights[name + ".bias"] = bias
    paths = roles["paths"]
    weight, bias = torch.cat([layer.weight for layer in paths]), _joined_bias(paths)
    for number, rows in ((1, slice(0, hidden)), (2, slice(hidden, None))):
        weights[f"gdfn.path_{number}.weight"] = weight[rows]
        if bias is not None:
            weights[f"gdfn.path_{number}.bias"] = bias[rows]
    for number, vector in enumerate(roles["layer_scale"], 1):
        weights[f"layer_scale_{number}"] = vector.weight.expand(width)
    return weights


def _joined_bias(layers: Sequence[Layer]) -> Tensor | None:
    """Biases one after the other; a part without one (as in BEiT's keys) has zeros."""
    given = next((layer.bias for layer in layers if layer.bias is not None), None)
    if given is None:
        return None
    return torch.cat([given.new_zeros(e.shape[0]) if e.bias is None else e.bias for e in layers])
