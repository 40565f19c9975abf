"""Pairs of architectures that have the same tensors, name by name and shape by shape.

Nothing in such a file tells which one it is. spandrel knows one of each pair and loads both as
that one, so the user is told.
"""

from __future__ import annotations

TWINS = {
    # traiNNer-redux normalises over the whole picture and multiplies by the deviation again
    "HAT": "a plain HAT. HAT-iLN of traiNNer-redux has the same tensors and comes out wrong (its "
    "contrast about three times too high); use that program for it",
}


def twin_of(architecture: str) -> str | None:
    """What is to be said of a model of this architecture (spandrel's id); None where nothing is."""
    return TWINS.get(architecture)
