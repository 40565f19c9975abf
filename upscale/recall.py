"""What networks of several frames compute of some of them, kept for the clips that follow.

A video moves on by one frame, so most of what a network like TSCUNet computes of a clip's single
frames and neighbours serves the next clip as well. It is kept on the device for each place of the
picture, while there is memory for it, and where there is none it is computed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

from .protocol import Recall

SHARE = 0.5
"""Of the memory that is left beside the network's own."""


@dataclass(frozen=True)
class Shown:
    """Which frames some clips show.

    Attributes:
        member: number of the ensemble's member that they are turned by.
        numbers: for each clip the numbers of its frames.
    """

    member: int
    numbers: Sequence[tuple[int, ...]]


class Memory:
    """Keeps what the last clip at each place asked for: the next one asks for nothing older.

    Args:
        budget: bytes that may be kept.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.held = 0
        """Bytes that are kept."""
        self._kept: dict[Hashable, dict[Hashable, Tensor]] = {}

    def at(self, place: Hashable, numbers: tuple[int, ...]) -> Recall:
        """A `protocol.Recall` for a clip of frames of these numbers at a place."""
        earlier = self._kept.pop(place, {})
        self.held -= sum(map(_bytes, earlier.values()))
        now = self._kept[place] = {}

        def recall(name: str, first: int, last: int, compute: Callable[[], Tensor]) -> Tensor:
            key = name, numbers[first : last + 1]
            found = now.get(key, earlier.get(key))
            found = compute() if found is None else found
            if key not in now and self.held + _bytes(found) <= self.budget:
                now[key] = found
                self.held += _bytes(found)
            return found

        return recall

    def forget(self) -> None:
        """Let go of everything."""
        self._kept.clear()
        self.held = 0


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
