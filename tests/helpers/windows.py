"""Imitates Windows, where no file can be moved, replaced or removed while it is open."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


def _opened() -> set[str]:
    """Files that this process has open, or in its memory."""
    found = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
    with open("/proc/self/maps") as lines:
        parts = (line.rstrip("\n").split(maxsplit=5) for line in lines)
        return found | {part[5] for part in parts if len(part) == 6}


def _refusing(function: Callable, *, both: bool) -> Callable:
    def checked(source, *rest, **options):
        opened = _opened()
        for path in (source, rest[0]) if both else (source,):
            if os.path.realpath(path) in opened:
                raise PermissionError(13, "it is being used by another process", str(path))
        return function(source, *rest, **options)

    return checked


def refuse_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on."""
    if not os.path.isdir("/proc/self/fd"):
        return
    monkeypatch.setattr(os, "replace", _refusing(os.replace, both=True))
    monkeypatch.setattr(os, "rename", _refusing(os.rename, both=True))
    monkeypatch.setattr(Path, "unlink", _refusing(Path.unlink, both=False))
