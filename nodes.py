"""The nodes: schemas, and a few lines each that join `arch`, `upscale` and the host."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from comfy_api.latest import ComfyExtension, io, ui

from . import host
from .arch import adopt, describe, install, load_model, parse_options
from .upscale import (
    ALPHA_MODES,
    COLOUR_FIXES,
    ENSEMBLES,
    MODES,
    PRECISIONS,
    SEAMLESS,
    parse_target,
    upscale_image,
)

logger = logging.getLogger(__name__)


def schema(**fields: Any) -> io.Schema:
    """A schema without the fields that this host's version does not know yet."""
    return io.Schema(
        **{name: value for name, value in fields.items() if name in io.Schema.__dataclass_fields__}
    )


def _problem(parse: Callable[[str], Any], text: str | None) -> bool | str:
    """True, or what is wrong with ``text``, which is None while another node has yet to make it."""
    try:
        parse(text or "")
    except ValueError as error:
        return str(error)
    return True


class LoadUpscaleModel(io.ComfyNode):
    """`arch.load_model` for a file of the host's model folders."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FDATDenseIsoLoader",
            display_name="Load Upscale Model (FDAT, Dense-Iso-ViT)",
            category="loaders",
            description="Loads FDAT, Dense-Iso-ViT and every model that spandrel knows, for any upscale node.",
            search_aliases=[
                "fdat",
                "dense-iso-vit",
                "load upscaler",
                "super resolution model",
                "upscale model",
            ],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=host.model_names(),
                    tooltip="A .safetensors, .pth, .pt or .ckpt file in models/upscale_models.",
                ),
                io.String.Input(
                    "options",
                    optional=True,
                    default="",
                    tooltip="What the tensors of a Dense-Iso-ViT do not tell, for example: heads=6,8,6,8; "
                    "gated_half=first. Empty: from a .json file beside the checkpoint, its metadata, or as published.",
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
    def fingerprint_inputs(cls, model_name: str, options: str = "") -> tuple[float, int]:
        return host.file_version(model_name)

    @classmethod
    def validate_inputs(cls, options: str = "") -> bool | str:
        return _problem(parse_options, options)

    @classmethod
    def execute(cls, model_name: str, options: str = "") -> io.NodeOutput:
        model = load_model(host.model_path(model_name), **parse_options(options))
        host.attach_patcher(model)
        return io.NodeOutput(model)


class UpscaleImage(io.ComfyNode):
    """`upscale.upscale_image` on the host's devices, with its progress bar and previews."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FDATDenseIsoUpscale",
            display_name="Upscale Image (Tiled)",
            category="image/upscaling",
            description="Upscales pictures with any upscale model in the memory there is; the defaults are good.",
            search_aliases=[
                "upscale",
                "upscaler",
                "tiled upscale",
                "super resolution",
                "enlarge",
                "hires",
                "4x",
                "fdat",
            ],
            inputs=[
                io.UpscaleModel.Input(
                    "upscale_model", tooltip="From this pack's, ComfyUI's or another pack's loader."
                ),
                io.Image.Input(
                    "image", tooltip="Grey, RGB or RGBA pictures; batches are done frame by frame."
                ),
                io.Combo.Input(
                    "mode",
                    optional=True,
                    options=list(MODES),
                    default="auto",
                    tooltip="auto: exact for models that can do it (FDAT, Dense-Iso-ViT), tiles for others. exact: the "
                    "whole-image result in bounded memory. tile: overlapping tiles. whole: one call for the whole "
                    "picture.",
                ),
                io.String.Input(
                    "target",
                    optional=True,
                    default="",
                    tooltip="Size of the result: empty for the model's own scale, a factor (2x, 1.5, 50%), pixels "
                    "(1920x1080, 1920x, x1080), a box to fit inside (fit 1920x1080) or megapixels (2mp).",
                ),
                io.Int.Input(
                    "tile",
                    optional=True,
                    default=0,
                    min=0,
                    max=16384,
                    step=8,
                    tooltip="Largest side of a tile in pixels; 0: automatic.",
                ),
                io.Int.Input(
                    "overlap",
                    optional=True,
                    default=-1,
                    min=-1,
                    max=1024,
                    tooltip="Overlap of tiles in pixels; -1: automatic.",
                ),
                io.Int.Input(
                    "batch",
                    optional=True,
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Tiles per model call; 0: automatic.",
                ),
                io.Combo.Input(
                    "precision",
                    optional=True,
                    options=list(PRECISIONS),
                    default="auto",
                    tooltip="auto: half precision where the GPU is fast in it and the model supports it. What "
                    "overflows is computed again in fp32.",
                ),
                io.Combo.Input(
                    "alpha",
                    optional=True,
                    options=list(ALPHA_MODES),
                    default="model",
                    tooltip="Transparency: upscaled by the model too, or plainly resampled.",
                ),
                io.Combo.Input(
                    "seamless",
                    optional=True,
                    options=list(SEAMLESS),
                    default="none",
                    tooltip="For textures: opposite borders of the result meet as those of the input do.",
                ),
                io.Combo.Input(
                    "ensemble",
                    optional=True,
                    options=list(ENSEMBLES),
                    default=1,
                    tooltip="Mean of the results for 2, 4 or 8 flips and turns: a little better, as many times slower.",
                ),
                io.Combo.Input(
                    "colour_fix",
                    optional=True,
                    options=list(COLOUR_FIXES),
                    default="none",
                    tooltip="For models that shift colours: average or wavelet takes broad colour from the input.",
                ),
                io.Combo.Input(
                    "output_dtype",
                    optional=True,
                    options=list(host.OUTPUT_DTYPES),
                    default="auto",
                    tooltip="fp16: the result takes half the memory; not every node takes it.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Only tiles that it touches go through the model; the rest is resampled, softly joined.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The upscaled pictures.")],
        )

    @classmethod
    def validate_inputs(cls, target: str = "") -> bool | str:
        return _problem(parse_target, target)

    @classmethod
    def execute(
        cls,
        upscale_model: Any,
        image: Any,
        mode: str = "auto",
        target: str = "",
        tile: int = 0,
        overlap: int = -1,
        batch: int = 0,
        precision: str = "auto",
        alpha: str = "model",
        seamless: str = "none",
        ensemble: int = 1,
        colour_fix: str = "none",
        output_dtype: str = "auto",
        mask: Any = None,
    ) -> io.NodeOutput:
        model = adopt(host.image_model(upscale_model))
        result = upscale_image(
            model,
            image,
            mode=mode,
            tile=tile or None,
            overlap=None if overlap < 0 else overlap,
            batch=batch or None,
            precision=precision,
            alpha=alpha,
            target=parse_target(target),
            seamless=seamless,
            ensemble=ensemble,
            colour_fix=colour_fix,
            mask=mask,
            progress=host.progress(),
            preview=host.preview(),
            placement=host.HostPlacement(model),
            **host.output(output_dtype),
        )
        return io.NodeOutput(result)


class UpscaleModelInfo(io.ComfyNode):
    """`arch.describe` as text in the node and as an output."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FDATDenseIsoModelInfo",
            display_name="Upscale Model Info",
            category="loaders",
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
                    "upscale_model", tooltip="From any loader; the file is known for this pack's."
                ),
            ],
            outputs=[io.String.Output(display_name="text", tooltip="What the node shows.")],
        )

    @classmethod
    def execute(cls, upscale_model: Any) -> io.NodeOutput:
        text = describe(upscale_model)
        return io.NodeOutput(text, ui=ui.PreviewText(text))


def video_nodes() -> list[type[io.ComfyNode]]:
    """Those for videos; none where the host, or PyAV, knows no videos."""
    try:
        from .nodes_video import UpscaleVideo
    except (ImportError, AttributeError) as error:
        logger.warning("no node for videos: %s", error)
        return []
    return [UpscaleVideo]


class Extension(ComfyExtension):
    """The pack as the host sees it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        install()
        host.add_bundled_models(Path(__file__).parent / "models")
        return [LoadUpscaleModel, UpscaleImage, UpscaleModelInfo, *video_nodes()]
