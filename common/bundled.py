"""The models in the box that an automatic choice is between."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent.with_name("models")
CHOICES = {
    "auto": ("fdat_demo_x2", "fdat_real_x2"),
    "auto-x4": ("fdat_demo_x4", "fdat_real_x4"),
}
"""Names of choices, and the models for clean pictures and for real ones."""


def names() -> list[str]:
    """The bundled checkpoints without their suffix."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def named(model: Path) -> Path:
    """The bundled checkpoint of this name, as ``fdat_real_x1``, also with its suffix; for all else the
    path as it is."""
    found = FOLDER / f"{str(model).removesuffix('.safetensors')}.safetensors"
    bundled = model.parent == Path() and not model.exists() and found.is_file()
    return found if bundled else model


def candidates(choice: str) -> tuple[Path, Path]:
    """The checkpoints of one of `CHOICES`: for clean pictures, for real ones."""
    clean, real = (FOLDER / f"{stem}.safetensors" for stem in CHOICES[choice])
    return clean, real
