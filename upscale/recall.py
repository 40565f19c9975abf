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

Given = tuple[int, bool]
"""A frame as a network gets it: its number, and whether its colours are multiplied by alpha."""

Key = tuple[str, tuple[Given, ...]]
"""What was computed, and of which frames."""

SHARE = 0.5
"""Of the memory that is left beside the network's own."""


@dataclass(frozen=True)
class Shown:
    """Which frames some clips show.

    Attributes:
        member: number of the ensemble's member that they are turned by.
        clips: the frames of each.
    """

    member: int
    clips: Sequence[tuple[Given, ...]]


class Memory:
    """Keeps what was computed of the frames of the last clip at each place.

    Args:
        budget: bytes that may be kept.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.held = 0
        """Bytes that are kept."""
        self._kept: dict[Hashable, dict[Key, Tensor]] = {}

    def at(self, place: Hashable, clip: tuple[Given, ...]) -> Recall:
        """A `protocol.Recall` for a clip at a place.

        Those of one place are used one after the other.
        """
        return _Recalling(self, place, clip)

    def take(self, place: Hashable, clip: tuple[Given, ...]) -> dict[Key, Tensor]:
        """What is kept at a place; of it only what comes from those frames alone is kept on."""
        taken = self._kept.pop(place, {})
        self.held -= sum(map(_bytes, taken.values()))
        for key, value in taken.items():
            if set(key[1]) <= set(clip):
                self.keep(place, key, value)
        return taken

    def keep(self, place: Hashable, key: Key, found: Tensor) -> None:
        """Keep something at a place, if there is room for it."""
        kept = self._kept.setdefault(place, {})
        if key not in kept and self.held + _bytes(found) <= self.budget:
            kept[key] = found
            self.held += _bytes(found)

    def forget(self) -> None:
        """Let go of everything."""
        self._kept.clear()
        self.held = 0


class _Recalling:
    """The `protocol.Recall` of one clip."""

    def __init__(self, memory: Memory, place: Hashable, clip: tuple[Given, ...]) -> None:
        self._memory, self._place, self._clip = memory, place, clip
        self._known: dict[Key, Tensor] | None = None

    def __call__(self, name: str, first: int, last: int, compute: Callable[[], Tensor]) -> Tensor:
        if self._known is None:
            self._known = self._memory.take(self._place, self._clip)
        key = name, self._clip[first : last + 1]
        if key not in self._known:
            self._known[key] = compute()
        self._memory.keep(self._place, key, self._known[key])
        return self._known[key]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
