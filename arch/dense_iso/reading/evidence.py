"""Telling equal-shaped layers apart: numbers in names, words in names, nesting, definition order,
and nothing else.

Names are evidence only where they carry meaning: numbers must count from 0 or 1 without gaps and
belong to nothing but the layers in question, words must be known ones. Everything weaker is noted,
and what has no ground at all is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import ModelLoadError
from .layers import Layer, NotDenseIsoViTError, Notes, Path, common_prefix


def known(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


ATTN_WORDS = known("attn attention atten att msa mha mhsa sa selfattn selfattention qkv")
FFN_WORDS = known("ff ffn mlp gdfn feed feedforward gate gated mixer")
FIRST_WORDS, SECOND_WORDS = known("before pre input first"), known("after post second")
NUMBERS = ("one first", "two second", "three third", "four fourth", "five fifth", "six sixth")
NUMBER_WORDS = {word: str(n) for n, text in enumerate(NUMBERS, 1) for word in known(text)}


class NoResemblanceError(NotDenseIsoViTError):
    """Not even the parts that make this network recognisable are there."""


class AmbiguousCheckpointError(ModelLoadError):
    """It is a Dense-Iso-ViT, but names and order do not tell equal-shaped layers apart."""


def tokens(path: Path) -> Path:
    """A name cut finely, for its structure: ("s0b1", "fcIn2", "first") -> s 0 b 1 fc In 2 1."""
    found = (
        token for part in path for token in re.findall(r"\d+|[A-Z]?[a-z]+|[A-Z]+(?![a-z])", part)
    )
    return tuple(NUMBER_WORDS.get(str(token).lower(), str(token)) for token in found)


def nesting(path: Path) -> Path:
    """A name cut where people nest: at dots, underscores and capitals."""
    return tuple(word for part in path for word in re.split(r"[_\-]+|(?<=[a-z])(?=[A-Z])", part))


def words(path: Path) -> list[str]:
    """A name cut as people write it, for its meaning: ("attnNorm", "to_q2") -> attn norm to q."""
    found = (re.sub(r"\d+$", "", word).lower() for word in nesting(path))
    return [word for word in found if word]


@dataclass
class Evidence:
    """What may be used to tell layers apart, and the record of what was used."""

    children: dict[Path, set[str]]  # from every start of a name to the components that follow it
    definition_order: bool  # the file's order means something
    use_names: bool = True  # names mean something
    notes: Notes = field(default_factory=Notes)

    def spoken(self, layer: Layer, root: int = 0) -> set[str]:
        """The words of a name below ``root`` components; none where names mean nothing."""
        return set(words(layer.path[root:])) if self.use_names else set()

    def numbered(self, layers: Sequence[Layer]) -> list[Layer] | None:
        """``layers`` sorted by the numbers in their names; None where they differ in more."""
        by_path = {layer.path: layer for layer in layers}
        if not self.use_names or len(by_path) < len(layers):
            return None
        order = number_order(list(by_path), self.children)
        return None if order is None else [by_path[path] for path in order]

    def in_order(self, layers: Sequence[Layer], what: str) -> list[Layer]:
        """``layers`` by number, else by definition order or alphabet, which is noted."""
        numbered = self.numbered(layers) if len(layers) > 1 else list(layers)
        if numbered is None:
            return self.by_order(layers, what)
        if self.definition_order and numbered != sorted(layers, key=lambda layer: layer.index):
            self.notes.guessed.add(f"{what} by the numbers in names, against the file's order")
        return numbered

    def by_order(self, layers: Sequence[Layer], what: str) -> list[Layer]:
        """``layers`` by definition order, else by alphabet."""
        if not self.definition_order and not self.use_names:
            raise self.ambiguous(layers, what)
        self.note(what)

        def natural(layer: Layer) -> list:  # block2 comes before block10
            return [(t.isalpha(), int(t) if t.isdecimal() else 0, t) for t in tokens(layer.path)]

        return sorted(layers, key=(lambda e: e.index) if self.definition_order else natural)

    def note(self, what: str) -> None:
        """``what`` is told by the order of definition, or else guessed."""
        notes = self.notes
        (notes.by_file_order if self.definition_order else notes.guessed).add(what)

    def ambiguous(self, layers: Sequence[Layer], what: str) -> AmbiguousCheckpointError:
        """The error that says that nothing tells these layers apart."""
        names = ", ".join(".".join(layer.path) for layer in layers[:6])
        return AmbiguousCheckpointError(
            f"a Dense-Iso-ViT, but nothing tells {what} apart: {names}. Names do not say it, or contradict each other; "
            "a file written by torch.save keeps the order of definition, which can help, or rename them"
        )


def children_of(paths: Sequence[Path]) -> dict[Path, set[str]]:
    """See `Evidence.children`."""
    found: dict[Path, set[str]] = {}
    for path in paths:
        for end, component in enumerate(path):
            found.setdefault(path[:end], set()).add(component)
    return found


def number_order(paths: list[Path], children: dict[Path, set[str]]) -> list[Path] | None:
    """``paths`` sorted by the numbers in which they differ; None where they differ in more."""
    if len(paths) == 1:
        return paths
    shared = common_prefix(paths)
    depth = len(shared)
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(path[depth] if len(path) > depth else "", []).append(path)
    numbers = _numbers(list(groups), children.get(shared, set()))
    result: list[Path] = []
    for component in sorted(groups, key=lambda name: (numbers or {}).get(name, ())):
        inner = number_order(groups[component], children) if numbers else None
        if inner is None:
            return None
        result += inner
    return result


def _numbers(components: list[str], siblings: set[str]) -> dict[str, tuple[int, ...]] | None:
    """The numbers of names like path_1 and path_2, 0 and 2; None without, or where siblings are
    counted with them."""
    shapes = {component: _shape(component) for component in components}
    found = {component: numbers for component, (_, numbers) in shapes.items()}
    kinds = {shape for shape, _ in shapes.values()}
    if len(kinds) > 1 or len(set(found.values())) < len(found):
        return None
    if kinds == {"#"}:
        return found
    fixed: dict[int, int] = {}
    for place, column in enumerate(zip(*found.values())):
        values = sorted(set(column))
        if len(values) == 1:
            fixed[place] = values[0]
        elif values != list(range(values[0], values[0] + len(values))) or values[0] > 1:
            return None
    for shape, numbers in map(_shape, siblings - set(components)):
        if shape in kinds and all(numbers[place] == number for place, number in fixed.items()):
            return None
    return found


def _shape(component: str) -> tuple[str, tuple[int, ...]]:
    """("fc#in.", (2,)) for fc2in."""
    parts = tokens((component,)) or (component,)
    shape = "".join("#" if part.isdecimal() else part + "." for part in parts)
    return shape, tuple(int(part) for part in parts if part.isdecimal())


def branch_of(spoken: set[str]) -> int:
    """1 if words speak of attention or the first branch, 2 of the other, 0 of neither."""
    attention, feed_forward = bool(spoken & ATTN_WORDS), bool(spoken & FFN_WORDS)
    if attention != feed_forward:  # a norm after attention feeds what follows
        return 2 if feed_forward or spoken & {"post", "after"} else 1
    first, second = bool(spoken & FIRST_WORDS), bool(spoken & SECOND_WORDS)
    return 0 if first == second else (1 if first else 2)


def two_branches(pair: Sequence[Layer], attention: Sequence[Layer], feed_forward: Sequence[Layer],
                 root: int, evidence: Evidence, what: str) -> list[Layer]:  # fmt: skip
    """Of two layers, first attention's, then that of the feed-forward part."""

    def together(layer: Layer, others: Sequence[Layer]) -> int:
        paths = [entry.path for entry in (layer, *others)]
        return len(common_prefix([nesting(p) for p in paths] if evidence.use_names else paths))

    first, second = pair
    lean = [together(layer, attention) - together(layer, feed_forward) for layer in pair]
    if lean[0] != lean[1]:
        return [first, second] if lean[0] > lean[1] else [second, first]
    branches = [branch_of(evidence.spoken(layer, root)) for layer in pair]
    if branches[0] != branches[1]:
        attends = branches[0] == 1 or branches[1] == 2
        return [first, second] if attends else [second, first]
    return evidence.in_order(pair, what)
