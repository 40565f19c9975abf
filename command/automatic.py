"""``--model auto``: which of the bundled models suits a file, and why."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.bundled import CHOICES, candidates
from .model import Upscaler, UsageError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Automatic(Upscaler):
    """The upscaler for clean pictures, and beside it that for real ones."""

    real: Upscaler

    @property
    def choices(self) -> list[Upscaler]:
        return [self, self.real]

    def suited(self, source: Path, pixels: Callable[[], np.ndarray]) -> tuple[Upscaler, str]:
        from ..common.wear import wear_of
        from ..picture.quality import jpeg_quality

        # of the file, which may be larger than memory, only its beginning is looked at
        with (
            source.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            wear = wear_of(pixels(), jpeg_quality(data))
        chosen = self.real if wear.signs else self
        return chosen, f"{source.name}: {chosen.model.stem}, because {wear}"

    def suited_to_videos(self, source: Path) -> tuple[Upscaler, str]:
        return self.real, f"{source.name}: {self.real.model.stem}, because videos are compressed"


def choosing(load: Callable[[Path], Upscaler], clean: Path, real: Path) -> Automatic:
    """Both upscalers, loaded by ``load``."""
    first = load(clean)
    return Automatic(**vars(first), real=load(real))


def bundled(model: Path) -> tuple[Path, Path] | None:
    """The checkpoints that an automatic choice is between; None where ``model`` is a file's name.

    Raises:
        UsageError: an automatic choice of a scale that there is none for.
    """
    name = str(model)
    if name in CHOICES:
        return candidates(name)
    if name.startswith("auto-") and not model.suffix:
        raise UsageError(f"--model {name} is not known; there are {', '.join(CHOICES)}, and files")
    return None
