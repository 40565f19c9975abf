"""The linear layers between stages among layers of unknown names, some of which may be left out at
equal widths."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from .evidence import Evidence, NotDenseIsoViTError
from .layers import Layer, words
from .stages import Stages, few_for_places, stage_around

HEAD_WORDS = {"head", "fuse", "fusion", "up", "upsample", "upscale", "recon", "reconstruction", "tail", "decoder", "sr",
              "rgb", "output", "dense", "cat"}  # fmt: skip


def place_transitions(stages: Stages, linears: Sequence[Layer], others: Sequence[Layer], given: Sequence[int] | None,
                      evidence: Evidence) -> list[Layer | None]:  # fmt: skip
    """The linear layer between every two stages; None where equal widths need none.

    Args:
        stages: the blocks.
        linears: linear layers and 1x1 convolutions outside the blocks.
        others: the convolutions outside the blocks.
        given: stages (from 1 on) that a layer follows, where an option says so.
        evidence: tells equal shapes apart.

    Raises:
        NotDenseIsoViTError: too few or too many.
        AmbiguousCheckpointError: fewer than places of equal widths, and nothing tells which.
    """
    dims = [stage[0].width for stage in stages]
    steps = [(after, before) for before, after in itertools.pairwise(dims)]
    result: dict[int, Layer] = {}
    for step in dict.fromkeys(steps):
        places = [i for i, other in enumerate(steps) if other == step]
        fitting = [layer for layer in linears if tuple(layer.matrix.shape) == step]
        if given is not None and step[0] == step[1]:
            places = [i for i in places if i + 1 in given]
            fitting = fitting if places else []
        elif step[0] == step[1]:
            changing = [
                e for e in linears if tuple(e.matrix.shape) in steps and e.shape[0] != e.shape[1]
            ]
            fitting = [
                e
                for e in fitting
                if _is_beside(e, changing) or not _belongs_to_head(e, stages, others, evidence)
            ]
        if len(fitting) > len(
            places
        ):  # an embedding of positions looks like a linear layer without bias
            fitting = [layer for layer in fitting if layer.bias is not None]
        inside = (
            _places_by_nesting(fitting, stages, evidence) if fitting and len(places) > 1 else None
        )
        if (
            inside is not None
            and set(inside) <= set(places)
            and len(set(inside)) == len(fitting) <= len(places)
        ):
            result.update(zip(inside, fitting))
        elif len(fitting) == len(places):
            result.update(zip(places, evidence.in_order(fitting, "equal transitions")))
        elif 0 < len(fitting) < len(places) and step[0] == step[1]:
            result.update(few_for_places(fitting, places, stages, evidence, "transitions"))
        elif fitting or step[0] != step[1]:
            raise NotDenseIsoViTError(
                f"{len(fitting)} linear layers {step[1]} -> {step[0]} between stages, expected {len(places)}; "
                f"stage widths {tuple(dims)}"
            )
    return [result.get(i) for i in range(len(steps))]


def _is_beside(layer: Layer, others: Sequence[Layer]) -> bool:
    return len(layer.path) > 1 and any(layer.path[:-1] == e.path[:-1] for e in others)


def _belongs_to_head(
    layer: Layer, stages: Stages, others: Sequence[Layer], evidence: Evidence
) -> bool:
    """Whether a layer that could be a transition between equal widths is a 1x1 convolution of the
    head."""
    if layer.weight.ndim == 2:
        return False
    parent = layer.path[:-1]
    inside = any(
        e.path[: len(parent)] == parent for stage in stages for block in stage for e in block.layers
    )
    if parent and not inside and any(e.path[: len(parent)] == parent for e in others):
        return True
    if evidence.use_names and set(words(layer.path)) & HEAD_WORDS:
        evidence.notes.guessed.add(
            f"{layer.name} in the head, not between stages (option transitions)"
        )
        return True
    last = max(e.index for stage in stages for block in stage for e in block.layers)
    beside = [e.index for e in others if e.index > last]
    if evidence.definition_order and beside and layer.index > min(beside):
        evidence.notes.by_file_order.add(f"{layer.name} in the head, not between stages")
        return True
    evidence.notes.guessed.add(f"{layer.name} between stages, not in the head (option transitions)")
    return False


def _places_by_nesting(layers: list[Layer], stages: Stages, evidence: Evidence) -> list[int] | None:
    """Of layers that lie in the modules of stages: all before the blocks of their stage, or all
    after them."""
    inside = [stage_around(layer, stages) for layer in layers]
    known = [stage for stage in inside if stage is not None]
    if len(known) < len(layers):
        return None
    before = (
        len(stages) - 1 in known
    )  # nothing comes after the last stage, and nothing before the first
    if before == (0 in known):
        if not evidence.definition_order:
            return None
        before = all(
            layer.index < min(b.index for b in stages[stage]) for layer, stage in zip(layers, known)
        )
        evidence.notes.by_file_order.add("transitions before or after the blocks of their stages")
    return [stage - 1 if before else stage for stage in known]
