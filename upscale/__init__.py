"""Upscaling pictures with any spandrel model: tiles, blending, channels, precision and memory. Pure tensor code."""

from .image import ALPHA_MODES, MODES, upscale_image
from .network import OutOfMemoryError
from .precision import PRECISIONS
from .resize import Target, parse_target

__all__ = ["ALPHA_MODES", "MODES", "PRECISIONS", "OutOfMemoryError", "Target", "parse_target", "upscale_image"]
