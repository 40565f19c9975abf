"""Signs of compression in pixels, on pictures that Pillow compressed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fdat_dense_iso.common.wear import MOST_BLOCKINESS, wear_of
from tests.helpers.paths import ROOT

SAMPLE = (
    Image.open(ROOT / "samples" / "coffee.png")
    .convert("RGB")
    .resize((300, 200), Image.Resampling.LANCZOS)
)


def compressed(quality: int, kind: str = "JPEG") -> Image.Image:
    file = io.BytesIO()
    SAMPLE.save(file, kind, quality=quality)
    return Image.open(file).convert("RGB")


def blockiness(picture: Image.Image) -> float:
    return wear_of(np.asarray(picture) / 255).blockiness


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("cut", [(0, 0), (3, 5)], ids=str)
def test_blocks_show_wherever_the_picture_was_cut(kind: str, cut: tuple[int, int]) -> None:
    picture = compressed(40, kind).crop((*cut, 290, 190))
    assert blockiness(picture) > MOST_BLOCKINESS
    assert blockiness(picture.transpose(Image.Transpose.ROTATE_90)) > MOST_BLOCKINESS


def test_clean_pictures_have_none() -> None:
    assert blockiness(SAMPLE) < MOST_BLOCKINESS
    noise = np.random.default_rng(0).random((200, 300, 3))
    assert wear_of(noise).blockiness < 1.1
    assert wear_of(np.ones((100, 100, 4))).blockiness == 1
    assert wear_of(np.zeros((1, 1, 1))).blockiness == 1
    stripes = np.tile(np.arange(256) // 8 % 2, (256, 1))[..., None]
    assert wear_of(stripes).blockiness == 1  # in one direction alone: no blocks


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (128, 128)], ids=str)
def test_chance_in_small_pictures_is_no_block(size: tuple[int, int]) -> None:
    width, height = size
    corners = [(x, y) for y in range(0, 200 - height, 24) for x in range(0, 300 - width, 24)]
    found = [blockiness(SAMPLE.crop((x, y, x + width, y + height))) for x, y in corners]
    assert np.mean(np.array(found) > MOST_BLOCKINESS) < 0.1


@pytest.mark.parametrize(
    ("factor", "kind"),
    [
        (2, Image.Resampling.BILINEAR),
        (2, Image.Resampling.BICUBIC),
        (3, Image.Resampling.LANCZOS),
        (4, Image.Resampling.BILINEAR),
    ],
    ids=str,
)
def test_enlarged_pictures_have_none(factor: int, kind: Image.Resampling) -> None:
    """They all had when steps were compared with the median: every other place has larger ones."""
    corners = [(x, y) for y in range(0, 100, 33) for x in range(0, 200, 50)]
    parts = [SAMPLE.crop((x, y, x + 100, y + 100)) for x, y in corners]
    found = [blockiness(part.resize((100 * factor,) * 2, kind)) for part in parts]
    assert max(found) < MOST_BLOCKINESS


def test_lower_qualities_show_more() -> None:
    found = [blockiness(compressed(quality)) for quality in (95, 70, 40, 20)]
    assert found == sorted(found)


def test_what_it_says() -> None:
    clean = np.asarray(SAMPLE) / 255
    assert wear_of(clean).signs == [] and wear_of(clean, 97).signs == []
    assert wear_of(clean, 60).signs == ["it is a JPEG of quality 60"]
    (sign,) = wear_of(np.asarray(compressed(30)) / 255).signs
    assert sign.startswith("it shows blocks of compression")
