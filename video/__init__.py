"""Upscales videos frame by frame, in memory that does not grow with their length.

Nothing here knows of networks. `source` and `read` provide the frames to upscale, `write` and
`assembly` make the file, `resume` continues an interrupted run; `job` joins them.
"""

from .colour import VideoError
from .job import VideoJob
from .read import VideoFile
from .source import PictureVideo
from .write import Encoding, UnsupportedStreamError

__all__ = [
    "Encoding",
    "PictureVideo",
    "UnsupportedStreamError",
    "VideoError",
    "VideoFile",
    "VideoJob",
]
