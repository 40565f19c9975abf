"""Target sizes: a factor or a size in pixels, reached by antialiased bicubic resampling of each frame."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from .channels import premultiply, unpremultiply_

LARGEST_SIDE = 65_536
LARGEST_FACTOR = 64


@dataclass(frozen=True)
class Target:
    """A factor of the input size, or a width and height in pixels (one of them may be None: keep the aspect)."""

    factor: float | None = None
    width: int | None = None
    height: int | None = None

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Output (height, width) for an input of this size.

        Raises:
            ValueError: a side would be 0 or above 65,536 pixels.
        """
        if self.factor is None and self.width is None and self.height is None:
            raise ValueError("the target has neither factor nor width nor height; give one of them")
        if self.factor is not None and not 0 < self.factor <= LARGEST_SIDE:
            raise ValueError(f"the target's factor is {self.factor}; a number above 0 was expected")
        if self.factor is not None:
            found = round(height * self.factor), round(width * self.factor)
        elif self.height is None:
            found = round(height * self.width / width), self.width  # type: ignore[operator]
        elif self.width is None:
            found = self.height, round(width * self.height / height)
        else:
            found = self.height, self.width
        if not all(1 <= side <= LARGEST_SIDE for side in found):
            raise ValueError(
                f"the target makes {width}x{height} into {found[1]}x{found[0]}; sides must be 1 to "
                f"{LARGEST_SIDE} pixels"
            )
        return found


def parse_target(text: str) -> Target | None:
    """Read a target: "" (the model's own scale: None), "2x", "1.5", "50%", "1920x1080", "1920x", "x1080".

    A number up to 64 with an x is a factor, a larger one a width.

    Raises:
        ValueError: the text is none of these.
    """
    given, text = text, text.strip().lower().replace(" ", "").replace("×", "x")
    if not text:
        return None
    if match := re.fullmatch(r"(\d*\.?\d+)(x|%)?", text):
        factor = float(match[1]) / (100 if match[2] == "%" else 1)
        if 0 < factor <= LARGEST_FACTOR:
            return Target(factor=factor)
    if match := re.fullmatch(r"(\d{1,5})?x(\d{1,5})?", text):
        width, height = (int(part) if part else None for part in match.groups())
        if width or height:
            return Target(width=width, height=height)
    raise ValueError(
        f"the target {given!r} is not understood; write a factor (2x, 1.5, 50%; up to {LARGEST_FACTOR}) or a size "
        "in pixels (1920x1080, 1920x, x1080), or leave it empty for the model's own scale"
    )


def resize(frame: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample (H, W, C) in [0, 1] to ``size`` = (height, width): bicubic, antialiased, RGBA premultiplied."""
    if frame.shape[:2] == size:
        return frame
    source = premultiply(frame) if frame.shape[-1] == 4 else frame
    planes = source.permute(2, 0, 1)[None]
    resized = F.interpolate(planes, size, mode="bicubic", antialias=True, align_corners=False)
    result = resized[0].permute(1, 2, 0).clamp(0, 1).contiguous()
    if frame.shape[-1] == 4:
        unpremultiply_(result)
    return result
