"""The learned slopes of PReLU activations in the head: which convolution each of them follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ...errors import ModelLoadError
from ..config import PRELU, HeadLayer
from .chain import Chain
from .evidence import AmbiguousCheckpointError, Evidence, number_order
from .layers import Layer
from .options import PLACES, at_place


@dataclass(frozen=True)
class Slopes:
    """PReLU's slopes in the order in which the head uses them.

    Attributes:
        tensors: each (1,) or one per channel, before or after the PixelShuffle.
        after: index of the convolution that each follows; None: nothing tells, or one is shared.
        names: in the file, for messages.
    """

    tensors: list[Tensor]
    after: list[int] | None
    names: str


def can_be_slopes(layer: Layer) -> bool:
    """``nn.PReLU`` stores one vector, named ``weight``."""
    return layer.kind == "vector" and layer.keys[0].rsplit(".", 1)[-1] == "weight"


def find_slopes(vectors: Sequence[Layer], chain: Chain, evidence: Evidence) -> Slopes:
    """Where in the head the slopes stand, by nesting, by numbers, by the order of definition.

    Raises:
        ModelLoadError: there are more of them than convolutions, or their sizes do not fit.
    """
    convolutions = [layer for layer, _ in chain]
    names = ", ".join(map(repr, vectors))
    by_nesting = {layer: _beside(layer, convolutions, vectors) for layer in vectors}
    if None not in by_nesting.values():
        ordered = sorted(vectors, key=lambda layer: by_nesting[layer] or 0)
        return Slopes([e.weight for e in ordered], [by_nesting[e] or 0 for e in ordered], names)
    numbered = number_order([e.path for e in (*convolutions, *vectors)], evidence.universe)
    by_path = {e.path: e for e in (*convolutions, *vectors)}
    sequence = [by_path[path] for path in numbered] if numbered and evidence.use_names else None
    if sequence is None and evidence.definition_order:
        sequence = sorted((*convolutions, *vectors), key=lambda layer: layer.index)
    after = None if sequence is None else _followed(sequence, convolutions, vectors)
    if after is None or sequence is None:
        ordered = (
            evidence.in_order(vectors, "slopes of the head") if len(vectors) > 1 else list(vectors)
        )
        return Slopes([e.weight for e in ordered], None, names)
    if not numbered:
        evidence.notes.by_file_order.add("places of the slopes in the head")
    return Slopes([e.weight for e in sequence if e in vectors], after, names)


def _beside(layer: Layer, convolutions: Sequence[Layer], vectors: Sequence[Layer]) -> int | None:
    """The only convolution in the same module, if no other slopes are in it."""
    parent = layer.path[:-1]
    inside = [i for i, e in enumerate(convolutions) if e.path[: len(parent)] == parent]
    others = [e for e in vectors if e is not layer and e.path[: len(parent)] == parent]
    return inside[0] if parent and len(inside) == 1 and not others else None


def _followed(
    sequence: list[Layer], convolutions: Sequence[Layer], vectors: Sequence[Layer]
) -> list[int] | None:
    """The convolution before each of the slopes; None unless every one has a convolution of its
    own."""
    after, passed = [], []
    for layer in sequence:
        if layer in vectors:
            if not passed or passed[-1] is None:
                return None
            after.append(convolutions.index(passed[-1]))
            passed.append(None)
        else:
            passed.append(layer)
    in_order = [layer for layer in sequence if layer not in vectors] == list(convolutions)
    only_at_the_end = len(after) == 1 < len(convolutions) and after[0] == len(convolutions) - 1
    return after if in_order and not only_at_the_end else None


def place_slopes(slopes: Slopes, head: Sequence[HeadLayer], activations: list[str], place: str,
                 notes_guessed: set[str]) -> tuple[list[str], dict[int, Tensor]]:  # fmt: skip
    """The activation after every convolution, and slopes per channel in front of the PixelShuffle.

    Args:
        slopes: from `find_slopes`.
        head: the convolutions.
        activations: from the options; they name the places where they hold "prelu".
        place: the option head_activation_place, for slopes whose places nothing else tells.
        notes_guessed: receives what was guessed.

    Raises:
        AmbiguousCheckpointError: nothing tells the places.
        ModelLoadError: the places and the slopes do not fit.
    """
    places = [i for i, name in enumerate(activations) if name == PRELU] or slopes.after
    count = len(slopes.tensors)
    if places is None:
        candidates = {name: at_place(head, name) for name in PLACES}
        fitting = {
            n: p
            for n, p in candidates.items()
            if p and count in (1, len(p)) and _fit(slopes.tensors, p, head)
        }
        if place not in fitting and len({tuple(p) for p in fitting.values()}) != 1:
            raise AmbiguousCheckpointError(
                f"a Dense-Iso-ViT whose head has {count} PReLU ({slopes.names}) for {len(head)} convolutions; the "
                f"option head_activation says after which, for example head_activation=prelu{',none' * (len(head) - 1)}"
            )
        name = place if place in fitting else next(iter(fitting))
        places = fitting[name]
        notes_guessed.add(
            f"PReLU at the place {name!r} of the head (options head_activation, head_activation_place)"
        )
    tensors = slopes.tensors * len(places) if count == 1 else slopes.tensors
    if len(tensors) != len(places) or not _fit(tensors, places, head):
        raise ModelLoadError(
            f"{count} PReLU ({slopes.names}) do not fit after the convolutions {[i + 1 for i in places]} of the head; "
            f"the option head_activation has one entry for each of its {len(head)} convolutions"
        )
    named = [PRELU if i in places else name for i, name in enumerate(activations)]
    return named, {i: _before_shuffle(tensor, head[i]) for i, tensor in zip(places, tensors)}


def _fit(tensors: Sequence[Tensor], places: Sequence[int], head: Sequence[HeadLayer]) -> bool:
    pairs = zip([*tensors] * len(places) if len(tensors) == 1 else tensors, places)
    return all(
        t.numel() in (1, head[i].channels, head[i].channels // head[i].shuffle ** 2)
        for t, i in pairs
    )


def _before_shuffle(slopes: Tensor, layer: HeadLayer) -> Tensor:
    """One slope per channel of the convolution: a channel behind PixelShuffle(r) comes from r * r
    neighbouring ones."""
    if slopes.numel() == 1:
        return slopes.expand(layer.channels)
    return slopes.repeat_interleave(layer.channels // slopes.numel())
