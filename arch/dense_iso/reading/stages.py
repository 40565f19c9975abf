"""Cutting the sequence of blocks into stages: by modules, by widths, by what the head expects."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from .block import Block
from .evidence import AmbiguousCheckpointError, Evidence, NotDenseIsoViTError
from .find import Labelled
from .layers import Layer

Stages = list[list[Block]]
MOST_STAGES = 12


def stagings(
    blocks: list[Labelled], rest: list[Layer], depths: Sequence[int] | None
) -> Iterator[tuple[Stages, str]]:
    """Yield ways to cut ``blocks`` into stages, the most telling first, each with what is guessed
    in it, or "".

    Args:
        blocks: in order.
        rest: layers outside the blocks.
        depths: blocks of every stage, where an option says so.

    Raises:
        NotDenseIsoViTError: ``depths`` are for another number of blocks.
    """

    def cut(key) -> Stages:
        stages: Stages = []
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
        yield [[next(sequence) for _ in range(depth)] for depth in depths], ""
        return
    by_container = cut(lambda entry: (entry.block.width, entry.block.hidden, entry.container))
    by_width = cut(lambda entry: (entry.block.width, entry.block.hidden))
    yield _chained(by_container, rest), ""
    if len(by_width) != len(by_container):
        yield _chained(by_width, rest), ""
    for stages in _even(by_width, rest):
        yield (
            stages,
            f"depths {','.join(str(len(stage)) for stage in stages)} of stages of equal width (option depths)",
        )


def _chained(stages: Stages, rest: list[Layer]) -> Stages:
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


def _even(by_width: Stages, rest: list[Layer]) -> Iterator[Stages]:
    """Runs of equal width cut into stages of equal depth, so that some convolution takes all widths
    side by side."""
    entered = {layer.shape[1] for layer in rest if layer.kind in ("conv", "linear")}
    divisors = [[n for n in range(1, len(run) + 1) if len(run) % n == 0] for run in by_width]
    for counts in itertools.product(*divisors):
        total = sum(count * run[0].width for count, run in zip(counts, by_width))
        if total in entered and len(by_width) < sum(counts) <= MOST_STAGES:
            cut = [(run, len(run) // count) for count, run in zip(counts, by_width)]
            yield [run[i : i + depth] for run, depth in cut for i in range(0, len(run), depth)]


def few_for_places(layers: list[Layer], places: Sequence[int], stages: Stages, evidence: Evidence,
                   option: str) -> dict[int, Layer]:  # fmt: skip
    """Equal layers that stand behind some stages only, by place (0 is after the first stage).

    Args:
        layers: fewer than ``places``.
        places: where they could stand.
        stages: the blocks.
        evidence: numbers in names, else the order of definition.
        option: that names the places where nothing else does.

    Raises:
        AmbiguousCheckpointError: nothing tells.
    """
    found: list[int] | None = None
    numbers = [last_number(layer) for layer in layers]
    if evidence.use_names and set(numbers) <= set(places) and len(set(numbers)) == len(layers):
        found = [number for number in numbers if number is not None]
        after = ", ".join(str(number + 1) for number in sorted(found))
        evidence.notes.guessed.add(
            f"{option} only after stage {after}, by the numbers in names (option {option})"
        )
    if found is None and evidence.definition_order:
        ends = [max(e.index for block in stage for e in block.layers) for stage in stages]
        found = [sum(end < layer.index for end in ends) - 1 for layer in layers]
        evidence.notes.by_file_order.add(f"places of {option}")
    if found is None or not set(found) <= set(places) or len(set(found)) < len(layers):
        raise AmbiguousCheckpointError(
            f"a Dense-Iso-ViT with {len(layers)} equal layers ({layers[:3]}) for {len(places)} places; the option "
            f"{option} says after which stages they stand, for example "
            f"{option}={','.join(str(place + 1) for place in places[: len(layers)])}"
        )
    return dict(zip(found, layers))


def stage_around(layer: Layer, stages: Stages) -> int | None:
    """The stage whose module the layer lies in; None where there is none, or one module holds
    several stages."""
    for end in range(len(layer.path) - 1, 0, -1):
        parent = layer.path[:end]
        inside = [
            i
            for i, stage in enumerate(stages)
            if any(e.path[:end] == parent for block in stage for e in block.layers)
        ]
        if inside:
            return inside[0] if len(inside) == 1 else None
    return None


def last_number(layer: Layer) -> int | None:
    """The number nearest the end of a layer's name: ``blocks.3.norm`` -> 3; None without one."""
    return next((int(part) for part in reversed(layer.path) if part.isdigit()), None)
