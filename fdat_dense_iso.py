"""Lets a checkout of this pack be imported under its installed name: ``import
fdat_dense_iso.arch``.

The repository's root is the package, whatever its folder is called: ComfyUI loads it under a name
of its own, and the wheel installs it as ``fdat_dense_iso``. With the root on ``sys.path``, as for
``python cli.py``, ``python -m tools.demo`` and the tests, this module stands for the same package,
because Python takes a module that has a ``__path__`` for one. The wheel leaves this file out.
"""

from __future__ import annotations

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parent)]

if (
    __name__ == "__main__"
):  # python -m fdat_dense_iso, which runs cli.py where the pack is installed
    from fdat_dense_iso.command.main import app

    app()
