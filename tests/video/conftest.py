"""Every video is written as on Windows, where no file can be moved, replaced or removed while it is
open."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


def _refusing(function: Callable, *, both: bool) -> Callable:
    def checked(source, *rest, **options):
        opened = {
            os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")
        }
        for path in (source, rest[0]) if both else (source,):
            if os.path.realpath(path) in opened:
                raise PermissionError(13, "it is being used by another process", str(path))
        return function(source, *rest, **options)

    return checked


@pytest.fixture(autouse=True)
def as_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.path.isdir("/proc/self/fd"):
        return
    monkeypatch.setattr(os, "replace", _refusing(os.replace, both=True))
    monkeypatch.setattr(os, "rename", _refusing(os.rename, both=True))
    monkeypatch.setattr(Path, "unlink", _refusing(Path.unlink, both=False))
