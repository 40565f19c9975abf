"""Grids of cases of which the default run takes a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def sampled(cases: Iterable[Any], usual: Callable[[Any], bool]) -> list[Any]:
    """All cases as parameters; those that are not ``usual`` are run by ``-m slow`` alone."""
    return [
        case
        if usual(case)
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for case in cases
    ]
