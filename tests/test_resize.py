"""Targets by their text, and resampling against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from upscale.resize import Target, parse_target, resize


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("", None),
        ("  ", None),
        ("2x", Target(factor=2)),
        ("1.5", Target(factor=1.5)),
        (".5X", Target(factor=0.5)),
        ("50%", Target(factor=0.5)),
        ("1920x1080", Target(width=1920, height=1080)),
        ("1920 × 1080", Target(width=1920, height=1080)),
        ("1920x", Target(width=1920)),
        ("64x", Target(factor=64)),
        ("65x", Target(width=65)),
        ("x1080", Target(height=1080)),
    ],
)
def test_parse(text: str, target: Target | None) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text", ["x", "big", "0", "0x", "-2", "2xx", "1e3", "65", "0x0", "100%%", "nan", "1920x1080x3"]
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="is not understood"):
        parse_target(text)


@pytest.mark.parametrize("size", [(20, 31), (80, 90), (7, 200), (1, 1)], ids=str)
def test_resize_against_pillow(size: tuple[int, int]) -> None:
    frame = torch.rand(41, 57, 1, generator=torch.Generator().manual_seed(1))
    expected = Image.fromarray(frame[..., 0].numpy(), "F").resize(size[::-1], Image.Resampling.BICUBIC)
    assert np.abs(resize(frame, size)[..., 0].numpy() - np.asarray(expected).clip(0, 1)).max() <= 1e-4


def test_same_size_is_untouched() -> None:
    frame = torch.rand(5, 6, 4)
    assert resize(frame, (5, 6)) is frame
