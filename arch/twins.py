"""Architectures that look like one that spandrel knows.

Twins have the same tensors, name by name and shape by shape: nothing in such a file tells which one
it is, and both are loaded as the one that is known, so the user is told. Relatives differ in a
name, by which they are told.
"""

from __future__ import annotations

from collections.abc import Iterable

TWINS = {
    # traiNNer-redux normalises over the whole picture and multiplies by the deviation again
    "HAT": "a plain HAT. HAT-iLN of traiNNer-redux has the same tensors and comes out wrong (its "
    "contrast about three times too high); use that program for it",
}

RELATIVES = {  # a name that no other has: what has it
    "before_RG.norm.weight": "DAT-iLN of traiNNer-redux, which normalises over the whole picture",
}


def relative_of(names: Iterable[str]) -> str | None:
    """What tensors of these names belong to, in half a sentence; None for what is not known."""
    return next((RELATIVES[name] for name in names if name in RELATIVES), None)


def twin_of(architecture: str) -> str | None:
    """What is to be said of a model of this architecture (spandrel's id); None where nothing is."""
    return TWINS.get(architecture)
