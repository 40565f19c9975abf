"""Starts the command line: ``python cli.py INPUT... OUTPUT --model MODEL``. docs/cli.md describes
it.

The wheel installs this file as ``fdat_dense_iso/__main__.py``: ``python -m fdat_dense_iso``.
"""

from __future__ import annotations

from fdat_dense_iso.command.main import app

if __name__ == "__main__":
    app()
