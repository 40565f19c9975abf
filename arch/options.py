"""Options of `load_model` as users type them: turns text into keyword arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .dense_iso.reading.options import OPTIONS
from .errors import ModelLoadError

FDAT_OPTIONS = ("scale",)


def parse_options(text: str | Iterable[str]) -> dict[str, str]:
    """Keyword arguments for `load_model`.

    Args:
        text: NAME=VALUE; several are separated by semicolons or line breaks, or each is one string
            of a sequence.

    Returns:
        Values as text, which `load_model` reads.

    Raises:
        ModelLoadError: text that is not NAME=VALUE, an unknown name, or one that is given twice.

    >>> parse_options("heads=6,8,6,8; gated_half=first")
    {'heads': '6,8,6,8', 'gated_half': 'first'}
    """
    pieces = re.split(r"[;\n]", text) if isinstance(text, str) else list(text)
    options: dict[str, str] = {}
    for piece in filter(None, (piece.strip() for piece in pieces)):
        name, equals, value = (part.strip() for part in piece.partition("="))
        if not (name and equals and value):
            raise ModelLoadError(
                f"{piece!r} is no option; write NAME=VALUE, for example heads=6,8,6,8"
            )
        if name not in (*OPTIONS, *FDAT_OPTIONS):
            raise ModelLoadError(
                f"unknown option {name!r}; Dense-Iso-ViT has {', '.join(OPTIONS)}, FDAT has scale"
            )
        if name in options:
            raise ModelLoadError(f"the option {name} is given twice: {options[name]} and {value}")
        options[name] = value
    return options
