"""Every picture is written as on Windows."""

from __future__ import annotations

import pytest

from tests.helpers.windows import refuse_open_files


@pytest.fixture(autouse=True)
def as_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_open_files(monkeypatch)
