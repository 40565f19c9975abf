"""Files that other programs hold open, as Windows has it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fdat_dense_iso.common import leftovers
from fdat_dense_iso.common.leftovers import clear_away, put_in_place


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """So many calls are refused, as while a virus scanner looks at a file."""
    left, replace, unlink = [0], os.replace, os.unlink

    def refusing(call):  # type: ignore[no-untyped-def]
        def refused(*arguments: object, **options: object) -> None:
            if left[0]:
                left[0] -= 1
                raise PermissionError(13, "it is used by another process", str(arguments[0]))
            call(*arguments, **options)

        return refused

    monkeypatch.setattr(os, "replace", refusing(replace))
    monkeypatch.setattr(os, "unlink", refusing(unlink))
    monkeypatch.setattr(leftovers, "PAUSES", (0, 0, 0))
    return left


def test_what_is_held_for_a_moment_is_moved(tmp_path: Path, held: list[int]) -> None:
    written, target = tmp_path / "written", tmp_path / "target"
    written.write_text("new")
    target.write_text("old")
    held[0] = 3
    put_in_place(written, target)
    assert target.read_text() == "new" and not written.exists()
    written.write_text("newer")
    held[0] = 4
    with pytest.raises(PermissionError):
        put_in_place(written, target)
    assert (written.read_text(), target.read_text()) == ("newer", "new")


def test_what_is_held_for_longer_stays(
    tmp_path: Path, held: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "partial"
    path.write_text("")
    held[0] = 1
    clear_away(path)
    assert (
        path.exists()
        and "is no longer needed but could not be removed: it is used by" in caplog.text
    )
    clear_away(path)
    clear_away(path)
    clear_away(path / "below")
    assert not path.exists() and len(caplog.records) == 1
