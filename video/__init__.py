"""Upscaling videos frame by frame, in memory that does not grow with their length. Knows nothing of
networks.

`read` and `source` say what goes in, `write` what comes out, `resume` what an interrupted run
leaves; `job` joins them.
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
