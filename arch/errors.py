"""The one error that loading a checkpoint raises."""

from __future__ import annotations


class ModelLoadError(ValueError):
    """A checkpoint can't be loaded.

    The message says what was found, what was expected and what to do.
    """
