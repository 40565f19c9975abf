"""Resampling against Pillow; periodic resampling against Pillow on a texture laid out five
times."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fdat_dense_iso.upscale.resize import enlarged_bands, resize


def random(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def by_pillow(frame: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    resized = Image.fromarray(frame[..., 0].numpy(), "F").resize(
        size[::-1], Image.Resampling.BICUBIC
    )
    return np.asarray(resized).clip(0, 1)


@pytest.mark.parametrize("size", [(20, 31), (80, 90), (7, 200), (1, 1)], ids=str)
def test_resize_against_pillow(size: tuple[int, int]) -> None:
    frame = random(41, 57, 1)
    assert np.abs(resize(frame, size)[..., 0].numpy() - by_pillow(frame, size)).max() <= 1e-4


@pytest.mark.parametrize("wrap", [(True, False), (False, True), (True, True)], ids=str)
@pytest.mark.parametrize(
    "size", [(20, 31), (80, 90), (41, 114), (7, 200), (82, 57), (1, 1)], ids=str
)
def test_periodic_resize_is_the_middle_of_many_copies(
    size: tuple[int, int], wrap: tuple[bool, bool]
) -> None:
    frame = random(41, 57, 1)
    copies = [5 if periodic else 1 for periodic in wrap]
    large = by_pillow(frame.repeat(*copies, 1), (size[0] * copies[0], size[1] * copies[1]))
    rows, columns = (
        slice(2 * side, 3 * side) if periodic else slice(None) for side, periodic in zip(size, wrap)
    )
    assert np.abs(resize(frame, size, wrap)[..., 0].numpy() - large[rows, columns]).max() <= 1e-4


@pytest.mark.parametrize("rows", [1, 5, 64])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_bands_are_those_of_the_whole(scale: int, rows: int) -> None:
    frame = random(23, 18, 3)
    bands = list(enlarged_bands(frame.permute(2, 0, 1), scale, rows))
    assert [band.start for band, _ in bands] == list(range(0, 23 * scale, rows * scale))
    whole = resize(frame, (23 * scale, 18 * scale))
    assert (torch.cat([values for _, values in bands]).clamp(0, 1) - whole).abs().max() <= 5e-6


def test_same_size_is_untouched() -> None:
    frame = torch.rand(5, 6, 4)
    assert resize(frame, (5, 6)) is frame
