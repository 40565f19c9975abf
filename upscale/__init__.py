"""Upscales pictures with any spandrel model: tiles, blending, channels, precision and memory.

Pure tensor code.
"""

from .accelerator import free_memory as free_memory_of
from .clip import neighbours
from .image import upscale_frames, upscale_image
from .memory import OutOfMemoryError
from .precision import precision_name
from .rows.run import RowsPlan, plan_rows, upscale_rows
from .target import Target, parse_target

__all__ = [
    "OutOfMemoryError",
    "RowsPlan",
    "Target",
    "free_memory_of",
    "neighbours",
    "parse_target",
    "plan_rows",
    "precision_name",
    "upscale_frames",
    "upscale_image",
    "upscale_rows",
]
