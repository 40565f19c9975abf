"""`upscale_image`: any picture through any image model, on any device, in the memory there is."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack, nullcontext

import psutil
import torch
from spandrel import ImageModelDescriptor
from torch import Tensor

from .channels import ChannelPass, channel_passes, premultiply, unpremultiply_
from .network import OutOfMemoryError, Runner
from .placement import DirectPlacement, training_mode_kept
from .precision import resolve_precision
from .protocol import Placement, Progress
from .resize import Target, parse_target, resize
from .tiled import TiledUpscaler, TileSettings
from .whole import ExactUpscaler

MODES = ("auto", "exact", "tile", "whole")
ALPHA_MODES = ("model", "resize")


def upscale_image(
    model: ImageModelDescriptor,
    image: Tensor,
    *,
    mode: str = "auto",
    tile: int | None = None,
    overlap: int | None = None,
    batch: int | None = None,
    precision: str = "auto",
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    alpha: str = "model",
    target: Target | float | str | None = None,
    placement: Placement | None = None,
) -> Tensor:
    """Upscale (or restore, with a x1 model) a batch of pictures, frame by frame.

    Args:
        model: a spandrel descriptor of 1, 3 or 4 channels, of any architecture. It comes back as it was: weights,
            dtype, device and mode, also after an error.
        image: (B, H, W, C) floating point in [0, 1]; C = 1 (grey), 3 (RGB) or 4 (RGBA); any device.
        mode: "exact" is the whole-image result band by band, for networks that offer it (FDAT); "tile" overlapping
            tiles blended; "whole" one call for the whole frame; "auto" exact where it is offered, else tiles.
        tile: largest side of a tile in input pixels; None: from the model and the free memory. Like ``overlap`` and
            ``batch`` it is for mode "tile" (and "auto" where that means tiles).
        overlap: smallest overlap of tiles in input pixels; None: 32, less for small tiles, or what the model asks for.
        batch: tiles per call of the network; None: 1 for large tiles, more for small ones.
        precision: "fp32", "fp16", "bf16", or "auto": half precision on GPUs that compute in it, for models that
            support it. What turns out NaN or infinite is computed again in float32, with a warning in the log.
        device: where to compute; None: a CUDA device if there is one, else where the model is.
        progress: called as ``progress(done, total)`` after every batch of tiles; what it raises ends the work.
        alpha: "model" upscales alpha by the same model, with premultiplied colours; "resize" resamples it.
        target: size of the result: a factor of the input size, a `Target`, or its text (`parse_target`); None: the
            model's scale.
        placement: who owns the device memory (`protocol.Placement`); None: this call alone, on ``device``.

    Returns:
        (B, H * scale, W * scale, C), or the target's size: float32 in [0, 1] on the CPU.

    Raises:
        ValueError: an argument is out of its range, or the model's output is NaN or infinite in float32.
        OutOfMemoryError: even the smallest tile does not fit.
    """
    _check_image(image)
    check_model(model)
    _check_options(mode, alpha, tile, overlap, batch)
    engine = getattr(model.model, "exact_engine", None)
    if mode == "exact" and engine is None:
        raise ValueError(f"{model.architecture.name} offers no exact mode; use mode 'auto' or 'tile'")
    frames, height, width, channels = image.shape
    if isinstance(target, int | float):
        target = Target(factor=float(target))
    elif isinstance(target, str):
        target = parse_target(target)
    scaled = height * model.scale, width * model.scale
    size = target.size(height, width) if target else scaled
    # outside inference mode, so that callers get no inference tensor
    result = _allocate(frames, size, scaled, channels)
    _check_finite(image)
    with_alpha = channels == 4 and not all(map(is_opaque, image))
    passes = channel_passes(channels, model.input_channels, with_alpha=with_alpha and alpha == "model")

    owned = DirectPlacement(model, device) if placement is None else nullcontext(placement)
    with torch.inference_mode(), training_mode_kept(model), owned as where, ExitStack() as cleanup:
        runner = Runner(model, resolve_precision(precision, model, where.auto_dtype(model)), where)
        done, total = 0, 0

        def tick(steps: int) -> None:
            nonlocal done
            done += steps
            if progress:
                progress(done, total)

        run: Callable[[Tensor, Tensor, ChannelPass], None]
        if engine is not None and mode in ("auto", "exact"):
            exact = ExactUpscaler(runner, height, width, tick)
            cleanup.callback(exact.release)
            run, steps = exact.run, exact.steps
        else:
            whole = max(height, width) if mode == "whole" else None
            settings = TileSettings(runner, height, width, whole or tile, overlap, batch)
            upscaler = TiledUpscaler(runner, settings, tick)
            run, steps = (
                (lambda plane, into, one: _run_tiles(upscaler, plane, into, one)),
                settings.count(height, width),
            )
        total = steps * len(passes) * frames
        for frame, into in zip(image, result):
            full = into if size == scaled else torch.empty(*scaled, channels)
            _upscale_frame(frame.to("cpu", torch.float32), full, passes, run, with_alpha, alpha)
            if full is not into:
                into.copy_(resize(full, size))
        return result


def _upscale_frame(
    frame: Tensor,
    into: Tensor,
    passes: list[ChannelPass],
    run: Callable[[Tensor, Tensor, ChannelPass], None],
    with_alpha: bool,
    alpha: str,
) -> None:
    """All channels of one frame (H, W, C), written to ``into`` (H * scale, W * scale, C)."""
    if frame.shape[-1] == 4 and not with_alpha:
        into[..., 3] = 1
    premultiplied = with_alpha and alpha == "model"
    source = premultiply(frame) if premultiplied else frame
    for one in passes:
        run(one.select(source), into[..., one.target[0] : one.target[-1] + 1], one)
    if with_alpha and is_opaque(frame):
        into[..., 3] = 1  # a frame's result does not depend on the frames beside it
    if premultiplied:
        unpremultiply_(into)
    elif with_alpha:
        into[..., 3:] = resize(frame[..., 3:], tuple(into.shape[:2]))


def _run_tiles(upscaler: TiledUpscaler, plane: Tensor, into: Tensor, one: ChannelPass) -> None:
    """Add the weighted tiles of one pass up in ``into`` (H * scale, W * scale, channels of the pass)."""

    def weigh(tile: Tensor, weights: Tensor) -> Tensor:
        return (one.collect(tile) * weights.to(tile.device)).permute(1, 2, 0).to("cpu")

    def write(tile: Tensor, rows: slice, columns: slice, weights: Tensor | None) -> None:
        if weights is None:
            into.copy_(one.collect(tile.to("cpu")).permute(1, 2, 0))
            return
        try:
            weighted = weigh(tile, weights)
        except Exception as error:
            if not upscaler.runner.placement.is_out_of_memory(error):
                raise
            weighted = weigh(tile.to("cpu"), weights)
        into[rows, columns] += weighted

    into.zero_()
    upscaler.add_to(plane, write)


def is_opaque(frame: Tensor) -> bool:
    """Whether no pixel of (H, W, 4) is transparent."""
    return bool((frame[..., 3] == 1).all())


def _check_image(image: Tensor) -> None:
    if not isinstance(image, Tensor):
        raise ValueError(f"the image is a {type(image).__name__}; a torch.Tensor (B, H, W, C) was expected")
    shape = tuple(image.shape)
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise ValueError(f"the image has the shape {shape}; (B, H, W, C) with C = 1, 3 or 4 was expected")
    if 0 in shape:
        raise ValueError(f"the image has the shape {shape} and so no pixels; every side must be at least 1")
    if image.layout is not torch.strided or image.is_meta:
        raise ValueError(f"the image is a {image.layout} tensor on {image.device}; an ordinary tensor was expected")
    if image.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise ValueError(
            f"the image is {image.dtype}; floating point in [0, 1] was expected: divide 8-bit values by 255"
        )


def _allocate(frames: int, size: tuple[int, int], scaled: tuple[int, int], channels: int) -> Tensor:
    """The result (frames, *size, channels), if main memory has room for it and for one frame of the size ``scaled``."""
    needed = 4 * channels * (frames * math.prod(size) + (math.prod(scaled) if size != scaled else 0))
    free = psutil.virtual_memory().available
    if needed > free:
        raise OutOfMemoryError(
            f"the result, {frames} x {size[1]}x{size[0]} pixels, needs {needed / 2**30:.1f} GiB of main memory and "
            f"{free / 2**30:.1f} GiB are free; choose a smaller target, fewer frames or a smaller picture"
        )
    return torch.empty(frames, *size, channels)


def _check_finite(image: Tensor, rows: int = 1024) -> None:
    if not all(bool(band.isfinite().all()) for frame in image for band in frame.split(rows)):
        raise ValueError("the image holds NaN or infinite values; look at the node or program that made it")


def check_model(model: object) -> None:
    """Raise ValueError for what is no image model of 1, 3 or 4 channels in and as many out."""
    if not isinstance(model, ImageModelDescriptor):
        raise ValueError(
            f"the model is a {type(model).__name__}; an image model was expected (spandrel.ImageModelDescriptor, "
            "as upscale model loaders give)"
        )
    if model.input_channels not in (1, 3, 4) or model.output_channels != model.input_channels:
        raise ValueError(
            f"{model.architecture.name} turns {model.input_channels} channels into {model.output_channels}; models "
            "with 1, 3 or 4 channels in and as many out are supported"
        )


def _check_options(mode: str, alpha: str, tile: int | None, overlap: int | None, batch: int | None) -> None:
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is not known; use one of {', '.join(MODES)}")
    if alpha not in ALPHA_MODES:
        raise ValueError(f"alpha {alpha!r} is not known; use one of {', '.join(ALPHA_MODES)}")
    for name, value, least in (("tile", tile, 8), ("overlap", overlap, 0), ("batch", batch, 1)):
        if value is not None and (not isinstance(value, int) or value < least):
            raise ValueError(f"{name} is {value}; it must be a whole number from {least} on, or left automatic")
    if tile is not None and overlap is not None and overlap >= tile:
        raise ValueError(f"overlap {overlap} leaves nothing of a tile of {tile}; make it smaller than the tile")
