"""Upscales pictures with any spandrel model: tiles, blending, channels, precision and memory.

Pure tensor code.
"""

from .clip import neighbours
from .image import upscale_frames, upscale_image
from .memory import OutOfMemoryError
from .target import Target, parse_target

__all__ = [
    "OutOfMemoryError",
    "Target",
    "neighbours",
    "parse_target",
    "upscale_frames",
    "upscale_image",
]
