"""Which passes over an image are done, in a file beside its maps, so that a later run goes on."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from ....common.leftovers import clear_away, put_in_place

NAME = "passes.json"


class Journal:
    """The passes that are done, and which file is which map.

    Args:
        folder: of the maps.
        about: what they depend on. What was noted for something else counts for nothing.

    Attributes:
        done: how many passes are done.
        files: names of the files of trunk, branch and the spare map.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.path = folder / NAME
        self.about = json.loads(json.dumps(about))
        self.done, self.files = 0, ["map-1", "map-2", "map-3"]
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self.path.read_text(encoding="utf-8"))
            there = all((folder / name).exists() for name in found["files"])
            if found["about"] == self.about and there:
                self.done, self.files = found["done"], found["files"]

    def note(self, files: list[str]) -> None:
        """One more pass is done, and the maps are these files now."""
        self.done, self.files = self.done + 1, files
        text = json.dumps({"about": self.about, "done": self.done, "files": files})
        written = self.path.with_suffix(".part")
        written.write_text(text, encoding="utf-8")
        put_in_place(written, self.path)

    def remove(self) -> None:
        """The run is complete."""
        clear_away(self.path)
