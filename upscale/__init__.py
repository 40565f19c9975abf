"""Upscaling pictures with any spandrel model: tiles, blending, channels, precision and memory. Pure
tensor code."""

from .colour import COLOUR_FIXES
from .ensemble import ENSEMBLES
from .image import upscale_image
from .options import ALPHA_MODES, MODES
from .precision import PRECISIONS
from .runner import OutOfMemoryError
from .seamless import SEAMLESS
from .target import Target, parse_target

__all__ = [
    "ALPHA_MODES",
    "COLOUR_FIXES",
    "ENSEMBLES",
    "MODES",
    "PRECISIONS",
    "SEAMLESS",
    "OutOfMemoryError",
    "Target",
    "parse_target",
    "upscale_image",
]
