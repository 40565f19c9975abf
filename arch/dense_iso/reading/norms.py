"""Where the LayerNorms outside the blocks belong: patch embedding, stages, transitions,
concatenated features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .evidence import Evidence, NotDenseIsoViTError
from .layers import Layer, natural_key, words
from .stages import Stages, few_for_places, last_number, stage_around

PATCH_WORDS = {"patch", "embed", "embedding", "embeddings", "stem", "pre", "input", "pos"}
TRANSITION_WORDS = {
    "trans",
    "transition",
    "transitions",
    "down",
    "proj",
    "projection",
    "link",
    "bridge",
    "connect",
    "connector",
    "reduce",
}


@dataclass
class Norms:
    """The LayerNorms by place; ``transition_place`` is "before" or "after" the transition's linear
    layer."""

    stages: list[Layer | None]
    transitions: list[Layer | None]
    patch: Layer | None = None
    fusion: Layer | None = None
    transition_place: str = "after"
    open: list[Layer] = field(default_factory=list)


def place_norms(norms: Sequence[Layer], stages: Stages, patch: Layer,
                transitions: Sequence[Layer | None], given: Sequence[int] | None,
                evidence: Evidence) -> Norms:  # fmt: skip
    """Assign every norm its place; ``given`` stages (from 1 on) have one, where an option says so.

    Raises:
        NotDenseIsoViTError: a norm has no place.
    """
    dims = [stage[0].width for stage in stages]
    result = Norms([None] * len(dims), [None] * len(transitions), open=list(norms))
    if len(dims) > 1:
        result.fusion = _take_single(result, [e for e in result.open if e.shape[0] == sum(dims)])
    result.patch = _take_single(result, _beside_patch(result.open, patch, stages, dims[0]))
    _take_transition_norms(result, transitions, stages, dims)
    _take_stage_norms(result, stages, dims, given, evidence)
    if result.open and result.patch is None:
        result.patch = _take_single(result, [e for e in result.open if e.shape[0] == dims[0]])
    _reconsider(result, dims, patch, stages, evidence)
    if result.patch is not None and not _beside_patch([result.patch], patch, stages, dims[0]):
        evidence.notes.guessed.add("patch norm before the position embedding, not after it")
    if result.open:
        raise NotDenseIsoViTError(
            f"norms without a place: {result.open[:4]}; stage widths {tuple(dims)}"
        )
    return result


def _take_single(result: Norms, candidates: list[Layer]) -> Layer | None:
    if len(candidates) != 1:
        return None
    result.open.remove(candidates[0])
    return candidates[0]


def _holds_blocks(path: tuple[str, ...], stages: Stages) -> bool:
    return any(
        e.path[: len(path)] == path for stage in stages for block in stage for e in block.layers
    )


def _beside_patch(norms: list[Layer], patch: Layer, stages: Stages, width: int) -> list[Layer]:
    parent = patch.path[:-1]
    inside = [
        e for e in norms if e.shape[0] == width and parent and e.path[: len(parent)] == parent
    ]
    return [] if _holds_blocks(parent, stages) else inside


def _take_transition_norms(result: Norms, transitions: Sequence[Layer | None], stages: Stages,
                           dims: list[int]) -> None:  # fmt: skip
    """Norms that share a small module with one transition."""
    places = set()
    for i, layer in enumerate(transitions):
        if layer is None or len(layer.path) < 2:
            continue
        parent = layer.path[:-1]
        others = sum(e is not None and e.path[: len(parent)] == parent for e in transitions)
        inside = [
            e
            for e in result.open
            if e.path[: len(parent)] == parent and e.shape[0] in dims[i : i + 2]
        ]
        if others > 1 or len(inside) != 1 or _holds_blocks(parent, stages):
            continue
        norm = inside[0]
        before, after = dims[i], dims[i + 1]
        in_front = (
            norm.shape[0] == before
            if before != after
            else natural_key(norm.path) < natural_key(layer.path)
        )
        places.add("before" if in_front else "after")
        result.transitions[i] = norm
        result.open.remove(norm)
    if places:
        result.transition_place = places.pop()


def _take_stage_norms(result: Norms, stages: Stages, dims: list[int], given: Sequence[int] | None,
                      evidence: Evidence) -> None:  # fmt: skip
    for width in dict.fromkeys(dims):
        places = [i for i, other in enumerate(dims) if other == width]
        fitting = [e for e in result.open if e.shape[0] == width]
        if width == dims[0] and result.patch is None:
            fitting = _set_patch_norm_aside(result, fitting, len(places), stages, evidence)
        if given is not None:
            places = [i for i in places if i + 1 in given]
        placed: dict[int, Layer] = {}
        inside = {
            stage: norm for norm in fitting if (stage := stage_around(norm, stages)) is not None
        }
        if len(inside) == len(fitting) and set(inside) <= set(places):
            placed = inside
        elif len(fitting) == len(places):
            placed = dict(
                zip(
                    places,
                    evidence.in_order(fitting, "stage norms") if len(fitting) > 1 else fitting,
                )
            )
        elif len(fitting) == 1 and last_number(fitting[0]) is None:
            evidence.notes.guessed.add(
                "the only norm beside stages of equal width after the last (option stage_norms)"
            )
            placed = {places[-1]: fitting[0]}
        elif 0 < len(fitting) < len(places):
            placed = few_for_places(fitting, places, stages, evidence, "stage_norms")
        for i, norm in placed.items():
            result.stages[i] = norm
            result.open.remove(norm)


def _set_patch_norm_aside(result: Norms, fitting: list[Layer], places: int, stages: Stages,
                          evidence: Evidence) -> list[Layer]:  # fmt: skip
    spoken = [e for e in fitting if evidence.use_names and set(words(e.path)) & PATCH_WORDS]
    first_block = min(block.index for stage in stages for block in stage)
    early = [e for e in fitting if e.index < first_block]
    if len(fitting) > places and len(spoken) != 1 and evidence.definition_order and len(early) == 1:
        spoken = early
        evidence.notes.by_file_order.add("patch norm")
    if len(spoken) == 1:
        result.patch = spoken[0]
        result.open.remove(spoken[0])
    return [e for e in fitting if e is not result.patch]


def _reconsider(result: Norms, dims: list[int], patch: Layer, stages: Stages,
                evidence: Evidence) -> None:  # fmt: skip
    """Norms on some stages only may really be those of the patch embedding or of the
    transitions."""
    present = [norm is not None for norm in result.stages]
    if len(dims) < 2 or not any(present) or any(result.transitions):
        return
    inside = [
        norm is not None and len(norm.path) > 1 and _holds_blocks(norm.path[:-1], stages[i : i + 1])
        for i, norm in enumerate(result.stages)
    ]
    if any(inside):
        return
    norms = [norm for norm in result.stages if norm is not None]
    if present == [True] + [False] * (len(dims) - 1) and result.patch is None:
        first_block = min(block.index for stage in stages for block in stage)
        if evidence.use_names and set(words(norms[0].path)) & PATCH_WORDS:
            early = True
        elif evidence.definition_order:
            early = norms[0].index < first_block
            evidence.notes.by_file_order.add("patch norm or norm of the first stage")
        else:
            early = True
            evidence.notes.guessed.add("patch norm, not norm of the first stage")
        if early:
            result.patch, result.stages[0] = norms[0], None
        return
    if (
        present in ([False] + [True] * (len(dims) - 1), [True] * (len(dims) - 1) + [False])
        and len(dims) > 2
    ):
        after = present[-1]
        spoken = evidence.use_names and all(
            set(words(norm.path)) & TRANSITION_WORDS for norm in norms
        )
        if not spoken:
            evidence.notes.guessed.add(
                f"norms {'after' if after else 'before'} the transitions, not of stages"
            )
        result.transitions = list(norms)
        result.stages = [None] * len(dims)
        result.transition_place = "after" if after else "before"
