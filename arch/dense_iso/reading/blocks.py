"""The transformer blocks among layers of unknown names: which layers belong together, in which
order they run, and which of them make a stage.

Groups are tried from the most to the least telling: modules, common starts of names, and common
numbers in names (where the parts of a block lie in parallel lists).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from .evidence import Evidence, Path, number_order, tokens
from .layers import Layer, NotDenseIsoViTError, Notes
from .roles import MOST_LAYERS, Block, NotABlock, parse_block

FEWEST_LAYERS = 5
MOST_STAGES = 16
MOST_GUESSES = 16  # ways of cutting stages of equal width that are tried

Stages = list[list[Block]]
Name = Callable[[Layer], Path]


def find_blocks(layers: list[Layer], evidence: Evidence) -> list[Block]:
    """All blocks, by the first way of grouping under which every depthwise convolution lies in
    one."""
    inside = [layer for layer in layers if layer.kind not in ("conv", "other")]
    problems: list[str] = []
    groupings: list[Name] = [
        lambda layer: layer.path,
        lambda layer: tokens(layer.path),
        lambda layer: tuple(token for token in tokens(layer.path) if token.isdecimal()),
    ]
    for names in (True, False):
        for name in groupings:
            trial = replace(evidence, use_names=names, notes=Notes())
            try:
                found = _climb(inside, name, trial)
            except NotABlock as error:
                problems.append(str(error))
                continue
            if names and not _consistent(found):
                break  # names differ from block to block: they mean nothing
            evidence.notes.add(trial.notes)
            return found
    raise NotDenseIsoViTError(f"no transformer block: {problems[0]}")


def _climb(layers: list[Layer], name: Name, evidence: Evidence) -> list[Block]:
    """From every depthwise convolution up to the smallest group that parses as a block."""
    names = {layer: name(layer) for layer in layers}
    members: dict[Path, list[Layer]] = {}
    for layer, path in names.items():
        for end in range(len(path) + 1):
            members.setdefault(path[:end], []).append(layer)
    blocks: list[Block] = []
    covered: set[Layer] = set()
    for anchor in [layer for layer in layers if layer.kind == "depthwise"]:
        if anchor in covered:
            continue
        reason = f"{anchor} stands alone"
        for end in range(len(names[anchor]), -1, -1):
            label = names[anchor][:end]
            group = members[label]
            if len(group) > MOST_LAYERS or sum(e.kind == "depthwise" for e in group) > 2:
                raise NotABlock(reason)
            if len(group) < FEWEST_LAYERS:
                continue
            trial = replace(evidence, notes=Notes())
            try:
                block = parse_block(group, label, trial)
            except NotABlock as error:
                reason = str(error)
                continue
            evidence.notes.add(trial.notes)
            blocks.append(block)
            covered |= set(block.layers)
            break
        else:
            raise NotABlock(reason)
    return blocks


def _consistent(blocks: list[Block]) -> bool:
    """Whether each role bears the same name in every block, numbers of blocks and stages aside."""
    seen: dict[tuple[str, int], set[Path]] = {}
    for block in blocks:
        for role, layers in block.roles.items():
            for position, layer in enumerate(layers):
                name = layer.path[len(block.root) :]
                if block.root != block.label:
                    name = tuple(token for token in tokens(layer.path) if not token.isdecimal())
                seen.setdefault((role, position), set()).add(name)
    return all(len(names) == 1 for names in seen.values())


def order_blocks(blocks: list[Block], evidence: Evidence) -> list[Block]:
    """By number, else by definition order; AmbiguousCheckpointError: neither tells."""

    def numbered(some: list[Block]) -> list[Block]:
        by_label = {block.label: block for block in some}
        return [by_label[label] for label in number_order([*by_label], evidence.children) or ()]

    if found := numbered(blocks):
        place = [block.index for block in found]
        if evidence.definition_order and place != sorted(place):  # a module list is filled in order
            what = "order of the blocks by the numbers in names, against that of the file"
            evidence.notes.guessed.add(what)
            evidence.definition_order = False  # nor is it a ground for anything between them
        return found
    widths = dict.fromkeys(block.width for block in blocks)
    inside = [numbered([block for block in blocks if block.width == width]) for width in widths]
    if len(inside) > 1 and all(inside):  # transitions order stages of unequal width
        return [block for some in inside for block in some]
    if evidence.definition_order:
        evidence.notes.by_file_order.add("order of the blocks")
        return sorted(blocks, key=lambda block: block.index)
    raise evidence.ambiguous([block.layers[0] for block in blocks], "the order of the blocks")


def stagings(
    blocks: list[Block], rest: list[Layer], depths: Sequence[int] | None
) -> Iterator[tuple[Stages, str]]:
    """Yield ways to cut the ordered ``blocks`` into stages, the most telling first, each with what
    is guessed in it, or ""; ``rest`` lies outside them, ``depths`` is the option."""

    def cut(key: Callable[[Block], tuple]) -> Stages:
        stages: Stages = []
        for i, block in enumerate(blocks):
            if i == 0 or key(block) != key(blocks[i - 1]):
                stages.append([])
            stages[-1].append(block)
        return stages

    if depths is not None:
        if sum(depths) != len(blocks) or min(depths) < 1:
            raise NotDenseIsoViTError(f"option depths={tuple(depths)} for {len(blocks)} blocks")
        sequence = iter(blocks)
        yield [list(islice(sequence, depth)) for depth in depths], ""
        return
    by_container = cut(lambda e: (e.width, e.hidden, e.container))
    by_width = cut(lambda e: (e.width, e.hidden))
    if len(by_width) > MOST_STAGES:
        raise NotDenseIsoViTError(f"{len(by_width)} stages, at most {MOST_STAGES} were expected")
    if len(by_container) <= MOST_STAGES:
        yield _chained(by_container, rest), ""
    guess = "depths {} of stages of equal width (option depths)"
    if len(by_width) != len(by_container):
        yield _chained(by_width, rest), guess.format(",".join(str(len(s)) for s in by_width))
    entered = {layer.shape[1] for layer in rest if layer.kind in ("conv", "linear")}
    for counts in islice(_even(by_width, entered, 0, 0), MOST_GUESSES):
        parts = [(run, len(run) // count) for count, run in zip(counts, by_width)]
        stages = [run[i : i + n] for run, n in parts for i in range(0, len(run), n)]
        yield stages, guess.format(",".join(str(len(stage)) for stage in stages))


def _even(runs: Stages, entered: set[int], total: int, stages: int) -> Iterator[list[int]]:
    """Into how many stages of equal depth each run of equal width is cut, so that some convolution
    takes all widths side by side."""
    if not runs:
        if total in entered:
            yield []
        return
    length = len(runs[0])
    for count in range(1, min(length, MOST_STAGES - stages - len(runs) + 1) + 1):
        if length % count == 0 and total + count * runs[0][0].width <= max(entered, default=0):
            following = total + count * runs[0][0].width
            for counts in _even(runs[1:], entered, following, stages + count):
                yield [count, *counts]


def _chained(stages: Stages, rest: list[Layer]) -> Stages:
    """Stages of distinct widths in the order in which linear layers lead from one to the next."""
    by_width = {stage[0].width: stage for stage in stages}
    if len(by_width) < len(stages) or len(stages) < 2:
        return stages
    steps = {tuple(layer.matrix.shape)[::-1] for layer in rest if layer.kind == "linear"}
    following = {a: b for a in by_width for b in by_width if a != b and (a, b) in steps}
    starts = set(by_width) - set(following.values())
    chain = list(starts) if len(starts) == 1 else []
    while chain and chain[-1] in following and len(chain) < len(stages):
        chain.append(following[chain[-1]])
    return [by_width[width] for width in chain] if len(set(chain)) == len(stages) else stages
