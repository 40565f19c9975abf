"""One transformer block of an unknown spelling: which layer plays which role, from shapes first and
evidence second.

The shapes: two LayerNorms of width d, one or two depthwise 3x3 convolutions that make the GDFN's 2h
channels, a layer d -> 2h (or two d -> h), a layer h -> d, and attention as one of

    (3d, d) | (3d, d) (d, d) | 3 x (d, d) | 4 x (d, d) | (d, d) (2d, d) | (d, d) (2d, d) (d, d)

and perhaps two vectors of width d (layer scale). A group of layers with anything else is no block.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .evidence import ATTN_WORDS, FFN_WORDS, Evidence, known, nesting, tokens, two_branches, words
from .layers import Layer, NotDenseIsoViTError, Path, common_prefix

LETTER_WORDS = {
    "q": known("q query queries wq toq qproj qlin qw qlinear"),
    "k": known("k key keys wk tok kproj klin kw klinear"),
    "v": known("v value values val wv tov vproj vlin vw vlinear"),
}
FUSED_WORD = re.compile(r"(?:to|w|c|in|fc)?([qkv]{2,3})(?:proj|lin|linear|layer|fc|w)?")
GATE_WORDS = known("gate gated gating gelu act activation")
VALUE_WORDS = known("value val content main linear lin signal data feat feature features info")
IN_WORDS = known("in input up expand lift inner")
OUT_WORDS = known("out output down contract squeeze shrink drop")
MOST_LAYERS = 14
NAMES = {  # this project's, by role
    "norm1": "norm1", "qkv": "attention.qkv", "projection": "attention.projection", "norm2": "norm2",
    "g_proj": "gdfn.g_proj", "paths": "gdfn.paths", "out_proj": "gdfn.out_proj",
}  # fmt: skip
Linears = tuple[list[Layer], Layer, list[Layer]]  # into the GDFN, out of it, of attention
PATTERNS = {  # output widths of attention's layers over d, sorted
    (3,): "fused", (1, 3): "fused", (1, 1, 1): "separate", (1, 1, 1, 1): "separate", (1, 2): "pair", (1, 1, 2): "pair",
}  # fmt: skip


class NotABlock(Exception):
    """A group of layers that is no block of this network; the message says why."""


@dataclass
class Block:
    """A recognised block."""

    label: Path  # the part of its names that numbers it
    root: Path  # what all of its layers' paths start with
    width: int
    hidden: int
    qkv_parts: tuple[str, ...]  # what the layers of queries, keys and values hold: ("q", "kv")
    roles: dict[str, list[Layer]]  # several layers where this project's one is stored in parts
    gate_is_first: bool | None  # by names; None: they do not say

    @property
    def layers(self) -> list[Layer]:
        return [layer for layers in self.roles.values() for layer in layers]

    @property
    def index(self) -> int:
        return min(layer.index for layer in self.layers)

    @property
    def container(self) -> Path:
        """The label without the block's own number."""
        own = (i for i, part in enumerate(self.label) if any(map(str.isdecimal, tokens((part,)))))
        return self.label[: max(own, default=0)]


def parse_block(group: Sequence[Layer], label: Path, evidence: Evidence) -> Block:
    """Assign every layer of ``group`` its role; NotABlock: the shapes are not those of a block."""
    kinds = ("depthwise", "norm", "linear", "vector")
    depthwise, norms, linears, vectors = ([e for e in group if e.kind == kind] for kind in kinds)
    if others := [e for e in group if e.kind not in kinds]:
        raise NotABlock(f"layers that no block has: {others[:3]}")
    if len(depthwise) not in (1, 2) or len({layer.shape for layer in depthwise}) != 1:
        raise NotABlock(f"depthwise convolutions {depthwise}, expected one, or two of equal width")
    if not norms and len(vectors) > 1:
        raise NotABlock(
            f"norms without bias ({vectors[:4]}), perhaps RMSNorms; LayerNorms with biases are read, which may be zeros"
        )
    if len(norms) != 2 or norms[0].shape != norms[1].shape:
        raise NotABlock(f"norms {norms}, expected two of equal width")
    width, channels = norms[0].shape[0], depthwise[0].shape[0] * len(depthwise)
    if channels % 2:
        raise NotABlock(f"depthwise convolutions of {channels} channels, expected an even number")
    hidden = channels // 2
    odd = [e for e in vectors if e.shape != (width,) or e.leaf == "weight"]
    if odd or len(vectors) not in (0, 2):
        raise NotABlock(
            f"vectors {odd or vectors[:4]}, expected none, or two of width {width} that scale the branches; a module's "
            "weight may be a PReLU's or RMSNorm's, which this network does not have"
        )
    root = common_prefix([layer.path for layer in group])
    depth = len(root)
    expand, contract, attention = _linears(linears, depthwise, width, hidden, depth, evidence)
    branches = attention, [*expand, *depthwise, contract]
    qkv_parts, attention_roles = _attention(attention, width, depth, evidence)
    norms = two_branches(norms, *branches, depth, evidence, "norm1/norm2")
    if vectors:
        vectors = two_branches(vectors, *branches, depth, evidence, "layer scale 1/2")
    expand, paths, gate_is_first = _halves(expand, depthwise, depth, evidence)
    if " ".join(e.path[-1] for e in (*expand, *paths, contract)) == "project_in dwconv project_out":
        gate_is_first = True  # as in Restormer, where these names come from
    roles = {
        "norm1": norms[:1], **attention_roles, "norm2": norms[1:],
        "g_proj": expand, "paths": paths, "out_proj": [contract], "layer_scale": vectors,
    }  # fmt: skip
    return Block(label, root, width, hidden, qkv_parts, roles, gate_is_first)


def _linears(linears: list[Layer], depthwise: list[Layer], width: int, hidden: int, root: int,
             evidence: Evidence) -> Linears:  # fmt: skip
    """Which linear layers are the GDFN's and which are attention's."""
    shape = {layer: tuple(layer.matrix.shape) for layer in linears}
    fitting: list[Linears] = []
    expands = [[layer] for layer in linears if shape[layer] == (2 * hidden, width)]
    halves = [layer for layer in linears if shape[layer] == (hidden, width)]
    expands += [list(pair) for pair in itertools.combinations(halves, 2)]
    for expand, contract in itertools.product(expands, linears):
        if shape[contract] != (width, hidden) or contract in expand:
            continue
        rest = [layer for layer in linears if layer not in expand and layer is not contract]
        if all(shape[e][1] == width for e in rest) and _pattern(rest, width):
            fitting.append((expand, contract, rest))
    if not fitting:
        what = f"linear layers {sorted(shape.values())} do not make attention of width {width}"
        raise NotABlock(f"{what} and a GDFN of {hidden}")
    spoken = {layer: evidence.spoken(layer, root) for layer in linears}
    attention_words = ATTN_WORDS.union(*LETTER_WORDS.values(), {"kv", "tokv", "wkv"})

    def apart(parts: Linears) -> int:
        """Attention layers outside the smallest module around the GDFN's layers."""
        name = nesting if evidence.use_names else tuple
        module = common_prefix([name(e.path) for e in (*parts[0], parts[1], *depthwise)])
        return sum(name(layer.path)[: len(module)] != module for layer in parts[2])

    def feeds(layer: Layer) -> int:
        return bool(spoken[layer] & FFN_WORDS) - bool(spoken[layer] & attention_words)

    def leaves(layer: Layer) -> int:
        return bool(spoken[layer] & OUT_WORDS) - bool(spoken[layer] & IN_WORDS)

    def by_words(parts: Linears) -> int:
        """How well names fit; attention may call its projection "out" as well."""
        expand, contract, attention = parts
        score = sum(map(feeds, (*expand, contract))) - sum(map(feeds, attention))
        return score + sum(map(leaves, (contract, *attention))) - sum(map(leaves, expand))

    def by_place(parts: Linears) -> int:
        """How near the GDFN's layers stand before and after its depthwise convolutions."""
        first, last = depthwise[0].index, depthwise[-1].index
        steps = [first - e.index for e in parts[0]] + [parts[1].index - last]
        return -sum(step if step > 0 else 100 - step for step in steps)

    for score in (apart, by_words):
        fitting = [parts for parts in fitting if score(parts) == max(map(score, fitting))]
    if len(fitting) > 1 and evidence.definition_order:
        evidence.notes.by_file_order.add("attention/GDFN")
        fitting = [parts for parts in fitting if by_place(parts) == max(map(by_place, fitting))]
    if len(fitting) > 1:
        raise evidence.ambiguous(linears, "attention and GDFN")
    return fitting[0]


def _pattern(rest: Sequence[Layer], width: int) -> str | None:
    return PATTERNS.get(tuple(sorted(layer.shape[0] / width for layer in rest)))


def _letters(layer: Layer, root: int, evidence: Evidence) -> str:
    """What a name says of queries, keys and values, in its order: "q", "kv", "qkv", or ""."""

    def spelled(path: Path) -> str:
        found = ""
        for word in words(path):
            single = next((letter for letter, known in LETTER_WORDS.items() if word in known), "")
            fused = FUSED_WORD.fullmatch(word)
            found += single or (fused[1] if fused else "")
        return found

    own = layer.path[root:] if evidence.use_names else ()
    return spelled(own[-1:]) or spelled(own[-2:-1])


def _attention(layers: list[Layer], width: int, root: int,
               evidence: Evidence) -> tuple[tuple[str, ...], dict[str, list[Layer]]]:  # fmt: skip
    """What the layers hold; and the roles "qkv" (one layer, or parts) and "projection"."""
    pattern = _pattern(layers, width)
    spoken = {layer: _letters(layer, root, evidence) for layer in layers}
    layers = sorted(layers, key=lambda layer: -layer.shape[0])
    for layer, letters in spoken.items():
        expected = {3: ("qkv",), 2: ("kv",)}.get(layer.shape[0] // width, ("q", "k", "v"))
        if letters and letters not in expected:
            what = (
                f"{layer} holds {', '.join(letters)} by its name, expected {' or '.join(expected)}"
            )
            raise NotDenseIsoViTError(f"{what}: put its rows in this order and rename it")
    if pattern == "fused":
        return ("qkv",), {"qkv": layers[:1], "projection": layers[1:]}
    if pattern == "separate":
        named = {spoken[layer]: layer for layer in layers if spoken[layer]}
        if len(named) == sum(map(bool, spoken.values())) == 3:
            trio = [named[letter] for letter in "qkv"]
            rest = [layer for layer in layers if layer not in trio]
            return ("q", "k", "v"), {"qkv": trio, "projection": rest}
        if named or not evidence.definition_order:
            raise evidence.ambiguous(layers, "q, k, v and the output projection")
        ordered = evidence.by_order(layers, "q/k/v/projection")
        return ("q", "k", "v"), {"qkv": ordered[:3], "projection": ordered[3:]}
    double, *single = layers
    part = [e for e in single if spoken[e] == "q"]
    if len(part) != 1 and (any(map(spoken.get, single)) or not evidence.definition_order):
        raise evidence.ambiguous(single, "q and the output projection")
    if len(part) != 1:
        part = evidence.by_order(single, "q/projection")[:1]
    if spoken[double] != "kv":
        evidence.notes.guessed.add("q + kv, not qk + v")
    rest = [layer for layer in single if layer not in part]
    return ("q", "kv"), {"qkv": [*part, double], "projection": rest}


def _halves(expand: list[Layer], depthwise: list[Layer], root: int,
            evidence: Evidence) -> tuple[list[Layer], list[Layer], bool | None]:  # fmt: skip
    """The layers into and of both halves in their order; whether the one named as gate is first."""
    what = "the two halves of GDFN"
    gates = [e for pair in (expand, depthwise) if (e := _gate(pair, root, evidence)) is not None]
    pairs = [sorted(pair, key=lambda e: e in gates) for pair in (expand, depthwise)]
    both = len(expand) == len(depthwise) == 2
    if both and len(gates) == 2:
        return pairs[0], pairs[1], False
    if not gates:
        pairs = [evidence.in_order(pair, what) for pair in (expand, depthwise)]
    else:
        evidence.note(what)
        if evidence.definition_order:
            pairs = [sorted(pair, key=lambda e: e.index) for pair in pairs]
    if both:
        spoken = [[evidence.spoken(layer, root) for layer in pair] for pair in pairs]
        straight, crossed = (
            sum(len(one & other) for one, other in zip(spoken[0], second))
            for second in (spoken[1], spoken[1][::-1])
        )
        if gates or straight < crossed:
            raise evidence.ambiguous([*expand, *depthwise], what)
    first = {pair[0] for pair in pairs if len(pair) == 2}
    return pairs[0], pairs[1], bool(first & set(gates)) if gates else None


def _gate(pair: list[Layer], root: int, evidence: Evidence) -> Layer | None:
    """Of two layers the one that is named as the gate."""
    if len(pair) != 2:
        return None
    first, second = (evidence.spoken(layer, root) for layer in pair)
    first, second = first - second, second - first
    says_first = bool(first & GATE_WORDS or second & VALUE_WORDS)
    says_second = bool(second & GATE_WORDS or first & VALUE_WORDS)
    return None if says_first == says_second else pair[0 if says_first else 1]


def weights_of(block: Block) -> dict[str, Tensor]:
    """This project's tensors of one block, rows of qkv and halves of g_proj in the order of the
    file. Where some of the layers side by side lack a bias (as keys in BEiT), it is zeros."""
    weights: dict[str, Tensor] = {}
    for role, name in NAMES.items():
        layers = block.roles[role]
        if layers:
            whole = layers[0].kind in ("norm", "depthwise")
            weights[name + ".weight"] = torch.cat([e.weight if whole else e.matrix for e in layers])
        if given := [e.bias for e in layers if e.bias is not None]:
            zeros = [given[0].new_zeros(e.shape[0]) if e.bias is None else e.bias for e in layers]
            weights[name + ".bias"] = torch.cat(zeros)
    for name in [name for name in weights if ".paths." in name]:
        both = weights.pop(name)
        weights[name.replace("paths", "path_1")] = both[: block.hidden]
        weights[name.replace("paths", "path_2")] = both[block.hidden :]
    for number, vector in enumerate(block.roles["layer_scale"], 1):
        weights[f"layer_scale_{number}"] = vector.weight
    return weights
