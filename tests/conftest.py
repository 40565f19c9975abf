"""Makes the repository importable as `fdat_dense_iso`, and spandrel importable beside a CPU
torch."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# One thread: most tests are small, and a second thread that waits for them costs as much again.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from fdat_dense_iso.cpu_torchvision import make_torchvision_importable

make_torchvision_importable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """``@pytest.mark.every(n)``: of a test's cases the first, the (n + 1)th and so on run by default.

    The others are slow. Where n has no divisor in common with the sides of a grid, every value of
    every side still comes.
    """
    seen: Counter[str] = Counter()
    for item in items:
        if every := item.get_closest_marker("every"):
            test = item.nodeid.partition("[")[0]
            if seen[test] % every.args[0]:
                item.add_marker(pytest.mark.slow)
            seen[test] += 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Name files whose names are no UTF-8 by escapes: pytest-xdist can't send such text otherwise."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report
