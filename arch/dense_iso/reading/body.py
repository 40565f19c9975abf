"""What lies between and beside the blocks: the position embedding, the linear layers between stages
and the LayerNorms outside blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from .blocks import Stages
from .evidence import Evidence, known
from .layers import Layer, NotDenseIsoViTError, Path

POSITION_WORDS = known("pos position positions positional posemb posembed ape coords location")
PATCH_WORDS = known("in patch embed embedding embeddings stem pre input pos")
HEAD_WORDS = known(
    "head fuse fusion up upsample upscale recon reconstruction tail decoder sr rgb output dense cat"
)


class Trunk:
    """The stages, and where layers beside their blocks lie."""

    def __init__(self, stages: Stages, evidence: Evidence) -> None:
        self.evidence = evidence
        self.dims = [stage[0].width for stage in stages]
        self.spans: list[tuple[int, int]] = []  # first and last index of every stage's layers
        self.inside: dict[Path, set[int]] = {}  # module -> the stages that have layers in it
        for i, stage in enumerate(stages):
            layers = [layer for block in stage for layer in block.layers]
            self.spans.append((min(e.index for e in layers), max(e.index for e in layers)))
            for path in {e.path[:end] for e in layers for end in range(1, len(e.path))}:
                self.inside.setdefault(path, set()).add(i)

    def around(self, layer: Layer) -> int | None:
        """The stage whose module the layer lies in; None where there is none, or one module holds
        several stages."""
        starts = (layer.path[:end] for end in range(len(layer.path) - 1, 0, -1))
        found = next((self.inside[path] for path in starts if path in self.inside), set())
        return next(iter(found)) if len(found) == 1 else None

    def beside(self, layers: Iterable[Layer], path: Path) -> list[Layer]:
        """The layers in the same module as ``path``, unless blocks lie in it, too."""
        parent = path[:-1]
        usable = parent and parent not in self.inside
        return [e for e in layers if usable and e.path[: len(parent)] == parent]

    def few_for_places(self, layers: list[Layer], places: list[int], what: str) -> dict[int, Layer]:
        """Equal layers that stand behind some stages only, by place (0 is after the first stage):
        by modules or numbers in names, else the order of definition, else they are ambiguous."""
        evidence, found = self.evidence, []
        if evidence.use_names:
            modules = [-1 if (i := self.around(layer)) is None else i for layer in layers]
            found = [number_of(layer) for layer in layers] if -1 in modules else modules
        if set(found) <= set(places) and len(set(found)) == len(layers):
            after = ", ".join(str(place + 1) for place in sorted(found))
            evidence.notes.guessed.add(f"{what} only after stage {after}, by names")
        elif evidence.definition_order:
            found = [sum(end < layer.index for _, end in self.spans) - 1 for layer in layers]
            evidence.notes.by_file_order.add(f"places of {what}")
        if not set(found) <= set(places) or len(set(found)) < len(layers):
            raise evidence.ambiguous(layers, f"{len(places)} places for {len(layers)} {what}")
        return dict(zip(found, layers))


def number_of(layer: Layer) -> int:
    """The number nearest the end of a layer's name: ``blocks.3.norm`` -> 3; -1 without one."""
    return next((int(part) for part in reversed(layer.path) if part.isdecimal()), -1)


def position_embedding(
    layers: Sequence[Layer], width: int, evidence: Evidence, *, certain: bool
) -> tuple[Layer, Tensor] | None:
    """The embedding, of the layers outside the blocks, as it is in the file and as (1, N, width);
    None where there is none. ``certain``: leave out what could also be a linear layer, unless its
    name speaks of positions."""
    lone = [e for e in layers if e.bias is None and e.weight.is_floating_point()]
    bare = [e for e in lone if e.kind == "other" or (e.kind == "linear" and e.weight.ndim == 2)]
    fitting = [e for e in bare if _readings(e.weight, width)]
    found = [e for e in fitting if evidence.spoken(e) & POSITION_WORDS]
    found = found or [e for e in fitting if e.kind == "other"]
    if not found and not certain:
        found = [e for e in fitting if not e.leaf.endswith("weight")] or fitting
    if len(found) > 1:
        raise NotDenseIsoViTError(f"{len(found)} position embeddings: {found[:4]}, expected one")
    if not found:
        return None
    readings = _readings(found[0].weight, width)
    if len(readings) > 1 and sum(side > 1 for side in found[0].shape) > 2:
        raise NotDenseIsoViTError(
            f"{found[0]} has channels first or last: both fit; store it as (1, tokens, {width})"
        )
    if len(readings) > 1:
        evidence.notes.guessed.add(f"channels last in {found[0]}")
    return found[0], readings[0][None]


def _readings(tensor: Tensor, width: int) -> list[Tensor]:
    """The tensor as (N, width), channels last before channels first, as far as they fit."""
    tensor = tensor.reshape([side for side in tensor.shape if side != 1])
    if tensor.ndim == 3:
        last = tensor.flatten(0, 1) if tensor.shape[0] == tensor.shape[1] else None
        first = tensor.flatten(1).T if tensor.shape[1] == tensor.shape[2] else None
    else:
        last, first = (tensor, tensor.T) if tensor.ndim == 2 else (None, None)
    found = [e for e in (last, first) if e is not None and e.shape[1] == width]
    return [e for e in found if e.shape[0] > 1 and math.isqrt(e.shape[0]) ** 2 == e.shape[0]]


def place_transitions(trunk: Trunk, layers: Sequence[Layer]) -> list[Layer | None]:
    """The linear layer between every two stages, of those outside the blocks; None where equal
    widths need none."""
    steps = [(after, before) for before, after in itertools.pairwise(trunk.dims)]
    linears = [e for e in layers if e.kind == "linear"]
    convolutions = [e for e in layers if e.kind == "conv"]
    changing = [e for e in linears if tuple(e.matrix.shape) in steps and e.shape[0] != e.shape[1]]
    result: dict[int, Layer] = {}
    for step in dict.fromkeys(steps):
        places = [i for i, other in enumerate(steps) if other == step]
        fitting = [layer for layer in linears if tuple(layer.matrix.shape) == step]
        if step[0] == step[1]:
            modules = {e.path[:-1] for e in changing} - {()}
            kept = {e for e in fitting if e.path[:-1] in modules}
            kept |= {e for e in fitting if not (e in kept or _of_head(e, trunk, convolutions))}
            fitting = [e for e in fitting if e in kept]
        if len(fitting) > len(places):  # a table of positions looks like one without bias
            fitting = [layer for layer in fitting if layer.bias is not None]
        if len(fitting) == len(places):
            result.update(zip(places, trunk.evidence.in_order(fitting, "equal transitions")))
        elif 0 < len(fitting) < len(places) and step[0] == step[1]:
            result.update(trunk.few_for_places(fitting, places, "transitions"))
        elif fitting or step[0] != step[1]:
            what = f"{len(fitting)} linear layers {step[1]} -> {step[0]} between stages"
            raise NotDenseIsoViTError(f"{what}, expected {len(places)}; widths {trunk.dims}")
    return [result.get(i) for i in range(len(steps))]


def _of_head(layer: Layer, trunk: Trunk, convolutions: Sequence[Layer]) -> bool:
    """Whether what could be a transition of equal widths is a 1x1 convolution of the head."""
    evidence = trunk.evidence
    if layer.weight.ndim == 2:
        return False
    if trunk.beside(convolutions, layer.path):
        return True
    what = f"{layer} in the head, not between stages"
    if evidence.spoken(layer) & HEAD_WORDS:
        evidence.notes.guessed.add(what)
        return True
    behind = [e.index for e in convolutions if e.index > trunk.spans[-1][1]]
    if evidence.definition_order and behind and layer.index > min(behind):
        evidence.notes.by_file_order.add(what)
        return True
    if trunk.around(layer) is None:
        evidence.notes.guessed.add(f"{layer} between stages, not in the head")
    return False


@dataclass
class Norms:
    """The LayerNorms by place; at transitions "before" or "after" the linear layers."""

    stages: list[Layer | None]
    transitions: list[Layer | None]
    patch: Layer | None = None
    fusion: Layer | None = None
    transition_place: str = "after"
    open: list[Layer] = field(default_factory=list)

    def of(self, width: int) -> list[Layer]:
        return [layer for layer in self.open if layer.shape[0] == width]

    def take(self, candidates: list[Layer]) -> Layer | None:
        """The only candidate, which is no longer open; None of several."""
        if len(candidates) != 1:
            return None
        self.open.remove(candidates[0])
        return candidates[0]


def place_norms(
    norms: Sequence[Layer], trunk: Trunk, patch: Layer, transitions: Sequence[Layer | None]
) -> Norms:
    """Assign every norm outside the blocks its place."""
    dims, evidence = trunk.dims, trunk.evidence
    result = Norms([None] * len(dims), [None] * len(transitions), open=list(norms))
    if len(dims) > 1:
        result.fusion = result.take(result.of(sum(dims)))
    result.patch = by_nesting = result.take(trunk.beside(result.of(dims[0]), patch.path))
    _take_transition_norms(result, transitions, trunk)
    _take_stage_norms(result, trunk)
    result.patch = result.patch or result.take(result.of(dims[0]))
    _check_stage_norms(result, trunk)
    if result.patch is not None and by_nesting is None:
        evidence.notes.guessed.add("patch norm before the position embedding, not after it")
    if result.open:
        raise NotDenseIsoViTError(f"norms without a place: {result.open[:4]}; widths {dims}")
    return result


def _take_transition_norms(
    result: Norms, transitions: Sequence[Layer | None], trunk: Trunk
) -> None:
    """Norms that share a small module with one transition: before or after it by their width, where
    that does not tell as at other transitions, else in order."""
    present = [e for e in transitions if e is not None]
    places, what = set(), "norms before or after the transitions"
    for i, layer in enumerate(transitions):
        if layer is None or len(trunk.beside(present, layer.path)) != 1:
            continue
        widths = before, after = trunk.dims[i : i + 2]
        fitting = [e for e in trunk.beside(result.open, layer.path) if e.shape[0] in widths]
        norm = result.transitions[i] = result.take(fitting)
        if norm is not None and before != after:
            places.add("before" if norm.shape[0] == before else "after")
    for norm, layer in zip(result.transitions, transitions) if not places else ():
        if norm is not None and layer is not None:
            in_front = trunk.evidence.in_order([norm, layer], what)[0] is norm
            places.add("before" if in_front else "after")
    if len(places) > 1:
        raise NotDenseIsoViTError("norms before some transitions and after others")
    result.transition_place = places.pop() if places else "after"


def _take_stage_norms(result: Norms, trunk: Trunk) -> None:
    dims, evidence = trunk.dims, trunk.evidence
    for width in dict.fromkeys(dims):
        places = [i for i, other in enumerate(dims) if other == width]
        fitting = result.of(width)
        if width == dims[0] and result.patch is None:
            spoken = [e for e in fitting if evidence.spoken(e) & PATCH_WORDS]
            if len(fitting) > len(places) and len(spoken) != 1 and evidence.definition_order:
                spoken = [e for e in fitting if e.index < trunk.spans[0][0]]
                evidence.notes.by_file_order.add("patch norm")
            result.patch = result.take(spoken)
            fitting = [e for e in fitting if e is not result.patch]
        inside = {i: norm for norm in fitting if (i := trunk.around(norm)) is not None}
        placed: dict[int, Layer] = {}
        if len(inside) == len(fitting) and set(inside) <= set(places):
            placed = inside
        elif len(fitting) == len(places):
            placed = dict(zip(places, evidence.in_order(fitting, "stage norms")))
        elif len(fitting) == 1 and number_of(fitting[0]) < 0:
            evidence.notes.guessed.add("the only norm beside stages of equal width after the last")
            placed = {places[-1]: fitting[0]}
        elif 0 < len(fitting) < len(places):
            placed = trunk.few_for_places(fitting, places, "stage norms")
        for i, norm in placed.items():
            result.stages[i] = result.take([norm])


def _check_stage_norms(result: Norms, trunk: Trunk) -> None:
    """Norms on some stages only may really be those of the patch embedding or of transitions."""
    evidence, last = trunk.evidence, len(trunk.dims) - 1
    norms = {i: norm for i, norm in enumerate(result.stages) if norm is not None}
    placed = {i: norm for i, norm in norms.items() if trunk.around(norm) is None}
    ordered = evidence.definition_order
    if list(placed) == [0] and result.patch is None:
        evidence.note("norm of the patch embedding or of the first stage")
        if placed[0].index < trunk.spans[0][0] if ordered else last > 0:
            result.patch, result.stages[0] = placed[0], None
    elif 0 < len(placed) == last and not any(result.transitions):
        numbered = evidence.use_names and [number_of(e) for e in placed.values()] == [*placed]
        if last not in placed or not (numbered or last == 1):
            raise evidence.ambiguous([*placed.values()], "norms of stages and of transitions")
        if not numbered:
            evidence.note("norm of the last stage, not of the transition")
            if ordered and placed[last].index < trunk.spans[last][0]:
                raise evidence.ambiguous([*placed.values()], "norms of stages and of transitions")
