"""The options of upscaling, declared once. `upscale.upscale_image` says what each is in Python."""

from __future__ import annotations

from .option import Option

UPSCALING: tuple[Option, ...] = (
    Option(
        name="mode",
        choices=("auto", "exact", "tile", "whole"),
        default="auto",
        text="auto: exact for models that offer it (FDAT, Dense-Iso-ViT), tiles for others. exact: "
        "the result of the whole picture, in bounded memory. tile: overlapping tiles. whole: the "
        "whole picture in one call of the model.",
        more="With a mask, auto means tiles. For Dense-Iso-ViT, exact is the result of its own 64x64 "
        "windows, blended.",
    ),
    Option(
        name="target",
        kind="text",
        unset="",
        flags=("--target", "-t"),
        text="Size of the result: {unset} for the model's own scale, or a factor (2x, 1.5, 50%), "
        "pixels (1920x1080, 1920x, x1080), a box to fit into (fit 1920x1080) or megapixels (2mp).",
        more="Where one side is given, or a box, the aspect ratio is kept. Each picture is first "
        "upscaled by the model, and then resampled to this size with antialiasing.",
    ),
    Option(
        name="tile",
        advanced=True,
        kind="int",
        least=8,
        offered=16384,
        step=8,
        unset=0,
        text="Largest side of a tile, in pixels of the input; {unset}: automatic.",
        more="The automatic size depends on the model and on the free memory. Mode exact makes no "
        "tiles.",
    ),
    Option(
        name="overlap",
        advanced=True,
        kind="int",
        least=0,
        offered=1024,
        unset=-1,
        text="Overlap of neighbouring tiles, in pixels of the input; {unset}: automatic.",
        more="Some tiles may overlap by more. Automatic is 32, less for small tiles, or what the "
        "model asks for.",
    ),
    Option(
        name="batch",
        advanced=True,
        kind="int",
        least=1,
        offered=64,
        unset=0,
        text="Number of tiles in one call of the model; {unset}: automatic.",
        more="Automatic is one for large tiles, and several for small ones.",
    ),
    Option(
        name="precision",
        advanced=True,
        choices=("auto", "fp32", "fp16", "bf16"),
        default="auto",
        text="auto: half precision where the GPU is fast in it and the model supports it. What "
        "overflows is computed again in fp32.",
        more="The log says when that happens. fp32, fp16 and bf16: always that one; a model that "
        "does not support it is refused.",
    ),
    Option(
        name="alpha",
        advanced=True,
        choices=("model", "resize"),
        default="model",
        where=("picture", "command"),
        text="How transparency is enlarged: by the model too, or only by resampling.",
        more="model: colours are first multiplied by the transparency, so that edges get no fringe.",
    ),
    Option(
        name="seamless",
        choices=("none", "horizontal", "vertical", "both"),
        default="none",
        text="For textures: opposite borders of the result meet as those of the input do.",
        more="horizontal: the left border meets the right one. The result tiles at every target "
        "size.",
    ),
    Option(
        name="ensemble",
        advanced=True,
        choices=(1, 2, 4, 8),
        default=1,
        text="Averages the results for 2, 4 or 8 flips and turns of the picture: a little better, "
        "and as many times slower.",
        more="1: off. 8: with quarter turns.",
    ),
    Option(
        name="colour_fix",
        advanced=True,
        choices=("none", "average", "wavelet"),
        default="none",
        text="For models that shift colours: average and wavelet take the broad colours from the "
        "input.",
        more="average: the mean colour of the surrounding 65 pixels or so becomes that of the input. "
        "wavelet: finer; it replaces the coarsest of five wavelet layers. Detail and transparency "
        "are not touched.",
    ),
    Option(  # of the node alone: how the host gets the pictures
        name="output_dtype",
        advanced=True,
        choices=("auto", "fp32", "fp16"),
        default="auto",
        where=("picture",),
        text="fp16: the result takes half the memory, but not every node accepts it.",
        more="auto: the type in which ComfyUI keeps pictures.",
    ),
    Option(
        name="border",
        advanced=True,
        choices=("auto", "mirror", "model"),
        default="auto",
        text="mirror: beyond the border the model sees the picture mirrored, which is cut off again. "
        "model: its own padding. auto: mirror where that helps (FDAT).",
        more="FDAT's zero padding darkens the border of a white picture by up to 5 levels of 255; "
        "with mirroring it is 1. In modes exact and whole, auto keeps the model's own padding.",
    ),
    Option(
        name="cuts",
        choices=("auto", "none"),
        default="auto",
        appended=True,
        advanced=True,
        text="For models that look at several frames: auto finds where scenes change, and shows the "
        "model no frame of another scene. none: the model sees all frames.",
        more="A scene begins where a frame differs from the one before by 6 % or more on average, "
        "and 2.5 times as much as the frames around do. Other models see one frame at a time.",
    ),
    Option(
        name="mask",
        kind="mask",
        text="Only tiles that the mask touches go through the model; the rest is resampled, and "
        "joined softly.",
        more="White goes through the model, black is resampled, grey is a mix. If the mask is black "
        "everywhere, everything is resampled, with a warning: ComfyUI's LoadImage gives such a mask "
        "for a picture without transparency.",
    ),
)
