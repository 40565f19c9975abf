"""The nodes: schemas, and a few lines each that join `arch`, `upscale` and the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import ComfyExtension, io

from . import host
from .arch import adopt, install, load_model
from .upscale import ALPHA_MODES, MODES, PRECISIONS, parse_target, upscale_image


def schema(**fields: Any) -> io.Schema:
    """A schema without the fields that this host's version does not know yet."""
    return io.Schema(**{name: value for name, value in fields.items() if name in io.Schema.__dataclass_fields__})


class LoadUpscaleModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FDATDenseIsoLoader",
            display_name="Load Upscale Model (FDAT, Dense-Iso-ViT)",
            category="loaders",
            description="Loads FDAT, Dense-Iso-ViT and every model that spandrel knows, for any upscale node.",
            search_aliases=["fdat", "dense-iso-vit", "load upscaler", "super resolution model", "upscale model"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=host.model_names(),
                    tooltip="A .safetensors, .pth, .pt or .ckpt file in models/upscale_models.",
                ),
            ],
            outputs=[
                io.UpscaleModel.Output(
                    display_name="upscale_model", tooltip="For this pack's, ComfyUI's and other packs' upscale nodes."
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, model_name: str) -> tuple[float, int]:
        return host.file_version(model_name)

    @classmethod
    def execute(cls, model_name: str) -> io.NodeOutput:
        model = load_model(host.model_path(model_name))
        host.attach_patcher(model)
        return io.NodeOutput(model)


class UpscaleImage(io.ComfyNode):
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
                io.UpscaleModel.Input("upscale_model", tooltip="From this pack's, ComfyUI's or another pack's loader."),
                io.Image.Input("image", tooltip="Grey, RGB or RGBA pictures; batches are done frame by frame."),
                io.Combo.Input(
                    "mode",
                    optional=True,
                    options=list(MODES),
                    default="auto",
                    tooltip="auto: exact for models that can do it (FDAT), tiles for others. exact: the whole-image "
                    "result in bounded memory. tile: overlapping tiles. whole: one call for the whole picture.",
                ),
                io.String.Input(
                    "target",
                    optional=True,
                    default="",
                    tooltip="Size of the result: empty for the model's own scale, a factor (2x, 1.5, 50%) or pixels "
                    "(1920x1080, 1920x, x1080).",
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
                    "batch", optional=True, default=0, min=0, max=64, tooltip="Tiles per model call; 0: automatic."
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
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The upscaled pictures.")],
        )

    @classmethod
    def validate_inputs(cls, target: str = "") -> bool | str:
        try:
            parse_target(target or "")
        except ValueError as error:
            return str(error)
        return True

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
            progress=host.progress(),
            placement=host.HostPlacement(model),
        )
        return io.NodeOutput(host.to_host(result))


class Extension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        install()
        host.add_bundled_models(Path(__file__).parent / "models")
        return [LoadUpscaleModel, UpscaleImage]
