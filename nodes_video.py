"""The node for videos: its schema, and a few lines that join it to `video`, `upscale` and the
host."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import Any

from comfy_api.latest import InputImpl, io

from . import host
from .arch import adopt
from .nodes import UpscaleImage, schema
from .upscale import parse_target, upscale_image
from .video import (
    CODECS,
    PIXEL_FORMATS,
    Encoding,
    PictureVideo,
    UnsupportedStreamError,
    VideoError,
    VideoFile,
    VideoJob,
)

VIDEO = io.Video  # hosts without it have no videos
NOT_FOR_VIDEOS = {
    "upscale_model",
    "image",
    "alpha",
    "output_dtype",
}  # of the inputs of UpscaleImage


class UpscaleVideo(io.ComfyNode):
    """`upscale_image` on the frames of a video, from file to file, with the inputs of
    `UpscaleImage`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        options = [
            one for one in UpscaleImage.define_schema().inputs if one.id not in NOT_FOR_VIDEOS
        ]
        return schema(
            node_id="FDATDenseIsoUpscaleVideo",
            display_name="Upscale Video (Tiled)",
            category="image/video",
            description="Upscales videos of any length frame by frame, in memory that does not grow; keeps the sound.",
            search_aliases=[
                "upscale video",
                "video upscaler",
                "super resolution video",
                "enlarge video",
                "4x video",
            ],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.UpscaleModel.Input(
                    "upscale_model", tooltip="From this pack's, ComfyUI's or another pack's loader."
                ),
                VIDEO.Input("video", tooltip="Sound, timestamps, colours and rotation are kept."),
                *options,
                io.Combo.Input(
                    "codec",
                    optional=True,
                    options=list(CODECS),
                    default="auto",
                    tooltip="auto: h264, which plays everywhere; hevc for videos of more than 8 bits.",
                ),
                io.Int.Input(
                    "crf",
                    optional=True,
                    default=-1,
                    min=-1,
                    max=63,
                    tooltip="Quality: smaller is better and a larger file. -1: near lossless (18 for h264).",
                ),
                io.Combo.Input(
                    "pixel_format",
                    optional=True,
                    options=list(PIXEL_FORMATS),
                    default="auto",
                    tooltip="auto: yuv420p, which plays everywhere; 10 bits where the video has more than 8.",
                ),
            ],
            outputs=[
                VIDEO.Output(
                    display_name="video",
                    tooltip="The upscaled video, a file in ComfyUI's temp folder.",
                )
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        target: str | None = None,
        codec: str | None = None,
        crf: int | None = None,
        pixel_format: str | None = None,
    ) -> bool | str:
        """What comes from other nodes is not known yet, and None."""
        try:
            parse_target(target or "")
            encoding(codec or "auto", -1 if crf is None else crf, pixel_format or "auto").resolved(
                8, ".mp4"
            )
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        upscale_model: Any,
        video: Any,
        codec: str = "auto",
        crf: int = -1,
        pixel_format: str = "auto",
        **options: Any,
    ) -> io.NodeOutput:
        model = adopt(host.image_model(upscale_model))
        options = engine_options(**options)
        run = partial(upscale_image, model, placement=host.HostPlacement(model), **options)
        with source_of(video) as source:
            height, width = source.size
            target = options["target"]
            size = (
                target.size(height, width)
                if target
                else (height * model.scale, width * model.scale)
            )
            job = new_job(source, size=size, encoding=encoding(codec, crf, pixel_format))
            try:
                job.run(lambda frames, progress: run(frames, progress=progress), host.progress())
            except BaseException as error:  # the newer hosts' interrupt is no Exception
                if not job.frames:
                    raise
                kept = host.keep_file(job.partial, "video/unfinished")
                text = f"{kept} holds the first {job.frames} frames"
                host.tell(cls.hidden.unique_id, text)
                if host.is_interrupt(error) or not isinstance(error, Exception):
                    raise
                raise VideoError(f"{error}; {text}") from error
        return io.NodeOutput(InputImpl.VideoFromFile(str(job.target)))


def encoding(codec: str, crf: int, pixel_format: str) -> Encoding:
    """The inputs of the node as an `Encoding`; a negative ``crf`` is the codec's own."""
    return Encoding(codec=codec, crf=None if crf < 0 else crf, pixel_format=pixel_format)


def engine_options(
    *, tile: int = 0, overlap: int = -1, batch: int = 0, target: str = "", **others: Any
) -> dict[str, Any]:
    """The inputs of the node as arguments of `upscale_image`."""
    return {
        "tile": tile or None,
        "overlap": None if overlap < 0 else overlap,
        "batch": batch or None,
        "target": parse_target(target),
        **others,
    }


def source_of(video: Any) -> VideoFile | PictureVideo:
    """What a graph connected as VIDEO; pictures in memory are taken as they are, without a copy."""
    if isinstance(video, InputImpl.VideoFromComponents):
        parts = video.get_components()
        audio = parts.audio and (parts.audio["waveform"][0], int(parts.audio["sample_rate"]))
        return PictureVideo(parts.images, Fraction(parts.frame_rate), audio)
    start, duration = getattr(video, "get_active_trim_window", lambda: (0, 0))()
    return VideoFile(video.get_stream_source(), start=start, duration=duration)


def new_job(source: VideoFile | PictureVideo, **options: Any) -> VideoJob:
    """Into MP4, or Matroska where MP4 cannot hold the sound."""
    try:
        return VideoJob(source, host.temporary_path(".mp4"), **options)
    except UnsupportedStreamError:
        return VideoJob(source, host.temporary_path(".mkv"), **options)
