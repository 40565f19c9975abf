"""What frames of a result are like: their size, colour and encoder, wherever they are made."""

from __future__ import annotations

from .colour import FrameMaker
from .shape import result_aspect
from .source import VideoSource
from .write import Encoding, SegmentEncoder, encodable


class ResultForm:
    """The form of a result; from the same arguments every process makes the same frames.

    Args:
        source: the video.
        encoding: a resolved one.
        size: height and width of the upscaled pictures, as displayed.

    Attributes:
        size: height and width of the result as displayed, which the pixel format can hold.
        pixel_aspect: the shape of its pixels, width / height.
        make_frame: makes a frame of a picture as stored.
        encoder: encodes frames to segments.

    Raises VideoError if the encoder refuses its settings.
    """

    def __init__(self, source: VideoSource, encoding: Encoding, size: tuple[int, int]) -> None:
        turned = source.orientation.size
        stored = encodable(*turned(*size), encoding.pixel_format)
        self.size = turned(*stored)
        colour = source.colour.of_result(turned(*source.size), stored)
        self.make_frame = FrameMaker(encoding.pixel_format, colour, *stored)
        self.pixel_aspect = result_aspect(turned(*source.size), source.pixel_aspect, turned(*size))
        self.encoder = SegmentEncoder(
            encoding, stored, source.rate, colour, self.pixel_aspect, source.hdr
        )
