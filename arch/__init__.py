"""Networks and checkpoints: FDAT, Dense-Iso-ViT, and every architecture that spandrel knows."""

from .adopt import adopt
from .errors import ModelLoadError
from .info import describe, origin
from .load import load_model
from .options import parse_options
from .registry import install

__all__ = [
    "ModelLoadError",
    "adopt",
    "describe",
    "install",
    "load_model",
    "origin",
    "parse_options",
]
