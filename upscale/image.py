"""`upscale_image`: upscales any picture by any image model, on any device, in the free memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain

import psutil
import torch
from spandrel import ImageModelDescriptor
from torch import Tensor

from .beyond import Highlights, InputFrame, add_beyond_, tell_of_beyond
from .clip import Clip, clips
from .frame import FrameUpscaler
from .memory import OutOfMemoryError
from .options import Options
from .placement import checked_device
from .preview import Monitor
from .protocol import Placement, Preview, Progress
from .session import Job, Session
from .target import Target, as_target
from .transfer import is_fresh

logger = logging.getLogger(__name__)


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
    seamless: str = "none",
    border: str = "auto",
    mask: Tensor | None = None,
    ensemble: int = 1,
    colour_fix: str = "none",
    cuts: str = "auto",
    dtype: torch.dtype = torch.float32,
    output_device: torch.device | str = "cpu",
    preview: Preview | None = None,
) -> Tensor:
    """Upscale (or restore, with a x1 model) a batch of pictures, frame by frame.

    A frame that equals the one before it (and has the same mask) is not computed again. For a model
    that takes several successive frames the batch is a video.

    Args:
        model: a spandrel descriptor of 1, 3 or 4 channels, of any architecture. It comes back as it
            was: weights, dtype, device and mode, also after an error.
        image: (B, H, W, C) floating point in [0, 1]; C = 1 (grey), 3 (RGB) or 4 (RGBA); any device.
            Of colours beyond that the model gets the clipped ones; the rest, as the highlights of
            an HDR picture, is resampled and added to the result, with a warning in the log.
        mode: "exact" is the whole-image result band by band, for networks that offer it (FDAT,
            Dense-Iso-ViT); "tile" overlapping tiles blended; "whole" one call for the whole frame;
            "auto" exact where it is offered and no mask given, else tiles. A network that works in
            windows of its own (Dense-Iso-ViT) does so in every mode.
        tile: largest side of a tile in input pixels; None: from the model and the free memory. Like
            ``overlap`` and ``batch`` it is for mode "tile" (and "auto" where that means tiles).
        overlap: smallest overlap of tiles in input pixels; None: 32, less for small tiles, or what
            the model asks for.
        batch: tiles per call of the network; None: 1 for large tiles, more for small ones.
        precision: "fp32", "fp16", "bf16", or "auto": half precision on GPUs that compute in it, for
            models that support it. If a result is NaN or infinite, it is computed again in float32,
            with a warning in the log.
        device: where to compute; None: the machine's accelerator (CUDA, XPU, MPS and so on) if
            there is one, else where the model is.
        progress: called as ``progress(done, total)`` after every batch of tiles; an exception that
            it raises ends the work.
        alpha: "model" upscales alpha by the same model, with premultiplied colours; "resize"
            resamples it.
        target: size of the result: a factor of the input size, a `Target`, or its text
            (`parse_target`); None: the model's scale. Each frame is upscaled by the model, then
            resampled.
        placement: who owns the device memory (`protocol.Placement`); None: this call alone, on
            ``device``.
        seamless: "horizontal", "vertical" or "both": the picture is a texture whose opposite
            borders meet, and so will be the result's; "none".
        border: "mirror": the model sees some mirrored pixels beyond the borders, which are cut off
            again; "model": it ends there and pads as it was built; "auto": mirrored for models that
            ask for it, in modes "auto" and "tile" ("exact" and "whole" are the network's own).
        mask: (B, H, W), or (1, H, W) for all frames, in [0, 1]: where it is 0 the frame is only
            resampled, with a soft transition outside of the mask. It is resampled to the frame's
            size. Only tiles (or windows) that it touches are computed; modes "exact" of FDAT and
            "whole" compute the whole frame nevertheless, unless the mask is empty.
        ensemble: 2, 4 or 8: the mean of the results for so many flips (8: and quarter turns) of the
            frame, each as expensive as the plain result; 1: only the plain result.
        colour_fix: "average" or "wavelet": give the result the low-frequency colour of the input;
            "none".
        cuts: for models that take several frames: "auto" finds where scenes change (`clip.is_cut`),
            and shows the model no frame of another scene; "none": it sees all.
        dtype: type of the result: float32, float16 or bfloat16.
        output_device: device of the result.
        preview: gets thumbnails of the frame in progress.

    Returns:
        (B, H * scale, W * scale, C), or the target's size: ``dtype`` in [0, 1] on
        ``output_device``; beyond where the image is.

    Raises:
        ValueError: an argument is out of its range, or the model's output is NaN or infinite in
            float32.
        OutOfMemoryError: even the smallest tile does not fit.
    """
    check_image(image)
    check_model(model)
    options = Options(
        mode=mode,
        tile=tile,
        overlap=overlap,
        batch=batch,
        precision=precision,
        alpha=alpha,
        target=as_target(target),
        seamless=seamless,
        border=border,
        ensemble=ensemble,
        colour_fix=colour_fix,
        cuts=cuts,
        dtype=dtype,
    )
    frames, height, width, channels = image.shape
    if options.target and (said := options.target.stretching(height, width)):
        logger.warning("the picture is %s", said)
    monitor = Monitor(progress, preview)
    session = Session(model, options, height, width, frames=frames, mask=mask, monitor=monitor)
    # allocated outside inference mode, so that callers get an ordinary tensor
    result = _allocate(session.upscaler, frames, channels, dtype, checked_device(output_device))
    given = [InputFrame.of(frame) for frame in image]
    beyond = [index for index, frame in enumerate(given) if frame.is_beyond]
    if beyond:
        tell_of_beyond(given)
    with session.opened(device, placement):
        shown = _clips(given, session)
        monitor.total = sum(
            session.steps(clip.middle.frame.pixels, session.region(index))
            for index, clip in enumerate(shown)
            if clip
        )
        jobs = (
            Job(clip, session.region(index), partial(result.select, 0, index))
            for index, clip in enumerate(shown)
        )
        session.run(jobs)
    for index in beyond:
        add_beyond_(result[index], image[index], session.upscaler.margins.wrap)
    return result


def upscale_frames(
    model: ImageModelDescriptor,
    frames: Iterable[Tensor | None],
    deliver: Callable[[Tensor], None],
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
    seamless: str = "none",
    border: str = "auto",
    mask: Tensor | None = None,
    ensemble: int = 1,
    colour_fix: str = "none",
    cuts: str = "auto",
    dtype: torch.dtype = torch.float32,
    lead: int = 0,
    trail: int = 0,
) -> None:
    """Upscale frames as they come, as `upscale_image` does, but keep none of them.

    The model is prepared once. The next frame is drawn and prepared while the model runs, and the
    model goes on while a frame is finished; small frames go through the model several at a time.

    Args:
        frames: (H, W, C) each, all of one shape; None: the same as the one before. They are drawn
            in another thread, at most a few before they are needed.
        deliver: called with each result (H * scale, W * scale, C), or of the target's size, in
            their order, in the thread of the caller; for None with the same tensor again. After an
            exception, also of ``frames`` or ``progress``, it gets those that are ready, before the
            exception is raised.
        mask: (1, H, W) or (H, W), for all frames.
        progress: called as ``progress(done, total)`` after every batch of tiles; ``total`` are the
            steps of one frame, ``done`` those of all frames until now. An opaque frame with alpha
            counts as much as a transparent one.
        lead, trail: so many of the first and of the last frames are only there for models that
            look at neighbouring frames, and are not delivered: `clip.neighbours` says how many
            such a model needs around a segment of a video.

    The other arguments, and what is raised, are those of `upscale_image`.
    """
    check_model(model)
    options = Options(
        mode=mode,
        tile=tile,
        overlap=overlap,
        batch=batch,
        precision=precision,
        alpha=alpha,
        target=as_target(target),
        seamless=seamless,
        border=border,
        ensemble=ensemble,
        colour_fix=colour_fix,
        cuts=cuts,
        dtype=dtype,
    )
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        return
    check_image(first[None])
    height, width, channels = first.shape
    monitor = Monitor(progress, None)
    session = Session(model, options, height, width, mask=mask, monitor=monitor)

    def checked(frame: Tensor) -> InputFrame:
        check_image(frame[None])
        if frame.shape != first.shape:
            raise ValueError(
                f"a frame has the shape {tuple(frame.shape)} where the first one has {tuple(first.shape)}; all "
                "frames must be alike"
            )
        return InputFrame.of(frame)

    highlights = Highlights(session.upscaler.margins.wrap)
    memory: list[Tensor] = []

    def new_picture() -> Tensor:
        for _ in range(len(memory)):
            picture = memory.pop(0)
            if is_fresh(picture):  # the caller has let go of it, and fresh memory is slow to write
                break
            memory.append(picture)
        else:
            with torch.inference_mode(False):
                picture = _allocate(session.upscaler, 1, channels, dtype, torch.device("cpu"))
        memory.append(picture)
        # plane by plane, as networks and encoders of videos have it
        return picture.view(channels, *session.upscaler.size).permute(1, 2, 0)

    with session.opened(device, placement):
        region = session.region(0)
        monitor.total = session.most_steps(channels, region)
        drawn = (frame if frame is None else checked(frame) for frame in chain([first], frames))
        shown = clips(drawn, session.clip, cuts=cuts, lead=lead, trail=trail)
        jobs = (
            Job(None, region, None, deliver)
            if clip.repeats
            else Job(clip, region, new_picture, highlights.added(clip.middle.frame, deliver))
            for clip in shown
        )
        try:
            session.run(jobs)
        except BaseException:
            session.work.rescue()
            raise


def check_image(image: Tensor) -> None:
    """Raise ValueError unless ``image`` is a floating point tensor (B, H, W, C), C = 1, 3 or 4."""
    if not isinstance(image, Tensor):
        raise ValueError(
            f"the image is a {type(image).__name__}; a torch.Tensor (B, H, W, C) was expected"
        )
    if image.layout is not torch.strided or image.is_meta or image.is_nested:
        kind = "nested" if image.is_nested else f"{image.layout}"
        raise ValueError(
            f"the image is a {kind} tensor on {image.device}; an ordinary tensor was expected"
        )
    shape = tuple(image.shape)
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"the image has the shape {shape}; (B, H, W, C) with C = 1, 3 or 4 was expected"
        )
    if 0 in shape:
        raise ValueError(
            f"the image has the shape {shape} and so no pixels; every side must be at least 1"
        )
    if image.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise ValueError(
            f"the image is {image.dtype}; floating point in [0, 1] was expected: divide 8-bit values by 255"
        )


def _allocate(
    upscaler: FrameUpscaler, frames: int, channels: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Allocate the result (frames, *size, channels).

    Raises OutOfMemoryError where main memory has no room for it and for the frame in progress.
    """
    needed = upscaler.working_bytes(channels, dtype, device)
    if device.type == "cpu":
        needed += frames * math.prod(upscaler.size) * channels * dtype.itemsize
    free = psutil.virtual_memory().available
    if needed > free:
        raise OutOfMemoryError(
            f"the result, {frames} x {upscaler.size[1]}x{upscaler.size[0]} pixels, needs {needed / 2**30:.1f} GiB of "
            f"main memory and {free / 2**30:.1f} GiB are free; choose a smaller target, fewer frames or a smaller "
            "picture"
        )
    return torch.empty(frames, *upscaler.size, channels, dtype=dtype, device=device)


def _clips(given: list[InputFrame], session: Session) -> list[Clip | None]:
    """What the model sees for each frame; None: as for the one before it, with an equal mask."""
    frames = (
        None if index and torch.equal(frame.pixels, given[index - 1].pixels) else frame
        for index, frame in enumerate(given)
    )
    masks = session.masks
    return [
        None if shown.repeats and (not masks or masks.same(index, index - 1)) else shown
        for index, shown in enumerate(clips(frames, session.clip, cuts=session.options.cuts))
    ]


def check_model(model: object) -> None:
    """Raise ValueError unless ``model`` is an image model with 1, 3 or 4 channels in and out."""
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
