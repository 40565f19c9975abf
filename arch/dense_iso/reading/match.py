"""From layers of unknown names to a Dense-Iso-ViT: blocks, stages, transitions, norms, head.

Every tensor is used exactly once and every shape is checked against the rebuilt network, so what
comes out is this network or nothing. What tensors can't tell is not decided here; see `options`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ..config import DenseIsoViTConfig, HeadLayer
from .block import Block
from .chain import solve_chain
from .colours import Colours, patch_convolution, patch_linear, patch_linears, take_colours
from .evidence import Evidence, NoResemblanceError, NotDenseIsoViTError
from .find import find_blocks, order_blocks
from .layers import Checkpoint, Layer, Notes
from .norms import Norms, place_norms
from .positions import Found, position_embedding
from .stages import stagings
from .transitions import place_transitions


@dataclass
class Match:
    """A recognised network.

    Attributes:
        fields: what the tensors say about `DenseIsoViTConfig`.
        weights: tensors under this project's names, rows of qkv and halves of g_proj in the order
            of the file.
        found: (role, names in the file) for a report.
        notes: on which grounds equal shapes were told apart.
        qkv_parts: block ("stages.0.blocks.1") -> what its layers of queries, keys and values hold;
            empty in own naming.
        gate_is_first: by the names of the GDFN its first half is gated; None: they do not say.
        patch_kind: how the patch embedding is stored: "conv", "linear", or "1x1" (a convolution on
            unshuffled pixels).
        colours: mean and deviation that the file holds.
    """

    fields: dict[str, Any]
    weights: dict[str, Tensor]
    found: list[tuple[str, str]]
    notes: Notes
    qkv_parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    gate_is_first: bool | None = None
    patch_kind: str = "conv"
    colours: Colours | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Options that say how to read the file: see `options`."""

    depths: Sequence[int] | None = None
    transitions: Sequence[int] | None = None
    stage_norms: Sequence[int] | None = None
    position_layout: str = "auto"
    matrices: str = "out_in"


def match(checkpoint: Checkpoint, notes: Notes, asked: Asked) -> Match:
    """Recognise the network in ``checkpoint``.

    Args:
        checkpoint: from `read_checkpoint`.
        notes: continued with the grounds of decisions.
        asked: answers for files whose names and shapes do not tell.

    Raises:
        NotDenseIsoViTError: something does not fit.
        AmbiguousCheckpointError: it fits, but equal shapes can't be told apart.
    """
    layers = checkpoint.layers
    if sum(layer.kind == "depthwise" for layer in layers) == 0:
        raise NoResemblanceError("no depthwise 3x3 convolution, so no GDFN")
    patch = patch_convolution(layers)
    if patch is None:
        patch_linears(
            layers
        )  # the search for blocks takes long, and is in vain where there is none
    evidence = Evidence([layer.path for layer in layers], checkpoint.definition_order)
    labelled = find_blocks([layer for layer in layers if layer is not patch], evidence)
    labelled = order_blocks(labelled, evidence)
    used = {id(layer) for entry in labelled for layer in entry.block.layers} | {id(patch)}
    rest = [layer for layer in layers if id(layer) not in used]
    problems = []
    for stages, guess in stagings(labelled, rest, asked.depths):
        attempt = replace(
            evidence,
            notes=Notes([], set(evidence.notes.by_file_order), set(evidence.notes.guessed)),
        )
        attempt.notes.guessed |= {guess} if guess else set()
        try:
            result = _assemble(stages, patch, rest, attempt, asked)
        except NotDenseIsoViTError as error:
            problems.append(error)
            continue
        notes.by_file_order |= attempt.notes.by_file_order
        notes.guessed |= attempt.notes.guessed
        notes.chosen += attempt.notes.chosen
        result.notes = notes
        return result
    raise problems[0]


def _assemble(stages: list[list[Block]], patch: Layer | None, rest: list[Layer], evidence: Evidence,
              asked: Asked) -> Match:  # fmt: skip
    """Everything outside the blocks; then the whole, checked."""
    dims = tuple(stage[0].width for stage in stages)
    if any(len({(block.width, block.hidden) for block in stage}) > 1 for stage in stages):
        raise NotDenseIsoViTError(f"blocks of unequal width in one stage; widths {dims}")
    patch_kind = "conv"
    if patch is None:
        patch = patch_linear(rest, dims[0], evidence)
        used = next(layer for layer in rest if layer.keys == patch.keys)
        patch_kind = "linear" if used.weight.ndim == 2 else "1x1"
        rest = [layer for layer in rest if layer is not used]
    patch_size = patch.shape[2]
    if patch.shape[0] != dims[0] or patch.shape[2] != patch.shape[3]:
        raise NotDenseIsoViTError(
            f"patch embedding {patch} does not make tokens of the first stage's width {dims[0]}"
        )
    colours, used_layers = take_colours(rest, evidence)
    if used_layers:
        evidence.notes.chosen.append(
            f"colours shifted or scaled as {', '.join(e.name for e in used_layers)} say"
        )
    open_layers = _without(rest, used_layers)
    positions = position_embedding(
        open_layers, dims[0], asked.position_layout, evidence, certain=True
    )
    open_layers = _without(open_layers, positions[0] if positions else [])
    linears = [layer for layer in open_layers if layer.kind == "linear"]
    convolutions = [layer for layer in open_layers if layer.kind == "conv"]
    transitions = place_transitions(stages, linears, convolutions, asked.transitions, evidence)
    open_layers = _without(open_layers, [e for e in transitions if e is not None])
    if positions is None:
        positions = position_embedding(open_layers, dims[0], asked.position_layout, evidence)
        open_layers = _without(open_layers, positions[0] if positions else [])
    bare = [
        e for s in stages for b in s for e in b.roles["norm1"] + b.roles["norm2"] if e.bias is None
    ]
    if bare:
        raise NotDenseIsoViTError(
            f"norms without bias ({bare[:2]}), perhaps RMSNorms: LayerNorms with biases were "
            "expected; where they are LayerNorms, store biases of zeros beside them"
        )
    candidates = [e for e in open_layers if e.kind == "norm"]
    norms = place_norms(candidates, stages, patch, transitions, asked.stage_norms, evidence)
    head_layers = [
        e
        for e in open_layers
        if e.kind == "conv" or (e.kind == "linear" and e.weight.ndim in (2, 4))
    ]
    odd = [e for e in open_layers if e not in candidates and e not in head_layers]
    if odd:
        slopes = any(e.kind == "vector" for e in odd)
        raise NotDenseIsoViTError(
            f"tensors that this network does not have: {odd[:4]}"
            f"{' (perhaps slopes of PReLU, which it has not)' if slopes else ''}; option prefix can "
            "leave out others"
        )
    chain = solve_chain(head_layers, sum(dims), evidence)
    if isinstance(chain, str):
        raise NotDenseIsoViTError(chain)
    shuffles = math.prod(factor for _, factor in chain)
    if shuffles % patch_size:
        raise NotDenseIsoViTError(
            f"the head enlarges tokens {shuffles} times, no multiple of the patch size {patch_size}"
        )
    result = _build(stages, patch, positions, transitions, norms, chain, evidence)
    result.patch_kind, result.colours = patch_kind, colours
    result.found += [("colours", f"{e.name} {e.shape}") for e in used_layers]
    return result


def _without(layers: list[Layer], used: Sequence[Layer]) -> list[Layer]:
    return [layer for layer in layers if all(layer is not other for other in used)]


def _build(stages: list[list[Block]], patch: Layer, positions: Found | None,
           transitions: list[Layer | None], norms: Norms, chain: list[tuple[Layer, int]],
           evidence: Evidence) -> Match:  # fmt: skip
    weights: dict[str, Tensor] = {}
    found: list[tuple[str, str]] = []

    def has(name: str) -> bool:
        return any(name in block.weights for stage in stages for block in stage)

    def put(name: str, layer: Layer | None, weight: Tensor | None = None) -> None:
        if layer is None:
            return
        found.append((name, f"{layer.name} {layer.shape}"))
        weights[f"{name}.weight"] = layer.weight if weight is None else weight
        if layer.bias is not None:
            weights[f"{name}.bias"] = layer.bias

    put("patch_embedding", patch)
    put("patch_norm", norms.patch)
    if positions is not None:
        found += [("position_embedding", f"{e.name} {e.shape}") for e in positions[0]]
        weights["position_embedding"] = positions[1]
    for i, stage in enumerate(stages):
        for j, block in enumerate(stage):
            weights.update(
                {f"stages.{i}.blocks.{j}.{name}": tensor for name, tensor in block.weights.items()}
            )
            if j == 0:
                found += [
                    (
                        f"stages.{i}.blocks.{j} {role}",
                        ", ".join(f"{e.name} {e.shape}" for e in layers),
                    )
                    for role, layers in block.roles.items()
                    if layers
                ]
        put(f"stages.{i}.norm", norms.stages[i])
        if i < len(transitions):
            layer = transitions[i]
            put(f"transitions.{i}.norm_{norms.transition_place}", norms.transitions[i])
            put(f"transitions.{i}.linear", layer, None if layer is None else layer.matrix)
    put("fusion_norm", norms.fusion)
    for i, (layer, _) in enumerate(chain):
        put(
            f"head.{i}",
            layer,
            layer.weight if layer.weight.ndim == 4 else layer.weight[:, :, None, None],
        )
    patch_size = patch.shape[2]
    fields: dict[str, Any] = {
        "patch_size": patch_size,
        "dims": tuple(stage[0].width for stage in stages),
        "depths": tuple(len(stage) for stage in stages),
        "hidden": tuple(stage[0].hidden for stage in stages),
        "patch_bias": patch.bias is not None,
        "qkv_bias": has("attention.qkv.bias"),
        "projection": has("attention.projection.weight"),
        "projection_bias": has("attention.projection.bias"),
        "g_proj_bias": has("gdfn.g_proj.bias"),
        "path_bias": has("gdfn.path_1.bias"),
        "out_proj_bias": has("gdfn.out_proj.bias"),
        "layer_scale": has("layer_scale_1"),
        "patch_norm": norms.patch is not None,
        "position_embedding": positions is not None,
        "stage_norms": tuple(norm is not None for norm in norms.stages),
        "transitions": tuple(layer is not None for layer in transitions),
        "transition_bias": any(
            layer is not None and layer.bias is not None for layer in transitions
        ),
        "transition_norm": norms.transition_place if any(norms.transitions) else "none",
        "fusion_norm": norms.fusion is not None,
        "head": tuple(
            HeadLayer(
                channels=layer.shape[0],
                kernel=layer.shape[2] if layer.weight.ndim == 4 else 1,
                shuffle=factor,
                bias=layer.bias is not None,
            )
            for layer, factor in chain
        ),
    }
    if positions is not None:
        fields["window"] = math.isqrt(positions[1].shape[1]) * patch_size
    try:
        DenseIsoViTConfig(**fields)
    except ValueError as error:
        raise NotDenseIsoViTError(str(error)) from error
    _fill_biases(weights, fields)
    gates = {block.gate_is_first for stage in stages for block in stage}
    parts = {
        f"stages.{i}.blocks.{j}": b.qkv_parts
        for i, stage in enumerate(stages)
        for j, b in enumerate(stage)
    }
    return Match(
        fields, weights, found, evidence.notes, parts, gates.pop() if len(gates) == 1 else None
    )


def _fill_biases(weights: dict[str, Tensor], fields: dict[str, Any]) -> None:
    """Zeros for biases that all blocks of a stage lack, or a transition, where others have them."""
    names = (
        "attention.qkv",
        "attention.projection",
        "gdfn.g_proj",
        "gdfn.path_1",
        "gdfn.path_2",
        "gdfn.out_proj",
    )
    groups = [
        [f"stages.{i}.blocks.{j}.{name}" for j in range(depth)]
        for i, depth in enumerate(fields["depths"])
        for name in names
    ]
    for group in [
        *groups,
        *([f"transitions.{i}.linear"] for i in range(len(fields["transitions"]))),
    ]:
        kind = (
            ".linear.bias"
            if group[0].startswith("transitions")
            else f".{group[0].split('.', 4)[-1]}.bias"
        )
        elsewhere = any(name.endswith(kind) for name in weights)
        if not elsewhere or any(name + ".bias" in weights for name in group):
            continue
        for name in group:
            if name + ".weight" in weights:
                weights[name + ".bias"] = weights[name + ".weight"].new_zeros(
                    weights[name + ".weight"].shape[0]
                )
