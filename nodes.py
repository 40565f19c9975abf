"""The nodes: schemas, and a few lines each that join `arch`, `upscale`, `video` and the host."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from comfy_api.latest import ComfyExtension, InputImpl, io, ui
from torch import Tensor

from . import host
from .arch import adopt, describe, install, load_model, parse_options
from .common.bundled import CHOICES, candidates
from .common.encoding import ENCODING
from .common.printable import shortened
from .common.spreading import SPREADING
from .common.upscaling import UPSCALING
from .common.wear import wear_of
from .node_inputs import FOLDED, model_input, option_inputs, option_values, schema
from .upscale import parse_target, upscale_frames, upscale_image

logger = logging.getLogger(__name__)

try:
    from . import video as videos
    from .node_devices import segments_beside
    from .node_video import source_of
except (ImportError, AttributeError) as error:  # no PyAV, or one that is too old
    logger.warning("no node for videos: %s", error)
    videos = None


def _problem(parse: Callable[[str], Any], text: str | None) -> bool | str:
    """True, or what is wrong with ``text``, which is None while another node has yet to make it."""
    try:
        parse(text or "")
    except ValueError as error:
        return shortened(str(error))
    return True


class LoadUpscaleModel(io.ComfyNode):
    """`arch.load_model` for a file of the host's model folders."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FDATDenseIsoLoader",
            display_name="Load Upscale Model (FDAT, Dense-Iso-ViT)",
            category=host.category("UpscaleModelLoader", "loaders"),
            description="Loads FDAT, Dense-Iso-ViT and every other model that spandrel knows, for any upscale node.",
            search_aliases=[
                "fdat",
                "dense-iso-vit",
                "load upscaler",
                "super resolution model",
                "upscale",
                "upscale model",
                "esrgan",
                "real-esrgan",
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,  # notes are sent again with cached results
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=[*CHOICES, *host.model_names()],
                    tooltip="A .safetensors, .pth, .pt or .ckpt file in models/upscale_models. auto and auto-x4: the "
                    "bundled model of x2 or x4 that suits the picture, clean or compressed.",
                ),
                io.String.Input(
                    "options",
                    optional=True,
                    default="",
                    tooltip="What the tensors of a Dense-Iso-ViT do not tell, for example: heads=6,8,6,8; "
                    "gated_half=first. Empty: taken from a .json file beside the checkpoint or from its metadata, "
                    "else as published.",
                    **FOLDED,
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Used by auto alone: the picture that the model is to suit. If none is connected, it takes "
                    "the model for compressed pictures.",
                ),
            ],
            outputs=[
                io.UpscaleModel.Output(
                    display_name="upscale_model",
                    tooltip="For this pack's, ComfyUI's and other packs' upscale nodes.",
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(
        cls, model_name: str, options: str = "", image: Any = None
    ) -> tuple[float, int]:
        return host.file_version(model_name)

    @classmethod
    def validate_inputs(cls, options: str = "") -> bool | str:
        return _problem(parse_options, options)

    @classmethod
    def execute(cls, model_name: str, options: str = "", image: Any = None) -> io.NodeOutput:
        said = []
        if model_name in CHOICES:
            path, reason = suited(model_name, image)
            said.append(f"{model_name} took {path.stem}{reason}")
        else:
            path = host.model_path(model_name)
        model = load_model(path, **parse_options(options))
        host.attach_patcher(model)
        if doubts := doubts_about(getattr(model.model, "assumptions", ())):
            said.append(doubts)
        with host.telling(number_of(cls)) as told:
            for text in said:
                logger.warning("%s", text)
        return io.NodeOutput(model, ui=host.note(told))


def suited(choice: str, image: Any) -> tuple[Path, str]:
    """Which checkpoint of one of `CHOICES` suits the first picture of a batch, and why."""
    clean, real = candidates(choice)
    if image is None:
        return real, ": most pictures are compressed; connect yours to image, and it is looked at"
    wear = wear_of(image[0].float().cpu().numpy())
    return (real if wear.signs else clean), f" for this picture: {wear}"


def number_of(node: type[io.ComfyNode]) -> str | None:
    """Which node of the graph runs; None where an old host does not say it."""
    return getattr(getattr(node, "hidden", None), "unique_id", None)


def doubts_about(assumptions: Sequence[str]) -> str:
    """What the loader's node says where the reading of a checkpoint rests on guesses; else nothing.

    Answers that were merely assumed are as published. They are told where a guess names them.
    """
    doubtful = [text for text in assumptions if text.startswith(("guessed", "by file order"))]
    if not doubtful:
        return ""
    named = set(re.findall(r"\w+", " ".join(doubtful)))
    answers = [text.removeprefix("assumed ") for text in assumptions if text.startswith("assumed ")]
    doubtful += [f"assumed {answer}" for answer in answers if answer.partition("=")[0] in named]
    said = "; ".join(doubtful[:3])
    return f"Not certain: {said}. Upscale Model Info lists everything that was assumed."


class UpscaleImage(io.ComfyNode):
    """`upscale.upscale_image` on the host's devices, with its progress bar and previews."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FDATDenseIsoUpscale",
            display_name="Upscale Image (Tiled)",
            category=host.category("ImageUpscaleWithModel", "image/upscaling"),
            description="Upscales pictures of any size with any upscale model, without running out of memory. "
            "The defaults are good.",
            search_aliases=[
                "upscale",
                "upscaler",
                "tiled upscale",
                "super resolution",
                "enlarge",
                "hires",
                "4x",
                "fdat",
                "esrgan",
                "denoise",
                "restore",
                "remove jpeg artifacts",
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,  # notes are sent again with cached results
            inputs=[
                model_input(),
                io.Image.Input(
                    "image",
                    tooltip="Grey, RGB or RGBA pictures; a batch is done picture by picture.",
                ),
                *option_inputs(UPSCALING, "picture"),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The upscaled pictures.")],
        )

    @classmethod
    def validate_inputs(cls, target: str = "") -> bool | str:
        return _problem(parse_target, target)

    @classmethod
    def execute(cls, upscale_model: Any, image: Any, **inputs: Any) -> io.NodeOutput:
        model = adopt(host.image_model(upscale_model))
        options = option_values(UPSCALING, "picture", inputs)
        made = host.output(options.pop("output_dtype"))
        with host.telling(number_of(cls)) as told:
            result = upscale_image(
                model,
                image,
                progress=host.progress(),
                preview=host.preview(),
                placement=host.HostPlacement(model),
                **made,
                **options,
            )
        return io.NodeOutput(result, ui=host.note(told))


class UpscaleModelInfo(io.ComfyNode):
    """`arch.describe` as text in the node and as an output."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FDATDenseIsoModelInfo",
            display_name="Upscale Model Info",
            category=host.category("UpscaleModelLoader", "loaders"),
            description="Says what an upscale model is: architecture, scale, parameters, precisions, training data.",
            search_aliases=[
                "upscale model info",
                "model metadata",
                "architecture",
                "inspect model",
                "scale",
            ],
            is_output_node=True,
            inputs=[
                io.UpscaleModel.Input(
                    "upscale_model",
                    tooltip="A model from any loader; its file is known if this pack loaded it.",
                ),
            ],
            outputs=[io.String.Output(display_name="text", tooltip="What the node shows.")],
        )

    @classmethod
    def execute(cls, upscale_model: Any) -> io.NodeOutput:
        text = describe(adopt(upscale_model))  # as this pack's other nodes run it
        return io.NodeOutput(text, ui=ui.PreviewText(text))


class UpscaleVideo(io.ComfyNode):
    """`upscale.upscale_image` on the frames of a video, from file to file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FDATDenseIsoUpscaleVideo",
            display_name="Upscale Video (Tiled)",
            category=host.category("LoadVideo", "image/video"),
            description="Upscales videos of any length frame by frame: long ones take no more memory. Keeps "
            "the sound.",
            search_aliases=[
                "upscale video",
                "video upscaler",
                "super resolution video",
                "enlarge video",
                "4x video",
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,  # notes are sent again with cached results
            inputs=[
                model_input(),
                io.Video.Input(
                    "video", tooltip="Sound, timestamps, colours and rotation are kept."
                ),
                *option_inputs((*UPSCALING, *ENCODING, *SPREADING), "video"),
            ],
            outputs=[
                io.Video.Output(
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
        given = {"codec": codec, "crf": crf, "pixel_format": pixel_format}
        try:
            parse_target(target or "")
            encoding(given).resolved(8, ".mp4")
        except ValueError as error:
            return shortened(str(error))
        return True

    @classmethod
    def execute(cls, upscale_model: Any, video: Any, **inputs: Any) -> io.NodeOutput:
        model = adopt(host.image_model(upscale_model))
        options = option_values(UPSCALING, "video", inputs)
        devices = option_values(SPREADING, "video", inputs)["devices"]
        target = parse_target(options["target"] or "")
        with host.telling(number_of(cls)) as told, source_of(video) as source:
            size, options["target"] = videos.result_size(source, target, model.scale)
            job = new_job(source, size=size, encoding=encoding(inputs))
            shown = host.FramePreview(host.progress(), host.preview())

            def run(
                frames: Iterable[Tensor | None], deliver: Callable[[Tensor], None], **given: Any
            ) -> None:
                def deliver_and_show(picture: Tensor) -> None:
                    deliver(picture)
                    shown.show(picture)

                placement = host.HostPlacement(model)
                upscale_frames(
                    model, frames, deliver_and_show, placement=placement, **options, **given
                )

            try:
                with segments_beside(devices, model, source, run, options) as segments:
                    if segments:
                        job.run_elsewhere(segments(job), shown.progress)
                    else:
                        job.run(run, shown.progress)
            except BaseException as error:  # the newer hosts' interrupt is no Exception
                if not job.frames:
                    raise
                kept = host.keep_file(job.partial, "video/unfinished")
                text = f"{kept} holds the first {job.frames} frames"
                host.announce(number_of(cls), text)
                if host.is_interrupt(error) or not isinstance(error, Exception):
                    raise
                raise videos.VideoError(f"{error}; {text}") from error
        return io.NodeOutput(InputImpl.VideoFromFile(str(job.target)), ui=host.note(told))


def encoding(inputs: dict[str, Any]) -> videos.Encoding:
    """How the node's inputs say that the result is encoded."""
    return videos.Encoding(**option_values(ENCODING, "video", inputs))


def new_job(source: videos.VideoFile | videos.PictureVideo, **options: Any) -> videos.VideoJob:
    """Into MP4, or Matroska where MP4 cannot hold the sound."""
    try:
        return videos.VideoJob(source, host.temporary_path(".mp4"), **options)
    except videos.UnsupportedStreamError:
        return videos.VideoJob(source, host.temporary_path(".mkv"), **options)


class Extension(ComfyExtension):
    """The pack as the host sees it: without a node for videos where host or PyAV knows none."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        install()
        host.add_bundled_models(Path(__file__).parent / "models")
        nodes = [LoadUpscaleModel, UpscaleImage, UpscaleModelInfo]
        return [*nodes, UpscaleVideo] if videos and hasattr(io, "Video") else nodes
