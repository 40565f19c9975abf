"""Videos upscaled by a stand-in for the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fdat_dense_iso.video import Encoding, VideoFile, VideoJob

FINE = Encoding(crf=4)  # so that what is seen is not the encoder's doing


class FrameByFrame:
    """A `video.Upscale` made of a function from (1, H, W, 3) and a progress to (1, *size, 3)."""

    def __init__(self, function: Callable[..., torch.Tensor] | None = None) -> None:
        self.function = function or self.upscaled

    def __call__(self, frames, deliver, *, progress) -> None:
        picture = None
        for number, frame in enumerate(frames):

            def report(done: int, of: int, number: int = number) -> None:
                progress(number * of + done, of)

            if frame is not None:
                picture = self.function(frame[None], report)[0]
            deliver(picture)


class Doubler(FrameByFrame):
    """Repeats every pixel; remembers how often it was called, and may misbehave on demand."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.shapes: list[tuple[int, ...]] = []
        self.errors: dict[int, BaseException] = {}

    def upscaled(self, frames: torch.Tensor, progress) -> torch.Tensor:
        self.shapes.append(tuple(frames.shape))
        progress(1, 2)
        if len(self.shapes) in self.errors:
            raise self.errors[len(self.shapes)]
        progress(2, 2)
        return frames.repeat_interleave(self.factor, 1).repeat_interleave(self.factor, 2)


def upscale(
    source: Path, target: Path, *, factor: int = 2, run=None, encoding: Encoding = FINE, **options
) -> VideoJob:
    with VideoFile(source) as video:
        height, width = video.size
        job = VideoJob(
            video, target, size=(height * factor, width * factor), encoding=encoding, **options
        )
        job.run(run or Doubler(factor))
    return job


def assert_same_pictures(
    result: list[np.ndarray], source: list[np.ndarray], *, factor: int = 2
) -> None:
    """Up to what encoding finely and resampling the chroma twice cost."""
    assert len(result) == len(source)
    for got, frame in zip(result, source, strict=True):
        expected = frame.repeat(factor, 0).repeat(factor, 1)
        assert got.shape == expected.shape
        assert np.abs(got - expected).mean() < 0.7
