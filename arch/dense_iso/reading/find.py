"""The transformer blocks among layers of unknown names: which layers belong together, and in which
order they run.

Groups are tried from the most to the least telling: modules, common starts of names, common numbers
in names (where the parts of a block lie in parallel lists), and, where names group nothing, runs of
consecutive layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .block import MOST_LAYERS, Block, NotABlock, parse_block
from .evidence import Evidence, NotDenseIsoViTError, Path, number_order
from .layers import Layer, Notes, tokens

FEWEST_LAYERS = 5


@dataclass
class Labelled:
    """A block with the part of its name that numbers it."""

    label: Path
    block: Block

    @property
    def container(self) -> Path:
        """The label without the block's own number."""
        end = len(self.label)
        while end and not any(token.isdigit() for token in tokens(self.label[end - 1 : end])):
            end -= 1
        return self.label[: max(end - 1, 0)]


def find_blocks(layers: list[Layer], evidence: Evidence) -> list[Labelled]:
    """All blocks, by the first way of grouping under which every depthwise convolution lies in
    one."""
    inside = [layer for layer in layers if layer.kind not in ("conv", "other")]
    anchors = [layer for layer in inside if layer.kind == "depthwise"]
    problems: list[str] = []
    groupings = [
        (lambda layer: layer.path, "module"),
        (lambda layer: tokens(layer.path), "name"),
        (lambda layer: tuple(token for token in tokens(layer.path) if token.isdigit()), "number"),
    ]
    for names in (True, False):
        trial = replace(evidence, use_names=names)
        for name, kind in groupings:
            try:
                trial.notes = Notes()
                found = _climb(inside, anchors, name, trial, strict=kind != "module")
            except NotABlock as error:
                problems.append(f"grouped by {kind}: {error}")
                continue
            if names and not _consistent(found):
                break  # names differ from block to block: they mean nothing
            _keep(evidence, trial)
            return found
    if evidence.definition_order:
        trial = replace(evidence, use_names=False, notes=Notes())
        found = _walk(inside, trial)
        if found:
            trial.notes.by_file_order.add("extent of the blocks")
            _keep(evidence, trial)
            return found
    raise NotDenseIsoViTError(
        f"no transformer block around {anchors[0]}: {problems[0] if problems else 'no grouping'}"
    )


def _keep(evidence: Evidence, trial: Evidence) -> None:
    evidence.notes.by_file_order |= trial.notes.by_file_order
    evidence.notes.guessed |= trial.notes.guessed


def _climb(
    layers: list[Layer], anchors: list[Layer], name, evidence: Evidence, strict: bool
) -> list[Labelled]:
    """From every depthwise convolution up to the smallest group that parses as a block."""
    names = {layer: tuple(name(layer)) for layer in layers}
    members: dict[Path, list[Layer]] = {}
    for layer, path in names.items():
        for end in range(len(path) + 1):
            members.setdefault(path[:end], []).append(layer)
    blocks: list[Labelled] = []
    covered: set[Layer] = set()
    for anchor in anchors:
        if anchor in covered:
            continue
        reason = "it stands alone"
        for end in range(len(names[anchor]), -1, -1):
            label = names[anchor][:end]
            group = members[label]
            if sum(layer.kind == "depthwise" for layer in group) > 2 or len(group) > MOST_LAYERS:
                raise NotABlock(reason)
            if len(group) < FEWEST_LAYERS:
                continue
            trial = replace(evidence, notes=Notes())
            root = label if not strict else _shared_path(group)
            try:
                block = parse_block(group, root, trial)
            except NotABlock as error:
                reason = str(error)
                continue
            _keep(evidence, trial)
            blocks.append(Labelled(label, block))
            covered |= set(block.layers)
            break
        else:
            raise NotABlock(reason)
    return blocks


def _shared_path(group: list[Layer]) -> Path:
    shortest = min((layer.path for layer in group), key=len)
    end = 0
    while end < len(shortest) - 1 and all(layer.path[end] == shortest[end] for layer in group):
        end += 1
    return shortest[:end]


def _consistent(blocks: list[Labelled]) -> bool:
    """Whether each role bears the same name in every block, numbers of blocks and stages aside."""

    def role_name(entry: Labelled, layer: Layer) -> tuple[str, ...]:
        path = (
            layer.path[len(entry.block.root) :] if entry.block.root == entry.label else layer.path
        )
        if entry.block.root == entry.label:
            return path
        return tuple(token for token in tokens(path) if not token.isdigit())

    seen: dict[tuple[str, int], set[tuple[str, ...]]] = {}
    for entry in blocks:
        for role, layers in entry.block.roles.items():
            for position, layer in enumerate(layers):
                seen.setdefault((role, position), set()).add(role_name(entry, layer))
    return all(len(names) == 1 for names in seen.values())


def _walk(layers: list[Layer], evidence: Evidence) -> list[Labelled]:
    """Blocks as runs of consecutive layers, where names group nothing."""
    blocks: list[Labelled] = []
    lengths = range(MOST_LAYERS, 6, -1)  # the longest first, so that no projection is left behind
    position = 0
    while position < len(layers):
        for length in lengths:
            group = layers[position : position + length]
            depthwise = sum(layer.kind == "depthwise" for layer in group)
            if len(group) < length or depthwise not in (1, 2):
                continue
            trial = replace(evidence, notes=Notes())
            try:
                block = parse_block(group, (), trial)
            except NotABlock:
                continue
            _keep(evidence, trial)
            blocks.append(Labelled((), block))
            position += length - 1
            break
        position += 1
    inside = {id(layer) for entry in blocks for layer in entry.block.layers}
    missed = [layer for layer in layers if layer.kind == "depthwise" and id(layer) not in inside]
    return [] if missed else blocks


def order_blocks(blocks: list[Labelled], evidence: Evidence) -> list[Labelled]:
    """By number, else by definition order.

    Raises:
        AmbiguousCheckpointError: neither tells.
    """
    by_label = {entry.label: entry for entry in blocks}
    if len(by_label) == len(blocks):
        numbered = number_order([entry.label for entry in blocks], evidence.universe)
        if numbered is not None:
            if evidence.definition_order and not _numbers_are_places(blocks, numbered):
                evidence.notes.guessed.add(
                    "order of the blocks by the numbers in names, against that of the file"
                )
                evidence.definition_order = False  # nor is it a ground for anything between them
            return [by_label[label] for label in numbered]
        by_width: dict[int, list[Path]] = {}
        for entry in blocks:
            by_width.setdefault(entry.block.width, []).append(entry.label)
        inside = [number_order(labels, evidence.universe) for labels in by_width.values()]
        if len(inside) > 1 and all(inside):  # transitions order stages of unequal width
            return [by_label[label] for labels in inside for label in labels or []]
    if evidence.definition_order:
        if len(by_label) == len(blocks):
            evidence.notes.by_file_order.add("order of the blocks")
        return sorted(blocks, key=lambda entry: entry.block.index)
    raise evidence.ambiguous([entry.block.layers[0] for entry in blocks], "the order of the blocks")


def _numbers_are_places(blocks: list[Labelled], numbered: list[Path]) -> bool:
    """A module list is filled in order, so numbers and the file agree."""
    place = {entry.label: entry.block.index for entry in blocks}
    return [place[label] for label in numbered] == sorted(place.values())
