"""What of a video is damaged or missing, by what its packets and frames show."""

from __future__ import annotations

from collections import Counter, deque
from fractions import Fraction
from typing import Any

_LEAST_HOLE = Fraction(1, 2)  # seconds without a picture that are told
_EVEN = Fraction(9, 10)  # of all pictures come as often as usual, where holes count as such
_TOLD = 5  # holes that are told one by one


class Damage:
    """Sees a video's packets and frames as they are read."""

    def __init__(self) -> None:
        self.undecoded = 0
        """Packets that could not be decoded."""
        self._incomplete = self._faulty = self._stretch = 0
        self._last_incomplete: deque[bool] = deque(maxlen=2)  # a parser may be one packet behind
        self._lengths: Counter[int] = Counter()
        self._holes: list[tuple[int, int]] = []

    def see_packet(self, packet: Any, stretch: int) -> None:
        """One more packet, and the number of the stretch of the clock in which it lies.

        FFmpeg calls one of the last packets of a stretch incomplete because packets of a transport
        stream are counted anew where another file was joined.
        """
        if stretch != self._stretch:
            self._incomplete -= sum(self._last_incomplete)
            self._last_incomplete.clear()
        self._incomplete += packet.is_corrupt
        self._stretch = stretch
        self._last_incomplete.append(packet.is_corrupt)

    def see_frame(self, frame: Any, last: int | None, pts: int, base: Fraction) -> None:
        """One more frame, and the times of the one before and of this, in units of ``base``."""
        self._faulty += frame.is_corrupt
        if last is not None:
            self.see_time(last, pts, base)

    def see_time(self, last: int, pts: int, base: Fraction) -> None:
        """The times of two frames that follow each other."""
        self._lengths[pts - last] += 1
        if (pts - last) * base >= _LEAST_HOLE:
            self._holes.append((last, pts))

    @property
    def flawed(self) -> bool:
        """Whether a packet or frame was not decoded as it should be."""
        return bool(self.undecoded or self._faulty)

    @property
    def longest(self) -> int:
        """The longest time from one frame to the next."""
        return max(self._lengths, default=0)

    def told(self, base: Fraction) -> list[str]:
        """In words, one for each kind.

        Pictures that come after a long time are told where the others come evenly, and not in
        videos of variable frame rates.
        """
        found = []
        if self.undecoded:
            found.append(
                f"{self.undecoded} packets could not be decoded; their frames are left out"
            )
        if self._incomplete:
            found.append(f"{self._incomplete} packets are incomplete")
        if self._faulty:
            found.append(f"{self._faulty} frames are damaged")
        usual = self._lengths.most_common(1)[0][0] if self._lengths else 1
        even = sum(n for length, n in self._lengths.items() if 2 * length < 3 * usual)
        holes = [
            f"from {float(begin * base):.2f} to {float(end * base):.2f}"
            for begin, end in self._holes
            if (end - begin - usual) * base >= _LEAST_HOLE
        ]
        if holes and even >= _EVEN * self._lengths.total():
            more = f" and {len(holes) - _TOLD} times more" if len(holes) > _TOLD else ""
            found.append(
                f"there is no picture {', '.join(holes[:_TOLD])} s{more}; the one before stays"
            )
        return found
