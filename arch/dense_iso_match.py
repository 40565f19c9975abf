"""From layers of unknown names to a Dense-Iso-ViT: blocks, stages, transitions, norms, head.

Every tensor is used exactly once and every shape is checked against the rebuilt network, so what comes out is
this network or nothing. What tensors can't tell is not decided here; see `dense_iso_options`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .dense_iso_block import Block
from .dense_iso_chain import solve_chain
from .dense_iso_config import RGB, DenseIsoViTConfig, HeadLayer
from .dense_iso_evidence import Evidence, NotDenseIsoViTError
from .dense_iso_find import Labelled, find_blocks, order_blocks
from .dense_iso_norms import Norms, place_norms
from .dense_iso_read import Checkpoint, Layer, Notes


@dataclass
class Match:
    """A recognised network.

    Attributes:
        fields: what the tensors say about `DenseIsoViTConfig`.
        weights: tensors under this project's names, rows of qkv and halves of g_proj in the order of the file.
        found: (role, names in the file) for a report.
        notes: on which grounds equal shapes were told apart.
        gate_is_first: the GDFN path that is named as the gate works on the first half; None: no such name.
    """

    fields: dict[str, Any]
    weights: dict[str, Tensor]
    found: list[tuple[str, str]]
    notes: Notes
    gate_is_first: bool | None


def match(checkpoint: Checkpoint, notes: Notes, *, depths: Sequence[int] | None = None) -> Match:
    """Recognise the network in ``checkpoint``.

    Args:
        checkpoint: from `read_checkpoint`.
        notes: continued with the grounds of decisions.
        depths: blocks per stage, for files whose names and widths do not tell.

    Raises:
        NotDenseIsoViTError: something does not fit.
        AmbiguousCheckpointError: it fits, but equal shapes can't be told apart.
    """
    layers = checkpoint.layers
    paths = [layer.path for layer in layers]
    if sum(layer.kind == "depthwise" for layer in layers) == 0:
        raise NotDenseIsoViTError("no depthwise 3x3 convolution, so no GDFN")
    patches = [
        e for e in layers if e.kind in ("conv", "linear") and e.weight.ndim == 4 and e.shape[1] == RGB < e.shape[0]
    ]
    if len(patches) != 1:
        raise NotDenseIsoViTError(
            f"{len(patches)} convolutions from {RGB} channels ({patches[:3]}), expected the patch embedding"
        )
    patch = patches[0]
    evidence = Evidence(paths, checkpoint.definition_order)
    labelled = find_blocks([layer for layer in layers if layer is not patch], evidence)
    labelled = order_blocks(labelled, evidence)
    used = {id(layer) for entry in labelled for layer in entry.block.layers} | {id(patch)}
    rest = [layer for layer in layers if id(layer) not in used]
    problems = []
    for stages in _stagings(labelled, rest, depths):
        attempt = replace(evidence, notes=Notes([], set(evidence.notes.by_file_order), set(evidence.notes.guessed)))
        try:
            result = _assemble(stages, patch, rest, attempt)
        except NotDenseIsoViTError as error:
            problems.append(error)
            continue
        notes.by_file_order |= attempt.notes.by_file_order
        notes.guessed |= attempt.notes.guessed
        notes.chosen += attempt.notes.chosen
        result.notes = notes
        return result
    raise problems[0]


def _stagings(blocks: list[Labelled], rest: list[Layer], depths: Sequence[int] | None) -> list[list[list[Block]]]:
    """Ways to cut the sequence of blocks into stages, the most telling first."""

    def cut(key) -> list[list[Block]]:
        stages: list[list[Block]] = []
        previous: Any = None
        for entry in blocks:
            if not stages or key(entry) != previous:
                stages.append([])
            stages[-1].append(entry.block)
            previous = key(entry)
        return stages

    if depths is not None:
        sequence = iter(entry.block for entry in blocks)
        if sum(depths) != len(blocks):
            raise NotDenseIsoViTError(f"option depths={tuple(depths)} for {len(blocks)} blocks")
        return [[[next(sequence) for _ in range(depth)] for depth in depths]]
    by_container = cut(lambda entry: (entry.block.width, entry.block.hidden, entry.container))
    by_width = cut(lambda entry: (entry.block.width, entry.block.hidden))
    chained = [_chained(stages, rest) for stages in (by_container, by_width)]
    return chained if len(by_container) != len(by_width) else chained[:1]


def _chained(stages: list[list[Block]], rest: list[Layer]) -> list[list[Block]]:
    """Stages of distinct widths in the order in which linear layers lead from one to the next."""
    widths = [stage[0].width for stage in stages]
    if len(set(widths)) < len(widths) or len(widths) < 2:
        return stages
    steps = {tuple(layer.matrix.shape)[::-1] for layer in rest if layer.kind == "linear"}
    following = {a: b for a in widths for b in widths if a != b and (a, b) in steps}
    starts = set(widths) - set(following.values())
    if len(starts) != 1:
        return stages
    chain = [starts.pop()]
    while chain[-1] in following and len(chain) < len(widths):
        chain.append(following[chain[-1]])
    by_width = {stage[0].width: stage for stage in stages}
    return [by_width[width] for width in chain] if sorted(chain) == sorted(widths) else stages


def _assemble(stages: list[list[Block]], patch: Layer, rest: list[Layer], evidence: Evidence) -> Match:
    """Everything outside the blocks; then the whole, checked."""
    dims = tuple(stage[0].width for stage in stages)
    patch_size = patch.shape[2]
    if patch.shape[0] != dims[0] or patch.shape[2] != patch.shape[3]:
        raise NotDenseIsoViTError(f"patch embedding {patch} does not make tokens of the first stage's width {dims[0]}")
    if any(len({(block.width, block.hidden) for block in stage}) > 1 for stage in stages):
        raise NotDenseIsoViTError(f"blocks of unequal width in one stage; widths {dims}")
    transitions = _transitions(dims, [layer for layer in rest if layer.kind == "linear"], evidence)
    open_layers = [layer for layer in rest if all(layer is not e for e in transitions)]
    position, embedding = _position_embedding(open_layers, dims[0])
    open_layers = [layer for layer in open_layers if layer is not position and not _counts_tokens(layer)]
    norms = place_norms([e for e in open_layers if e.kind == "norm"], stages, patch, transitions, evidence)
    head_layers = [e for e in open_layers if e.kind == "conv" or (e.kind == "linear" and e.weight.ndim in (2, 4))]
    odd = [e for e in open_layers if e.kind != "norm" and e not in head_layers]
    if odd:
        raise NotDenseIsoViTError(
            f"tensors that this network does not have: {odd[:4]}; option prefix can leave out others"
        )
    chain = solve_chain(head_layers, sum(dims), evidence)
    if isinstance(chain, str):
        raise NotDenseIsoViTError(chain)
    shuffles = math.prod(factor for _, factor in chain)
    if shuffles % patch_size:
        raise NotDenseIsoViTError(
            f"the head enlarges tokens {shuffles} times, no multiple of the patch size {patch_size}"
        )
    return _build(stages, patch, embedding, position, transitions, norms, chain, evidence)


def _transitions(dims: tuple[int, ...], linears: list[Layer], evidence: Evidence) -> list[Layer | None]:
    """The linear layer between every two stages; None where equal widths need none."""
    steps = [(after, before) for before, after in itertools.pairwise(dims)]
    result: dict[int, Layer] = {}
    for step in dict.fromkeys(steps):
        places = [i for i, other in enumerate(steps) if other == step]
        fitting = [layer for layer in linears if tuple(layer.matrix.shape) == step]
        if len(fitting) > len(places):  # an embedding of positions looks like a linear layer without bias
            fitting = [layer for layer in fitting if layer.bias is not None]
        if len(fitting) == len(places):
            result.update(zip(places, evidence.in_order(fitting, "equal transitions")))
        elif fitting or step[0] != step[1]:
            raise NotDenseIsoViTError(
                f"{len(fitting)} linear layers {step[1]} -> {step[0]} between stages, expected {len(places)}; "
                f"stage widths {dims}"
            )
    return [result.get(i) for i in range(len(steps))]


def _position_embedding(layers: list[Layer], width: int) -> tuple[Layer | None, Tensor | None]:
    """The tensor with one vector per token of a square grid, as (1, N, width)."""
    for layer in layers:
        tensor, shape = layer.weight, layer.shape
        if layer.bias is not None or not tensor.is_floating_point() or layer.kind not in ("other", "linear"):
            continue
        if tensor.ndim in (3, 4) and shape[0] == 1:
            tensor, shape = tensor[0], shape[1:]
        if len(shape) == 3 and shape[0] == width and shape[1] == shape[2]:
            return layer, tensor.flatten(1).T[None]
        if len(shape) == 3 and shape[2] == width and shape[0] == shape[1]:
            return layer, tensor.flatten(0, 1)[None]
        if len(shape) == 2 and shape[1] == width and math.isqrt(shape[0]) ** 2 == shape[0] > 1:
            return layer, tensor[None]
        if len(shape) == 2 and layer.shape[0] == 1 and shape[0] == width and math.isqrt(shape[1]) ** 2 == shape[1] > 1:
            return layer, tensor.T[None]
    return None, None


def _counts_tokens(layer: Layer) -> bool:
    """A buffer 0, 1, 2, ... that indexes an embedding carries nothing."""
    tensor = layer.weight.flatten()
    integral = tensor.dtype in (torch.int64, torch.int32) and not tensor.is_meta and tensor.numel() > 1
    return integral and bool((tensor == torch.arange(tensor.numel(), device=tensor.device)).all())


def _build(stages: list[list[Block]], patch: Layer, embedding: Tensor | None, position: Layer | None,
           transitions: list[Layer | None], norms: Norms, chain: list[tuple[Layer, int]],
           evidence: Evidence) -> Match:  # fmt: skip
    weights: dict[str, Tensor] = {}
    found: list[tuple[str, str]] = []

    def put(name: str, layer: Layer | None, weight: Tensor | None = None) -> None:
        if layer is None:
            return
        found.append((name, f"{layer.name} {layer.shape}"))
        weights[f"{name}.weight"] = layer.weight if weight is None else weight
        if layer.bias is not None:
            weights[f"{name}.bias"] = layer.bias

    put("patch_embedding", patch)
    put("patch_norm", norms.patch)
    if position is not None and embedding is not None:
        found.append(("position_embedding", f"{position.name} {position.shape}"))
        weights["position_embedding"] = embedding
    for i, stage in enumerate(stages):
        for j, block in enumerate(stage):
            weights.update({f"stages.{i}.blocks.{j}.{name}": tensor for name, tensor in block.weights.items()})
            if j == 0:
                found += [
                    (f"stages.{i}.blocks.{j} {role}", ", ".join(f"{e.name} {e.shape}" for e in layers))
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
        put(f"head.{i}", layer, layer.weight if layer.weight.ndim == 4 else layer.weight[:, :, None, None])
    first = stages[0][0]
    patch_size = patch.shape[2]
    fields: dict[str, Any] = {
        "patch_size": patch_size,
        "dims": tuple(stage[0].width for stage in stages),
        "depths": tuple(len(stage) for stage in stages),
        "hidden": tuple(stage[0].hidden for stage in stages),
        "patch_bias": patch.bias is not None,
        "qkv_bias": "attention.qkv.bias" in first.weights,
        "projection": "attention.projection.weight" in first.weights,
        "projection_bias": "attention.projection.bias" in first.weights,
        "g_proj_bias": "gdfn.g_proj.bias" in first.weights,
        "path_bias": "gdfn.path_1.bias" in first.weights,
        "out_proj_bias": "gdfn.out_proj.bias" in first.weights,
        "layer_scale": "layer_scale_1" in first.weights,
        "patch_norm": norms.patch is not None,
        "position_embedding": embedding is not None,
        "stage_norms": tuple(norm is not None for norm in norms.stages),
        "transitions": tuple(layer is not None for layer in transitions),
        "transition_bias": any(layer is not None and layer.bias is not None for layer in transitions),
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
    if embedding is not None:
        fields["window"] = math.isqrt(embedding.shape[1]) * patch_size
    try:
        DenseIsoViTConfig(**fields)
    except ValueError as error:
        raise NotDenseIsoViTError(str(error)) from error
    gates = {block.gate_is_first for stage in stages for block in stage}
    return Match(fields, weights, found, evidence.notes, gates.pop() if len(gates) == 1 else None)
