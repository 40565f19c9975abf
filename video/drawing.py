"""What passes between a video and the function that upscales its frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from torch import Tensor

from .colour import VideoError
from .source import SourceFrame


def pictures_of(frames: Iterable[SourceFrame]) -> Iterator[Tensor | None]:
    """The picture of each frame; None for one that is the same as the one before."""
    before = None
    for frame in frames:
        same = before is not None and np.array_equal(frame.samples, before)
        before = frame.samples
        yield None if same else frame.rgb()


def check_picture(picture: Tensor, size: tuple[int, int]) -> None:
    """Raise VideoError unless ``picture`` is (*size, 3)."""
    if tuple(picture.shape) != (*size, 3):
        raise VideoError(f"a frame became {tuple(picture.shape)} where {(*size, 3)} was expected")
