"""The head of an unknown spelling: which order of its convolutions leads from the features to
colours.

A convolution to c channels may be followed by PixelShuffle(r), which leaves c / r**2 channels for
the next one; the last one leaves three. Shapes fix the order of unequal convolutions, evidence that
of equal ones.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

from ..config import RGB
from .evidence import Evidence, known
from .layers import Layer, NotDenseIsoViTError

EARLY_WORDS = known("fuse fusion fus fuser reduce squeeze compress merge pre first in refine body")
LATE_WORDS = known("last final tail out output post hr rgb recon reconstruct finish")
MOST_CONVOLUTIONS = 24
MOST_SOLUTIONS = 100
MOST_DEAD_ENDS = 10_000

Shape = tuple[int, int, int]  # output channels, input channels, kernel
Chain = list[tuple[Layer, int]]  # convolutions, each with the factor of the PixelShuffle after it


def solve_chain(layers: Sequence[Layer], channels: int, evidence: Evidence) -> Chain:
    """The head from ``channels`` features to RGB; NotDenseIsoViTError: there is none."""
    if len(layers) > MOST_CONVOLUTIONS:
        what = f"{len(layers)} convolutions in the head ({layers[:3]})"
        raise NotDenseIsoViTError(f"{what}, at most {MOST_CONVOLUTIONS} were expected")
    odd = [e for e in layers if _shape(e)[2] % 2 == 0 or _shape(e)[:2] == (RGB, RGB)]
    if odd:
        what = (
            f"{odd[:3]} outside the blocks: even kernels, or convolutions from colours to colours"
        )
        raise NotDenseIsoViTError(f"{what}, perhaps of means and deviations; neither is read")
    counts = Counter(sorted(map(_shape, layers)))
    orders = list(itertools.islice(_orders(counts, channels), MOST_SOLUTIONS))
    if not orders:
        raise NotDenseIsoViTError(
            f"convolutions {sorted(counts)} (output, input, kernel) do not lead from {channels} channels to {RGB} "
            "with PixelShuffles between; option prefix leaves other networks' tensors out"
        )
    what = "order of the head's convolutions"
    sequence = evidence.numbered(layers)
    if sequence is None and evidence.definition_order and len(orders) > 1:
        sequence = sorted(layers, key=lambda layer: layer.index)
        evidence.notes.by_file_order.add(what)
    if sequence is not None:
        wanted = [_shape(layer) for layer in sequence]
        for order in orders:
            if [shape for shape, _ in order] == wanted:
                return [(layer, factor) for layer, (_, factor) in zip(sequence, order)]
    members = {}
    for shape in counts:
        equal = [layer for layer in layers if _shape(layer) == shape]
        members[shape] = evidence.in_order(equal, "equal convolutions of the head")
    chains = []
    for order in orders:
        queues = {shape: iter(equal) for shape, equal in members.items()}
        chains.append([(next(queues[shape]), factor) for shape, factor in order])
    if len(chains) > 1:
        evidence.notes.guessed.add(what)
    return max(chains, key=lambda chain: _plausibility(chain, evidence))


def _shape(layer: Layer) -> Shape:
    shape = layer.shape
    return shape[0], shape[1], shape[2] if len(shape) == 4 else 1


def _orders(counts: Counter[Shape], channels: int) -> Iterator[list[tuple[Shape, int]]]:
    """Orders of the shapes, each with the shuffle factor that follows. Dead ends are remembered by
    what is left and the channels that have to be taken, so they are walked once."""
    left, total, dead = dict(counts), sum(counts.values()), set()

    def walk(last: Shape, remaining: int) -> Iterator[list[tuple[Shape, int]]]:
        if remaining == 0:
            if factor := _factor(last[0], RGB):
                yield [(last, factor)]
            return
        state, found = (last[0], *left.values()), False
        if state in dead:
            return
        for shape in counts:
            factor = _factor(last[0], shape[1]) if left[shape] else 0
            if not factor or (remaining == total and factor > 1):  # features are not shuffled
                continue
            left[shape] -= 1
            for rest in walk(shape, remaining - 1):
                found = True
                yield [(last, factor), *rest]
            left[shape] += 1
        if not found:
            dead.add(state)
        if len(dead) > MOST_DEAD_ENDS:
            raise NotDenseIsoViTError(f"too many orders of {total} convolutions in the head")

    return (order[1:] for order in walk((channels, 0, 1), total))


def _factor(before: int, after: int) -> int:
    """r with before == after * r**2, or 0."""
    factor = math.isqrt(before // after)
    return factor if before == after * factor**2 else 0


def _plausibility(chain: Chain, evidence: Evidence) -> tuple[int, int, int]:
    """Of several orders that fit: by numbers, by words; fusion first is the default."""
    layers = [layer for layer, _ in chain]
    pairs = [(a, evidence.numbered((a, b))) for a, b in itertools.combinations(layers, 2)]
    with_numbers = sum(order is not None and order[0] is a for a, order in pairs)
    spoken = [evidence.spoken(layer) for layer in layers]
    lateness = [bool(found & LATE_WORDS) - bool(found & EARLY_WORDS) for found in spoken]
    first_shuffle = next((i for i, (_, r) in enumerate(chain) if r > 1), len(chain) - 1)
    return with_numbers, sum(i * late for i, late in enumerate(lateness)), first_shuffle
