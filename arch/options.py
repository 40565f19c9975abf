"""Options of `load_model` as users type them: turns text into keyword arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from spandrel import Architecture

from .errors import ModelLoadError
from .registry import ARCHITECTURES

WHERE = ("container", "prefix")
"""The options of every architecture: where in a file the weights are."""


def options_of(architecture: Architecture) -> tuple[str, ...]:
    """The names of an architecture's own options: the attribute ``options`` of its class."""
    return tuple(getattr(architecture, "options", ()))


def reject_unknown(options: Mapping[str, Any], architecture: Architecture) -> None:
    """Raise ModelLoadError for options that the architecture does not have."""
    known = (*WHERE, *options_of(architecture))
    if unknown := sorted(set(options) - set(known)):
        names = ", ".join(options_of(architecture)) or "none of its own"
        raise ModelLoadError(
            f"{architecture.name} has no such option: {', '.join(unknown)}; it has: {names}"
        )


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
    own = {made.name: options_of(made) for made in (make() for make in ARCHITECTURES)}
    pieces = re.split(r"[;\n]", text) if isinstance(text, str) else list(text)
    options: dict[str, str] = {}
    for piece in filter(None, (piece.strip() for piece in pieces)):
        name, equals, value = (part.strip() for part in piece.partition("="))
        if not (name and equals and value):
            raise ModelLoadError(
                f"{piece!r} is no option; write NAME=VALUE, for example heads=6,8,6,8"
            )
        if name not in WHERE and not any(name in names for names in own.values()):
            lists = "; ".join(
                f"{arch} has {', '.join(names)}" for arch, names in own.items() if names
            )
            raise ModelLoadError(
                f"unknown option {name!r}; every model has {', '.join(WHERE)}; {lists}"
            )
        if name in options:
            raise ModelLoadError(f"the option {name} is given twice: {options[name]} and {value}")
        options[name] = value
    return options
