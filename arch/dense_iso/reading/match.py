"""From layers of unknown names to a Dense-Iso-ViT: blocks, body, head.

Every tensor is used exactly once and every shape is checked against the rebuilt network, so what
comes out is this network or nothing. What tensors can't tell is not decided here; see `options`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from ...errors import ModelLoadError
from ..checkpoint import infer_config
from ..config import RGB, DenseIsoViTConfig
from .blocks import Stages, find_blocks, order_blocks, stagings
from .body import Norms, Trunk, place_norms, place_transitions, position_embedding
from .evidence import Evidence, NoResemblanceError, children_of
from .head import Chain, solve_chain
from .layers import Layer, NotDenseIsoViTError, Notes
from .roles import weights_of

MOST_BESIDE = 100  # layers outside the blocks


@dataclass
class Match:
    """A recognised network in this project's naming, rows of qkv and halves of g_proj as in the
    file; what is not in the tensors has its default."""

    config: DenseIsoViTConfig
    weights: dict[str, Tensor]
    found: list[tuple[str, str]]  # (role, names in the file) for a report; empty in own naming
    notes: Notes
    qkv_parts: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by "stages.0.blocks.1"
    gate_is_first: bool | None = None  # by names; None: they do not say


def match(
    layers: list[Layer], definition_order: bool, notes: Notes, depths: Sequence[int] | None
) -> Match:
    """Recognise the network; ``notes`` receives the grounds, ``depths`` is the option."""
    convolutions = [e for e in layers if e.kind in ("conv", "linear") and e.weight.ndim == 4]
    found = [e for e in convolutions if e.shape[1] == RGB < e.shape[0]]
    if len(found) != 1:
        what = f"{len(found)} convolutions from {RGB} channels ({found[:3]}), expected one"
        raise NoResemblanceError(f"{what}, the patch embedding; a linear layer there is not read")
    patch = found[0]
    evidence = Evidence(children_of([layer.path for layer in layers]), definition_order)
    blocks = find_blocks([layer for layer in layers if layer is not patch], evidence)
    blocks = order_blocks(blocks, evidence)
    used = {layer for block in blocks for layer in block.layers} | {patch}
    rest = [layer for layer in layers if layer not in used]
    if len(rest) > MOST_BESIDE:
        what = f"{len(rest)} layers beside the blocks ({rest[:3]}), at most {MOST_BESIDE} expected"
        raise NotDenseIsoViTError(f"{what}; the option prefix takes the tensors of one network")
    problems = []
    for stages, guess in stagings(blocks, rest, depths):
        attempt = replace(evidence, notes=Notes(guessed={guess} if guess else set()))
        try:
            result = _assemble(stages, patch, rest, attempt)
        except NotDenseIsoViTError as error:
            problems.append(error)
            continue
        notes.add(evidence.notes)
        notes.add(attempt.notes)
        result.notes = notes
        return result
    raise problems[0]


def _assemble(stages: Stages, patch: Layer, rest: list[Layer], evidence: Evidence) -> Match:
    """Everything outside the blocks; then the whole, checked."""
    trunk = Trunk(stages, evidence)
    dims = trunk.dims
    if patch.shape[0] != dims[0]:
        raise NotDenseIsoViTError(f"{patch} does not make tokens of the first stage's {dims[0]}")
    position = position_embedding(rest, dims[0], evidence, certain=True)
    rest = [e for e in rest if position is None or e is not position[0]]
    transitions = place_transitions(trunk, rest)
    rest = [e for e in rest if e not in transitions]
    if position is None:
        position = position_embedding(rest, dims[0], evidence, certain=False)
        rest = [e for e in rest if position is None or e is not position[0]]
    norms = place_norms([e for e in rest if e.kind == "norm"], trunk, patch, transitions)
    head = [e for e in rest if e.kind == "conv" or (e.kind == "linear" and e.weight.ndim != 3)]
    if odd := [e for e in rest if e.kind != "norm" and e not in head]:
        what = f"tensors that this network does not have: {odd[:4]}"
        hint = "vectors may be of PReLU, RMSNorm, or means and deviations of colours: not read"
        raise NotDenseIsoViTError(f"{what}; option prefix can leave out others ({hint})")
    inside = [layer for stage in stages for block in stage for layer in block.layers]
    turned = [e for e in (*inside, *transitions, *head) if e is not None and e.may_be_turned]
    if turned:
        what = (
            f"square matrices like {turned[0]} that no module calls its weight, perhaps for x @ W"
        )
        raise NotDenseIsoViTError(f"{what}: store them as nn.Linear does, under the name weight")
    chain = solve_chain(head, sum(dims), evidence)
    return _build(trunk, stages, patch, position, transitions, norms, chain)


def _build(trunk: Trunk, stages: Stages, patch: Layer, position: tuple[Layer, Tensor] | None,
           transitions: list[Layer | None], norms: Norms, chain: Chain) -> Match:  # fmt: skip
    weights: dict[str, Tensor] = {}
    found: list[tuple[str, str]] = []

    def put(name: str, layer: Layer | None, weight: Tensor | None = None) -> None:
        if layer is not None:
            found.append((name, repr(layer)))
            weights[f"{name}.weight"] = layer.weight if weight is None else weight
            if layer.bias is not None:
                weights[f"{name}.bias"] = layer.bias

    put("patch_embedding", patch)
    put("patch_norm", norms.patch)
    if position is not None:
        found.append(("position_embedding", repr(position[0])))
        weights["position_embedding"] = position[1]
    blocks = {f"stages.{i}.blocks.{j}": b for i, s in enumerate(stages) for j, b in enumerate(s)}
    for name, block in blocks.items():
        weights |= {f"{name}.{key}": tensor for key, tensor in weights_of(block).items()}
        if name.endswith(".0"):
            roles = {role: ", ".join(map(repr, layers)) for role, layers in block.roles.items()}
            found += [(f"{name} {role}", names) for role, names in roles.items() if names]
    for i, norm in enumerate(norms.stages):
        put(f"stages.{i}.norm", norm)
    for i, layer in enumerate(transitions):
        put(f"transitions.{i}.norm_{norms.transition_place}", norms.transitions[i])
        put(f"transitions.{i}.linear", layer, None if layer is None else layer.matrix)
    put("fusion_norm", norms.fusion)
    for i, (layer, _) in enumerate(chain):
        kernel = layer.shape[2:] or (1, 1)
        put(f"head.{i}", layer, layer.weight.reshape(*layer.shape[:2], *kernel))
    try:
        config = infer_config(weights)
    except ModelLoadError as error:
        raise NotDenseIsoViTError(f"the tensors make no network: {error}") from error
    gates = {block.gate_is_first for block in blocks.values()}
    parts = {name: block.qkv_parts for name, block in blocks.items()}
    gate = gates.pop() if len(gates) == 1 else None
    return Match(config, weights, found, Notes(), parts, gate)
