"""Bundled models by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from fdat_dense_iso.common.bundled import FOLDER, named, names


@pytest.mark.parametrize("given", ["fdat_real_x1", "fdat_real_x1.safetensors"])
def test_a_bundled_model_needs_no_path(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert named(Path(given)) == FOLDER / "fdat_real_x1.safetensors"
    (tmp_path / given).touch()  # a file of one's own comes first
    assert named(Path(given)) == Path(given)


@pytest.mark.parametrize("given", ["fdat_real_x9", "fdat_real_x1.pth", "folder/fdat_real_x1"])
def test_other_paths_stay_as_they_are(given: str) -> None:
    assert named(Path(given)) == Path(given)


def test_every_name_is_that_of_a_file() -> None:
    assert "fdat_demo_x2" in names()
    assert all((FOLDER / f"{name}.safetensors").is_file() for name in names())
