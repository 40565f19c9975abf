"""Videos upscaled by a stand-in for the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fdat_dense_iso.video import Encoding, VideoFile, VideoJob

FINE = Encoding(crf=4)  # so that what is seen is not the encoder's doing


class Doubler:
    """Repeats every pixel; remembers how often it was called, and may misbehave on demand."""

    def __init__(self, factor: int = 2) -> None:
        self.factor = factor
        self.shapes: list[tuple[int, ...]] = []
        self.errors: dict[int, BaseException] = {}

    def __call__(self, frames: torch.Tensor, progress) -> torch.Tensor:
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
