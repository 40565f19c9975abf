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
from .layers import Layer, Notes, common_prefix, natural_key, tokens, words

Path = tuple[str, ...]

ATTENTION_WORDS = {
    "attn",
    "attention",
    "atten",
    "att",
    "msa",
    "mha",
    "mhsa",
    "sa",
    "selfattn",
    "selfattention",
    "qkv",
}
FEED_FORWARD_WORDS = {"ff", "ffn", "mlp", "gdfn", "feed", "feedforward", "gate", "gated", "mixer"}
FIRST_WORDS = {"before", "pre", "input", "first"}
SECOND_WORDS = {"after", "post", "second"}
GATE_WORDS = {"gate", "gated", "gating", "gelu", "act", "activation"}
VALUE_WORDS = {
    "value",
    "val",
    "content",
    "main",
    "linear",
    "lin",
    "signal",
    "data",
    "feat",
    "feature",
    "features",
    "info",
}


class NotDenseIsoViTError(ModelLoadError):
    """The tensors are not those of a Dense-Iso-ViT; the message says what was found and what did
    not fit."""


class NoResemblanceError(NotDenseIsoViTError):
    """Not even the parts that make this network recognisable are there."""


class AmbiguousCheckpointError(ModelLoadError):
    """It is a Dense-Iso-ViT, but names and order do not tell equal-shaped layers apart."""


@dataclass
class Evidence:
    """What may be used to tell layers apart, and the record of what was used.

    Attributes:
        universe: paths of all layers.
        definition_order: whether the file's order means something.
        use_names: whether names mean something.
        notes: receives the grounds.
    """

    universe: list[Path]
    definition_order: bool
    use_names: bool = True
    notes: Notes = field(default_factory=Notes)

    def in_order(
        self, layers: Sequence[Layer], what: str, among: Sequence[Layer] = ()
    ) -> list[Layer]:
        """``layers`` by number, else by definition order, else by alphabet.

        Args:
            layers: of equal shape.
            what: names them in notes and errors.
            among: layers of the same sequence, which may be numbered with them.
        """
        layers = sorted(layers, key=lambda layer: layer.index)
        if len(layers) < 2:
            return list(layers)
        if self.use_names:
            others = {layer.path for layer in among} - {layer.path for layer in layers}
            own, universe = (
                [layer.path for layer in layers],
                [path for path in self.universe if path not in others],
            )
            everything = number_order([*own, *others], self.universe) if others else None
            numbered = everything or number_order(own, universe)
            if numbered is not None:
                return sorted(layers, key=lambda layer: numbered.index(layer.path))
        return self.by_order(layers, what)

    def by_order(self, layers: Sequence[Layer], what: str) -> list[Layer]:
        """``layers`` by definition order, else by alphabet."""
        if self.definition_order:
            self.notes.by_file_order.add(what)
            return sorted(layers, key=lambda layer: layer.index)
        if self.use_names:
            self.notes.guessed.add(what)
            return sorted(layers, key=lambda layer: natural_key(layer.path))
        raise self.ambiguous(layers, what)

    def ambiguous(self, layers: Sequence[Layer], what: str) -> AmbiguousCheckpointError:
        """The error that says that nothing tells these layers apart."""
        names = ", ".join(layer.name for layer in layers[:6])
        return AmbiguousCheckpointError(
            f"a Dense-Iso-ViT, but nothing tells {what} apart: {names}. The names say nothing and the file does not "
            "keep the order of definition; a file written by torch.save does, and the option order='file' trusts the "
            "order of this one"
        )


def number_order(paths: list[Path], universe: list[Path]) -> list[Path] | None:
    """``paths`` sorted by the numbers in which they differ; None where they differ in anything
    else."""
    if len(paths) == 1:
        return paths
    shared = common_prefix(paths)
    depth = len(shared)
    if any(len(path) == depth for path in paths):
        return None
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(path[depth], []).append(path)
    siblings = {path[depth] for path in universe if path[:depth] == shared and len(path) > depth}
    numbers = _numbers(list(groups), siblings)
    if numbers is None:
        return None
    result: list[Path] = []
    for component in sorted(groups, key=lambda name: numbers[name]):
        inner = number_order(groups[component], universe)
        if inner is None:
            return None
        result += inner
    return result


def _numbers(components: list[str], siblings: set[str]) -> dict[str, tuple[int, ...]] | None:
    """The numbers of names like path_1 and path_2, norm and norm2, conv_a and conv_b, 0 and 2."""
    if all(component.isdigit() for component in components):
        return {component: (int(component),) for component in components}
    shapes = {component: _shape(component) for component in components}
    numbered = {shape for shape, numbers in shapes.values() if numbers}
    if len(numbered) != 1:
        return None
    shape = numbered.pop()
    bare = [component for component in components if not shapes[component][1]]
    if len(bare) > 1 or (
        bare and (shapes[bare[0]][0] != shape.replace("#", "") or shape.count("#") != 1)
    ):
        return None
    found = {component: numbers for component, (_, numbers) in shapes.items() if numbers}
    if bare:
        found[bare[0]] = (min(found.values())[0] - 1,)
    fixed: dict[int, int] = {}
    for place, column in enumerate(zip(*found.values())):
        values = sorted(set(column))
        if len(values) == 1:
            fixed[place] = values[0]
        elif values != list(range(values[0], values[0] + len(values))) or values[0] > 1:
            return None
    for sibling in siblings - set(components):
        its_shape, its_numbers = _shape(sibling)
        if its_shape == shape and all(
            its_numbers[place] == number for place, number in fixed.items()
        ):
            return None
    return found


def _shape(component: str) -> tuple[str, tuple[int, ...]]:
    """("fc#in", (2,)) for fc2in; a single letter at the end, as in conv_a or upB, counts as a
    number."""
    parts = list(tokens((component,))) or [component]
    last_is_letter = len(parts[-1]) == 1 and parts[-1].lower() in "abcdxyz"
    if last_is_letter and (len(parts) == 1 or len(parts[0]) > 1):
        parts[-1] = str("abcd".find(parts[-1].lower()) + 1 or "xyz".find(parts[-1].lower()) + 1)
    return "".join("#" if part.isdigit() else part + "." for part in parts), tuple(
        int(part) for part in parts if part.isdigit()
    )


def nesting(path: Path) -> Path:
    """A name cut where people nest: at dots, underscores and capitals."""
    return tuple(word for part in path for word in re.split(r"[_\-]+|(?<=[a-z])(?=[A-Z])", part))


def togetherness(layer: Layer, others: Sequence[Layer], use_names: bool) -> int:
    """How deep the smallest module around ``layer`` and all ``others`` lies."""
    paths = [entry.path for entry in (layer, *others)]
    return len(common_prefix([nesting(path) for path in paths] if use_names else paths))


def branch_of(name: Path) -> int:
    """1 if the name speaks of attention or the first branch, 2 of the feed-forward part or the
    second, 0 of neither."""
    found = set(words(name))
    attention, feed_forward = bool(found & ATTENTION_WORDS), bool(found & FEED_FORWARD_WORDS)
    if attention != feed_forward:
        speaks_of_after = attention and bool(
            found & {"post", "after"}
        )  # post_attention_norm feeds what follows
        return 2 if feed_forward or speaks_of_after else 1
    first, second = bool(found & FIRST_WORDS), bool(found & SECOND_WORDS)
    return 0 if first == second else (1 if first else 2)


def two_branches(pair: Sequence[Layer], attention: Sequence[Layer], feed_forward: Sequence[Layer],
                 root: int, evidence: Evidence, what: str) -> list[Layer]:  # fmt: skip
    """Of two layers, first the one that belongs to attention, then the one of the feed-forward
    part."""
    first, second = pair
    lean = [
        togetherness(layer, attention, evidence.use_names)
        - togetherness(layer, feed_forward, evidence.use_names)
        for layer in pair
    ]
    if lean[0] != lean[1]:
        return [first, second] if lean[0] > lean[1] else [second, first]
    if evidence.use_names:
        branches = [branch_of(layer.path[root:]) for layer in pair]
        if branches[0] != branches[1]:
            attends = branches[0] == 1 or branches[1] == 2
            return [first, second] if attends else [second, first]
    return evidence.in_order(pair, what)
