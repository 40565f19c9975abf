"""The files of a model, as they go to the workers."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")


def files_of(model: Path) -> dict[str, bytes]:
    """A checkpoint, and the options beside it, by their names."""
    return {
        path.name: path.read_bytes()
        for path in (model, model.with_suffix(".json"))
        if path.is_file()
    }


def written(checkpoint: dict[str, bytes], folder: Path) -> Path:
    """Write a checkpoint's files; the path of the model."""
    for name, content in checkpoint.items():
        (folder / name).write_bytes(content)
    return folder / next(iter(checkpoint))


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for what is not seen by others, in memory where there is such a place."""
    memory = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="upscale-", dir=memory) as folder:
        yield Path(folder)
