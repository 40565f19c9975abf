"""The command's stand-in for a model, and pictures for it, as fixtures."""

from tests.helpers.command import folder, model

__all__ = ["folder", "model"]
