"""The head of an unknown spelling: which order of its convolutions leads from the features to
colours.

A convolution to c channels may be followed by PixelShuffle(r), which leaves c / r**2 channels for
the next one; the last one leaves three. Shapes fix the order of unequal convolutions, evidence that
of equal ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from ..config import RGB
from .evidence import Evidence, number_order
from .layers import Layer, words

EARLY_WORDS = {
    "fuse",
    "fusion",
    "fus",
    "fuser",
    "reduce",
    "squeeze",
    "compress",
    "merge",
    "pre",
    "first",
    "in",
    "bottleneck",
    "refine",
    "body",
}
LATE_WORDS = {
    "last",
    "final",
    "tail",
    "out",
    "output",
    "post",
    "hr",
    "rgb",
    "recon",
    "reconstruct",
    "to_rgb",
    "finish",
}
MOST_SOLUTIONS = 200

Shape = tuple[int, int, int]  # output channels, input channels, kernel
Chain = list[tuple[Layer, int]]  # convolutions, each with the factor of the PixelShuffle after it


def solve_chain(layers: Sequence[Layer], channels: int, evidence: Evidence) -> Chain | str:
    """The head from ``channels`` features to RGB as (layer, PixelShuffle factor after it), or why
    there is none."""
    odd = [layer for layer in layers if _shape(layer)[2] % 2 == 0]
    if odd:
        return f"even kernels in the head: {odd}"
    counts: dict[Shape, int] = {}
    for layer in layers:
        counts[_shape(layer)] = counts.get(_shape(layer), 0) + 1
    solutions = list(itertools.islice(_orders(counts, channels, None), MOST_SOLUTIONS))
    if not solutions:
        return (
            f"convolutions {sorted(counts)} (output, input, kernel) do not lead from {channels} channels to "
            f"{RGB} colours with a PixelShuffle between some of them; option prefix leaves other networks' tensors out"
        )
    members = {
        shape: evidence.in_order(
            [layer for layer in layers if _shape(layer) == shape],
            "equal convolutions of the head",
            among=layers,
        )
        for shape in counts
    }
    chains = []
    for solution in solutions:
        queues = {shape: iter(equal) for shape, equal in members.items()}
        chains.append([(next(queues[shape]), factor) for shape, factor in solution])
    return _most_plausible(chains, layers, evidence)


def _shape(layer: Layer) -> Shape:
    shape = layer.shape
    return shape[0], shape[1], shape[2] if len(shape) == 4 else 1


def _orders(
    counts: dict[Shape, int], channels: int, last: Shape | None
) -> Iterator[list[tuple[Shape, int]]]:
    """Orders of the shapes, each with the shuffle factor that follows; ``last`` is waiting for its
    factor."""
    if not any(counts.values()):
        factor = _factor(channels, RGB)
        if last is not None and factor:
            yield [(last, factor)]
        return
    for shape, count in counts.items():
        factor = _factor(channels, shape[1])
        if not count or not factor or (last is None and factor > 1):
            continue
        for rest in _orders({**counts, shape: count - 1}, shape[0], shape):
            yield rest if last is None else [(last, factor), *rest]


def _factor(before: int, after: int) -> int:
    """r with before == after * r**2, or 0."""
    factor = math.isqrt(before // after)
    return factor if before == after * factor**2 else 0


def _most_plausible(chains: list[Chain], layers: Sequence[Layer], evidence: Evidence) -> Chain:
    """Of several orders that fit: by number, by definition order, by words; fusion first is the
    default."""
    if len(chains) == 1:
        return chains[0]
    what = "order of the head's convolutions"
    numbered = (
        number_order([layer.path for layer in layers], evidence.universe)
        if evidence.use_names
        else None
    )
    by_path = {layer.path: layer for layer in layers}
    order = (
        [by_path[path] for path in numbered]
        if numbered
        else sorted(layers, key=lambda layer: layer.index)
    )
    if numbered or evidence.definition_order:
        if not numbered:
            evidence.notes.by_file_order.add(what)
        for chain in chains:
            if [layer for layer, _ in chain] == order:
                return chain

    def lateness(layer: Layer) -> int:
        found = set(words(layer.path))
        return bool(found & LATE_WORDS) - bool(found & EARLY_WORDS)

    def against_numbers(chain: Chain) -> int:
        pairs = itertools.combinations([layer.path for layer, _ in chain], 2)
        return sum(
            (number_order(list(pair), evidence.universe) or pair)[0] != pair[0] for pair in pairs
        )

    def quality(chain: Chain) -> tuple[int, int, int]:
        spoken = sum(position * lateness(layer) for position, (layer, _) in enumerate(chain))
        first_shuffle = next(
            i for i, (_, factor) in enumerate(chain) if factor > 1 or i == len(chain) - 1
        )
        numbers = -against_numbers(chain) if evidence.use_names else 0
        return numbers, (spoken if evidence.use_names else 0), first_shuffle

    evidence.notes.guessed.add(what)
    return max(chains, key=quality)
