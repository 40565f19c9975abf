"""Target sizes, also as text: a factor, pixels, megapixels, or a box to fit inside."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

LARGEST_SIDE = 65_536
LARGEST_FACTOR = 64
MEGAPIXEL = 1_000_000
_SHOWN = 60  # characters of a text in a message; none that is understood is longer


@dataclass(frozen=True)
class Target:
    """The size of a result, given by exactly one of: factor, megapixels, width and height.

    Attributes:
        factor: factor of the input's sides.
        width, height: in pixels; one may be None, which keeps the aspect ratio.
        fit: keep the aspect ratio; the result is as large as fits in ``width`` x ``height``.
        megapixels: millions of pixels, at the input's aspect ratio.
    """

    factor: float | None = None
    width: int | None = None
    height: int | None = None
    fit: bool = False
    megapixels: float | None = None

    def __post_init__(self) -> None:
        pixels = self.width is not None or self.height is not None
        if [self.factor is not None, self.megapixels is not None, pixels].count(True) != 1:
            raise ValueError(
                f"the target has factor {self.factor}, megapixels {self.megapixels} and size {self.width}x"
                f"{self.height}; give exactly one of the three"
            )
        if self.fit and (self.width is None or self.height is None):
            raise ValueError("a target that fits inside needs both width and height")
        for name, value in (("factor", self.factor), ("megapixels", self.megapixels)):
            if value is not None and not 0 < value <= LARGEST_SIDE:
                raise ValueError(f"the target has {name} {value}; a number above 0 was expected")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Output (height, width) for an input of this size.

        Raises:
            ValueError: a side would be 0 or above 65,536 pixels.
        """
        found = self._size(height, width)
        if not all(1 <= side <= LARGEST_SIDE for side in found):
            raise ValueError(
                f"the target makes {width}x{height} into {found[1]}x{found[0]}; sides must be 1 to "
                f"{LARGEST_SIDE} pixels"
            )
        return found

    def stretching(self, height: float, width: float) -> str:
        """What there is to say where an input of this size is stretched; "" where it keeps its shape.

        A side that is a pixel off is rounding.
        """
        if self.fit or self.width is None or self.height is None:
            return ""
        off = abs(self.width * height - self.height * width)
        if off <= max(height, width):
            return ""
        return (
            f"stretched from {round(width)}x{round(height)} to {self.width}x{self.height}; the target "
            f"'fit {self.width}x{self.height}' keeps the shape"
        )

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if self.factor is not None:
            return round(height * self.factor), round(width * self.factor)
        if self.megapixels is not None:
            factor = math.sqrt(self.megapixels * MEGAPIXEL / (height * width))
            return max(round(height * factor), 1), max(round(width * factor), 1)
        if self.width is None:
            assert self.height is not None
            return self.height, round(width * self.height / height)
        if self.height is None:
            return round(height * self.width / width), self.width
        if not self.fit:
            return self.height, self.width
        if self.width * height <= self.height * width:  # the width is the tighter one
            return max(round(height * self.width / width), 1), self.width
        return self.height, max(round(width * self.height / height), 1)


def parse_target(text: str) -> Target | None:
    """Read a target from text; "" stands for the model's own scale and gives None.

    "2x", "1.5", "50%", "1920x1080", "1920x", "x1080", "fit 1920x1080" and "2.5mp" are understood.
    A number up to 64 followed by an x is a factor, a larger one a width.

    Raises:
        ValueError: the text is none of these.
    """
    given, text = text[:_SHOWN], text.strip().lower().replace(" ", "").replace("×", "x")
    if not text:
        return None
    text = text if len(text) <= _SHOWN else "?"  # patterns would search long ones for minutes
    if match := re.fullmatch(r"(\d*\.?\d+)(x|%)?", text):
        factor = float(match[1]) / (100 if match[2] == "%" else 1)
        if 0 < factor <= LARGEST_FACTOR:
            return Target(factor=factor)
    if (match := re.fullmatch(r"(\d*\.?\d+)mp", text)) and 0 < float(match[1]) <= LARGEST_SIDE:
        return Target(megapixels=float(match[1]))
    if match := re.fullmatch(r"(fit)?(\d{1,9})?x(\d{1,9})?", text):
        width, height = (int(part) if part else None for part in match.groups()[1:])
        if max(width or 0, height or 0) > LARGEST_SIDE:
            raise ValueError(
                f"the target {given!r} has a side above {LARGEST_SIDE} pixels, which is the most"
            )
        if (width and height) or (not match[1] and (width or height)):
            return Target(width=width, height=height, fit=bool(match[1]))
    raise ValueError(
        f"the target {given!r} is not understood; write a factor (2x, 1.5, 50%; up to {LARGEST_FACTOR}), a size in "
        "pixels (1920x1080, 1920x, x1080), a box to fit inside (fit 1920x1080) or megapixels (2.5mp), or leave it "
        "empty for the model's own scale"
    )


def as_target(target: Target | float | str | None) -> Target | None:
    """A target given as such, as a factor or as text (`parse_target`).

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(target, str):
        return parse_target(target)
    if isinstance(target, int | float):
        return Target(factor=float(target))
    if target is None or isinstance(target, Target):
        return target
    raise ValueError(
        f"the target is a {type(target).__name__}; a factor, a text or a Target was expected"
    )
