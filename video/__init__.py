"""Upscales videos frame by frame, in memory that does not grow with their length.

Nothing here knows of networks. `source` and `read` provide the frames to upscale, `write` and
`assembly` make the file, `resume` continues an interrupted run; `job` joins them.
"""

import av

if int(av.__version__.partition(".")[0]) < 16:
    # the durations of packets that older ones give make videos of variable frame rate run wrongly
    raise ImportError(
        f"videos need PyAV 16 or later, and {av.__version__} is installed: pip install 'av>=16'"
    )

from .colour import VideoError
from .job import VideoJob
from .read import VideoFile
from .shape import result_size
from .source import PictureVideo
from .write import Encoding, UnsupportedStreamError

__all__ = [
    "Encoding",
    "PictureVideo",
    "UnsupportedStreamError",
    "VideoError",
    "VideoFile",
    "VideoJob",
    "result_size",
]
