"""What a video tells of the screen that it was made on, and how bright it gets (HDR10): SMPTE ST 2086
and CTA-861.3."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_MASTERING, _LIGHT = "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"
_POINTS = ("R", "G", "B", "WP")
_OPTIONS = {  # names of an encoder's parameters: all of them, the screen, how bright it gets
    "libx265": ("x265-params", "master-display", "max-cll"),
    "libx264": ("x264-params", "mastering-display", "cll"),
    "libsvtav1": ("svtav1-params", "mastering-display", "content-light"),
}


@dataclass(frozen=True, kw_only=True)
class StaticHdr:
    """Of a whole video.

    screen: x and y of its red, green and blue and of its white (CIE 1931), its least and its
        greatest luminance in candela per square metre; None where it is not, or not all, told.
    light: the greatest of any pixel (MaxCLL) and of any frame's mean (MaxFALL), likewise.
    """

    screen: tuple[Fraction, ...] | None = None
    light: tuple[int, int] | None = None

    @property
    def named(self) -> dict[str, tuple[Any, ...]]:
        """What is told, by names for people."""
        told = {"mastering display": self.screen, "content light level": self.light}
        return {name: value for name, value in told.items() if value is not None}

    def options(self, encoder: str) -> dict[str, str]:
        """The parameters by which an encoder writes this: by the option's name, to be joined with
        what else that option says. Empty for encoders that cannot."""
        if not self.named or encoder not in _OPTIONS:
            return {}
        option, screen, light = _OPTIONS[encoder]
        parts = ["hdr10=1"] if encoder == "libx265" else []
        if self.screen:
            chroma, luma = (1, 1) if encoder == "libsvtav1" else (50_000, 10_000)
            *points, least, most = self.screen
            pairs = dict(zip(_POINTS, zip(points[::2], points[1::2])))
            text = "".join(
                f"{name}({_number(pairs[name][0] * chroma)},{_number(pairs[name][1] * chroma)})"
                for name in ("G", "B", "R", "WP")
            )
            parts.append(f"{screen}={text}L({_number(most * luma)},{_number(least * luma)})")
        if self.light:
            parts.append(f"{light}={self.light[0]},{self.light[1]}")
        return {option: ":".join(parts)}


NO_HDR = StaticHdr()


def static_hdr(frame: Any) -> StaticHdr:
    """What a frame's side data tell (FFmpeg's AVMasteringDisplayMetadata, AVContentLightMetadata)."""
    screen, light = (frame.side_data.get(name) for name in (_MASTERING, _LIGHT))
    numbers = None
    if screen is not None:
        *ratios, primaries, luminances = struct.unpack("=22i", bytes(screen)[:88])
        if primaries and luminances and all(ratios[1::2]):
            numbers = tuple(Fraction(a, b) for a, b in zip(ratios[::2], ratios[1::2]))
            # what no encoder takes: a screen without light, or outside of all colours
            *points, least, most = numbers
            if not (all(0 <= one <= 1 for one in points) and 0 <= least < most <= 100_000):
                numbers = None
    levels = None if light is None else struct.unpack("=2I", bytes(light)[:8])
    if levels and max(levels) >= 2**16:
        levels = None
    return StaticHdr(screen=numbers, light=levels)


def _number(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.7g}"
