"""Formats told from names."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyvips")
from fdat_dense_iso.picture.formats import format_of_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.PNG", "PNG"),
        ("a.b.jpeg", "JPEG"),
        ("a.JPG", "JPEG"),
        ("a.webp", "WebP"),
        ("a.TIFF", "TIFF"),
        ("png", None),
        ("a.gif", "GIF"),
        ("a.bmp", None),
        ("a.png.txt", None),
    ],
)
def test_format_of_name(name: str, expected: str | None):
    found = format_of_name(Path(name))
    assert (found.name if found else None) == expected
