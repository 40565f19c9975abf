"""spandrel's own FDAT, which versions before 0.4.2 lack: tests that need it are skipped there."""

from __future__ import annotations

from typing import Any

import pytest


def spandrels_fdat() -> Any:
    """The module, with ``FDAT`` and ``FDATArch``."""
    return pytest.importorskip(
        "spandrel.architectures.FDAT", reason="spandrel before 0.4.2 has no FDAT of its own"
    )
