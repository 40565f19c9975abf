"""The options of upscaling, declared once. `upscale.upscale_image` says what each is in Python."""

from __future__ import annotations

from .option import Option

UPSCALING: tuple[Option, ...] = (
    Option(
        name="mode",
        choices=("auto", "exact", "tile", "whole"),
        default="auto",
        text="auto: exact for models that can do it (FDAT, Dense-Iso-ViT), tiles for others. "
        "exact: the whole-image result in bounded memory. tile: overlapping tiles. whole: one call "
        "for the whole picture.",
        more="With a mask auto means tiles. For Dense-Iso-ViT exact is the result of its own 64x64 "
        "windows, blended.",
    ),
    Option(
        name="target",
        kind="text",
        unset="",
        flags=("--target", "-t"),
        text="Size of the result: {unset} for the model's own scale, a factor (2x, 1.5, 50%), "
        "pixels (1920x1080, 1920x, x1080), a box to fit inside (fit 1920x1080) or megapixels "
        "(2mp).",
        more="With one side, and inside of a box, the aspect is kept. Each picture is upscaled by "
        "the model, then resampled, antialiased.",
    ),
    Option(
        name="tile",
        advanced=True,
        kind="int",
        least=8,
        offered=16384,
        step=8,
        unset=0,
        text="Largest side of a tile in pixels; {unset}: automatic.",
        more="Pixels are those of the input; automatic: by the model and the free memory.",
    ),
    Option(
        name="overlap",
        advanced=True,
        kind="int",
        least=0,
        offered=1024,
        unset=-1,
        text="Overlap of tiles in pixels; {unset}: automatic.",
        more="The least between neighbours; automatic: 32, less for small tiles, or what the "
        "model asks for.",
    ),
    Option(
        name="batch",
        advanced=True,
        kind="int",
        least=1,
        offered=64,
        unset=0,
        text="Tiles per model call; {unset}: automatic.",
        more="Automatic: one large tile, or several small ones.",
    ),
    Option(
        name="precision",
        advanced=True,
        choices=("auto", "fp32", "fp16", "bf16"),
        default="auto",
        text="auto: half precision where the GPU is fast in it and the model supports it. What "
        "overflows is computed again in fp32.",
        more="The log says so then. fp32, fp16 and bf16: that one, where the model supports it.",
    ),
    Option(
        name="alpha",
        advanced=True,
        choices=("model", "resize"),
        default="model",
        where=("picture", "command"),
        text="Transparency: upscaled by the model too, or plainly resampled.",
        more="model: with premultiplied colours, so that edges don't fringe.",
    ),
    Option(
        name="seamless",
        choices=("none", "horizontal", "vertical", "both"),
        default="none",
        text="For textures: opposite borders of the result meet as those of the input do.",
        more="horizontal: left meets right. The result tiles so at every target size.",
    ),
    Option(
        name="ensemble",
        advanced=True,
        choices=(1, 2, 4, 8),
        default=1,
        text="Mean of the results for 2, 4 or 8 flips and turns: a little better, as many times "
        "slower.",
        more="1: off. 8: quarter turns too.",
    ),
    Option(
        name="colour_fix",
        advanced=True,
        choices=("none", "average", "wavelet"),
        default="none",
        text="For models that shift colours: average or wavelet takes broad colour from the input.",
        more="average: means of about 65 pixels around are those of the input. wavelet: finer, the "
        "coarsest of five wavelet layers. Detail and transparency are not touched.",
    ),
    Option(  # of the node alone: how the host gets the pictures
        name="output_dtype",
        advanced=True,
        choices=("auto", "fp32", "fp16"),
        default="auto",
        where=("picture",),
        text="fp16: the result takes half the memory; not every node takes it.",
        more="auto: as ComfyUI keeps pictures.",
    ),
    Option(
        name="border",
        advanced=True,
        choices=("auto", "mirror", "model"),
        default="auto",
        text="mirror: the model sees mirrored pixels beyond the border, cut off again. model: its own "
        "padding. auto: mirror where that helps (FDAT).",
        more="FDAT's zero padding darkens the border of a flat white picture by up to 9 levels of "
        "255; mirrored by 2. Modes exact and whole keep the model's own padding with auto.",
    ),
    Option(
        name="cuts",
        choices=("auto", "none"),
        default="auto",
        appended=True,
        advanced=True,
        text="For models that take several frames: auto finds where scenes change, and shows the "
        "model no frame of another scene. none: it sees all.",
        more="A scene begins where a frame differs from the one before by 6 % on average, and 2.5 "
        "times as much as frames around do. Other models see one frame at a time.",
    ),
    Option(
        name="mask",
        kind="mask",
        text="Only tiles that it touches go through the model; the rest is resampled, softly "
        "joined.",
        more="White goes through the model, black is resampled, grey is a mix. A mask that is black "
        "all over means plain resampling, with a warning: ComfyUI's LoadImage gives such a one for "
        "a picture without transparency.",
    ),
)
