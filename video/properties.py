"""How the samples of a video are meant, and what of that a result cannot keep."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import av
import av.filter
import av.logging

from .colour import FULL, LEFT, RGB, UNSPECIFIED, Colour
from .hdr import static_hdr

_SITINGS = {  # of chroma, by FFmpeg's names: position in a pixel, across and down, in 1/256
    "left": LEFT,
    "center": (128, 128),
    "topleft": (0, 0),
    "top": (128, 0),
    "bottomleft": (0, 256),
    "bottom": (128, 256),
}
_LOST = {  # FFmpeg's side data of frames
    "MASTERING_DISPLAY_METADATA": "mastering display",
    "CONTENT_LIGHT_LEVEL": "content light level",
    "AMBIENT_VIEWING_ENVIRONMENT": "ambient viewing environment",
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
    "DOVI_METADATA": "Dolby Vision",
    "DOVI_RPU_BUFFER": "Dolby Vision",
    "ICC_PROFILE": "ICC profile",
    "STEREO3D": "stereo 3D",
    "SPHERICAL": "spherical projection",
    "A53_CC": "closed captions",
    "AFD": "active format description",
    "S12M_TIMECODE": "timecodes of frames",
}
STEREO = _LOST["STEREO3D"]
# codecs whose samples have limited range where nothing is told; grey ones of others have full range,
# as cameras write them and as FFmpeg reads them
_LIMITED = ("h264", "hevc", "vvc", "av1", "vp9", "mpeg2video", "mpeg4")
# an addition to a block of Matroska's (RFC 9559, 5.1.3.5.2.3), and the number of that of alpha
_ADDED, _ALPHA = "matroska_block_additional", (1).to_bytes(8, "big")


class Properties:
    """What frames tell, each property where the format keeps it.

    Args:
        stream: the video's; Matroska and WebM tell of an alpha channel there, which their decoders
            hide.
        first: its first frame.
        packet: its first packet; it holds that channel, also where no tag tells (mkvmerge).
    """

    def __init__(self, stream: Any, first: av.VideoFrame, packet: Any) -> None:
        self.siting = chroma_siting(first)
        """Where a sample of chroma lies: across and down, in 1/256 of a pixel."""
        tags = {key.lower(): value for key, value in stream.metadata.items()}
        self.lost: list[str] = []
        """What the frames that were seen tell, and no result keeps, in words."""
        hidden = tags.get("alpha_mode", "0") not in ("", "0") or _holds_alpha(packet)
        if hidden or any(component.is_alpha for component in first.format.components):
            self.lost.append("alpha channel")
        self._aspect = stream.codec_context.sample_aspect_ratio
        # a container may say so where the codec does not; PyAV before 17 does not tell
        self.interlaced = getattr(stream.codec_context, "field_order", 0) > 1
        self.hdr = static_hdr(first)
        """What the first frame tells; results keep it where their encoder can."""
        self.see(first, stream)

    def see(self, frame: av.VideoFrame, stream: Any) -> None:
        """Look at one more frame; ``stream`` is the one that it comes from."""
        self.interlaced = self.interlaced or frame.interlaced_frame
        side_data: Any = frame.side_data
        kept = static_hdr(frame).named.items() & self.hdr.named.items()
        names = [_LOST.get(data.type.name) for data in side_data]
        names = [name for name in names if name not in dict(kept)]
        if stream.codec_context.sample_aspect_ratio != self._aspect:
            names.append("a change of the shape of pixels")
        self.lost += [name for name in dict.fromkeys(names) if name and name not in self.lost]


def _holds_alpha(packet: Any) -> bool:
    """Whether a packet of VP8 or VP9 comes with another one of its alpha channel."""
    added = (bytes(one) for one in packet.iter_sidedata() if one.data_type == _ADDED)
    return any(data[:8] == _ALPHA for data in added)


def chroma_siting(frame: av.VideoFrame) -> tuple[int, int]:
    """Where a frame's samples of chroma lie, as FFmpeg's filter `showinfo` tells; left, as in
    MPEG-2 and later, if nothing does.

    PyAV has no name for it, so that the filter's message is read.
    """
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
    )
    nodes = [source, graph.add("showinfo", "checksum=0"), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        with av.logging.Capture() as messages:
            source.push(frame)
            nodes[-1].pull()
    finally:
        av.logging.set_level(level)
    told = re.search(r" cl:(\w+) ", "".join(text for _, _, text in messages))
    return _SITINGS.get(told[1], LEFT) if told else LEFT


def pixel_aspect_of(stream: Any) -> Fraction:
    """The shape of pixels (width / height): the container's word before that of the codec."""
    found = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return Fraction(found or 1)


def colour_of(context: Any, frame: av.VideoFrame) -> Colour:
    """The colours that a stream declares, as its frames have them."""
    names = ("primaries", "transfer", "matrix", "range")
    values = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
    declared = dict(zip(names, map(int, values)))
    if frame.format.is_rgb or frame.format.has_palette:
        declared["matrix"] = RGB
    elif declared["matrix"] == RGB:
        declared["matrix"] = UNSPECIFIED
    grey = frame.format.name.startswith(("gray", "ya", "mono"))
    untold = not declared["range"] and grey and context.codec.canonical_name not in _LIMITED
    if untold or frame.format.name.startswith("yuvj"):
        declared["range"] = FULL
    return Colour(**declared)


def kind_of(frame: av.VideoFrame) -> tuple[str, int, int]:
    """How samples are read: pixel format, matrix and range."""
    return frame.format.name, int(frame.colorspace), int(frame.color_range)


def side_data_of(frame: av.VideoFrame, name: str) -> bytes | None:
    """What comes with a frame under a name of FFmpeg's; None if there is nothing."""
    found = frame.side_data.get(name)  # type: ignore[attr-defined]
    return None if found is None else bytes(found)
