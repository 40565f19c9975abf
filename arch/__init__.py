"""Networks and checkpoints: FDAT, Dense-Iso-ViT, and through spandrel every other architecture it knows."""

from .adopt import adopt
from .errors import ModelLoadError
from .load import load_model
from .registry import install

__all__ = ["ModelLoadError", "adopt", "install", "load_model"]
