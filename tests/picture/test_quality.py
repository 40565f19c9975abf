"""The quality of JPEG files, against the qualities that Pillow was asked for."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from fdat_dense_iso.picture.quality import jpeg_quality
from tests.helpers.paths import ROOT


def encoded(kind: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.open(ROOT / "samples" / "coffee.png").convert(mode).crop((0, 0, 64, 64)).save(
        file, kind, **options
    )
    return file.getvalue()


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}], ids=str
)
@pytest.mark.parametrize("quality", [20, 30, 49, 50, 51, 75, 90, 95])
def test_is_what_was_asked_for(quality: int, options: dict) -> None:
    assert jpeg_quality(encoded(quality=quality, **options)) == pytest.approx(quality, abs=1)


def test_tables_of_other_programs_count_by_their_mean() -> None:
    """Steps twice those of quality 50, in any order, are quality 25."""
    table = list(range(2 * 3688 // 64 - 32, 2 * 3688 // 64 + 32))
    assert jpeg_quality(encoded(qtables=[table, table])) == pytest.approx(25, abs=1)
    assert jpeg_quality(encoded(qtables=[[1] * 64] * 2)) == 99


def test_others_have_none() -> None:
    assert jpeg_quality(encoded("PNG")) is None
    assert jpeg_quality(b"\xff\xd8\xff\xd9") is None
    assert jpeg_quality(encoded(quality=50)[:40]) is None
    assert jpeg_quality(b"") is None
