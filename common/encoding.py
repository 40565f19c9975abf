"""The options of written videos, declared once. `video.Encoding` takes them."""

from __future__ import annotations

from .option import Option

ENCODING: tuple[Option, ...] = (
    Option(
        name="codec",
        choices=("auto", "h264", "hevc", "av1", "vp9"),
        default="auto",
        flags=("--video-codec",),
        where=("video", "command"),
        text="auto: h264, which plays everywhere; hevc for videos of more than 8 bits.",
        more="WebM holds only vp9 and av1; there auto is vp9.",
    ),
    Option(
        name="crf",
        kind="int",
        least=0,
        largest=63,
        unset=-1,
        where=("video", "command"),
        text="Quality: a smaller number is better and makes a larger file; {unset}: nearly lossless "
        "(18 for h264).",
        more="Nearly lossless is 20 for hevc, 25 for av1, 24 for vp9. 0 is the best.",
    ),
    Option(
        name="pixel_format",
        advanced=True,
        choices=(
            "auto",
            "yuv420p",
            "yuv422p",
            "yuv444p",
            "yuv420p10le",
            "yuv422p10le",
            "yuv444p10le",
        ),
        default="auto",
        where=("video", "command"),
        text="auto: yuv420p, which plays everywhere; 10 bits where the video has more than 8.",
    ),
)
