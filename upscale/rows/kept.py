"""Rows that wait in a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ...common.leftovers import clear_away


class KeptRows:
    """A picture (H, W, C) float32 in a file, written and read in rows. Raises OSError."""

    def __init__(self, path: Path, height: int, width: int, channels: int) -> None:
        self.path, self.shape = path, (width, channels)
        self._row = 4 * width * channels
        self._file = path.open("x+b", buffering=0)
        self._file.truncate(height * self._row)

    def take(self, top: int, rows: Tensor) -> None:
        """Write rows (h, W, C) from row ``top`` on."""
        left = memoryview(rows.contiguous().numpy()).cast("B")
        self._file.seek(top * self._row)
        while left:
            left = left[self._file.write(left) :]

    def read(self, top: int, bottom: int) -> Tensor:
        """Rows [top, bottom): (h, W, C)."""
        rows = torch.empty(bottom - top, *self.shape)
        room = memoryview(rows.numpy()).cast("B")
        self._file.seek(top * self._row)
        while room:
            count = self._file.readinto(room)
            if not count:
                raise OSError(f"{self.path} has been cut off by another program")
            room = room[count:]
        return rows

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
        clear_away(self.path)
