"""Animated pictures, frame by frame with their durations: GIF and WebP through libvips, APNG through
Pillow."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyvips
from numpy.typing import NDArray
from pyvips.enums import ForeignKeep

from .beside import field_of, metadata_of
from .convert import coloured_for
from .embed import embedded, prepared
from .formats import (
    GIF,
    PNG,
    VIPS_ERRORS,
    WEBP,
    Metadata,
    Picture,
    PictureError,
    format_of_name,
    reason_of,
    unreadable,
)
from .read import MAX_PIXELS, check_whole, format_of_content, frame_count
from .write import GIF_HOLDS, check_writable, webp_options, write_whole

logger = logging.getLogger(__name__)

FORMATS = (PNG, WEBP, GIF)
_COUNTED = 1000  # milliseconds by which frames are counted
_STEPS = {GIF: 10, WEBP: 1}  # milliseconds in which a format counts


@dataclass(frozen=True, eq=False)
class Animation:
    """Frames of one size, each as it is shown.

    Attributes:
        frames: (N, H, W, 4) uint8.
        durations: of each in milliseconds.
        loops: how often it is shown; 0: for ever.
    """

    frames: np.ndarray
    durations: list[Fraction]
    loops: int
    metadata: Metadata

    @property
    def opaque(self) -> bool:
        """Whether no pixel of any frame is transparent."""
        return bool((self.frames[..., 3] == 255).all())


def is_animation(source: Path, target: Path) -> bool:
    """Whether a file has several frames, all of which a result of this name can have."""
    if format_of_name(target) not in FORMATS:
        return False
    data = source.read_bytes()
    try:
        file_format = format_of_content(data)
        if file_format not in FORMATS:
            return False
        image = getattr(pyvips.Image, file_format.loader)(data, access="sequential")
    except (PictureError, *VIPS_ERRORS) as error:
        reason_of(error)
        return False  # what is wrong is said when it is read
    return frame_count(image, data, file_format) > 1


UpscaleFrames = Callable[
    [Iterator[NDArray[np.float32] | None], Callable[[NDArray[np.float32]], None]], None
]
"""``upscale(frames, deliver)`` calls ``deliver`` with the result (h, w, C) in [0, 1] of every frame
(H, W, C), C = 3 or 4, in their order; None stands for the frame before."""


def read_animation(path: Path, *, max_pixels: int = MAX_PIXELS) -> Animation:
    """Read an animation, each frame as it is shown: laid on those before it where the file says so.

    ``max_pixels`` is for all frames together. Raises OSError where the file cannot be opened and
    PictureError where it is broken or too large.
    """
    data = path.read_bytes()
    file_format = format_of_content(data)
    try:
        if file_format is GIF:
            check_whole(data)
        first = getattr(pyvips.Image, file_format.loader)(data)
        count = frame_count(first, data, file_format)
        pixels = first.width * first.height * count
        if pixels > max_pixels:
            raise PictureError(
                f"it claims {count} frames of {first.width}x{first.height} pixels; the limit is {max_pixels / 1e6:g} "
                "million together (raise it with --max-megapixels where the file can be trusted)"
            )
        if file_format is PNG:
            frames, durations, loops = _frames_of_png(data, path)
        else:
            whole = getattr(pyvips.Image, file_format.loader)(data, n=-1, fail_on="error")
            count = whole.height // whole.get("page-height")
            frames = whole.colourspace("srgb").numpy()
            frames = frames.reshape(count, -1, whole.width, frames.shape[-1])
            durations = [Fraction(delay) for delay in field_of(whole, "delay") or [100] * count]
            loops = field_of(whole, "loop") or 0
        metadata, lost = metadata_of(first, data, file_format, (first.width, first.height))
    except VIPS_ERRORS as error:
        raise unreadable(file_format.name, error) from error
    if lost:
        logger.warning("%s: left out: %s", path, ", ".join(lost))
    if frames.shape[-1] == 3:
        opaque = np.full((*frames.shape[:-1], 1), 255, np.uint8)
        frames = np.concatenate([frames, opaque], axis=-1)
    return Animation(frames, durations, loops, metadata)


def _frames_of_png(data: bytes, path: Path) -> tuple[np.ndarray, list[Fraction], int]:
    from PIL import Image, UnidentifiedImageError

    if data[24] == 16:
        logger.warning("%s: animations have 8 bits per channel here; 16 bits were cut to 8", path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            # a picture for programs without animations, which is none of the frames
            start = 1 if getattr(image, "default_image", False) else 0
            if start:
                logger.warning("%s: left out: its picture for programs without animations", path)
            frames, durations = [], []
            for index in range(start, getattr(image, "n_frames", 1)):
                image.seek(index)
                frames.append(np.asarray(image.convert("RGBA")))
                durations.append(Fraction(image.info.get("duration", 100)).limit_denominator(1000))
            loops = int(image.info.get("loop", 0))
    except (OSError, SyntaxError, ValueError, EOFError, UnidentifiedImageError) as error:
        raise PictureError(f"the PNG data is broken or cut off ({error})") from error
    return np.stack(frames), durations, loops


def upscaled(animation: Animation, upscale: UpscaleFrames) -> Animation:
    """All frames through ``upscale``, which gets None for one that equals the one before it."""
    channels = 3 if animation.opaque else 4

    def frames() -> Iterator[NDArray[np.float32] | None]:
        for index, frame in enumerate(animation.frames):
            same = index and np.array_equal(frame, animation.frames[index - 1])
            colours = frame[..., :channels]
            yield None if same else np.divide(colours, np.float32(255), dtype=np.float32)

    results: list[np.ndarray] = []
    upscale(frames(), lambda pixels: results.append(_bytes_of(pixels)))
    return replace(animation, frames=np.stack(results))


def _bytes_of(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8, halves rounded up."""
    codes = (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
    if codes.shape[2] == 4:
        return codes
    return np.concatenate([codes, np.full((*codes.shape[:2], 1), 255, np.uint8)], axis=2)


def write_animation(
    animation: Animation, path: Path, *, quality: int | None = None, overwrite: bool = False
) -> None:
    """Write an animation in the format that the name stands for, whole or not at all.

    Raises PictureError, also where the file exists and ``overwrite`` is off.
    """
    count, height, width, _ = animation.frames.shape
    check_writable(path, width=width, height=height)
    file_format = format_of_name(path)
    if file_format not in FORMATS or file_format is None:
        raise PictureError(
            f"cannot write an animation as '{path.suffix}'; give .png, .webp or .gif"
        )

    def tell(text: str) -> None:
        logger.warning("%s: %s", path, text)

    if file_format is GIF:
        tell(GIF_HOLDS)
    channels = 3 if animation.opaque else 4
    # colours are converted for all frames at once, one below the other
    tall = animation.frames[..., :channels].reshape(count * height, width, channels)
    if animation.metadata.profile or animation.metadata.colour.chunks:
        pixels = np.divide(tall, np.float32(255), dtype=np.float32)
        whole = Picture(pixels=pixels, bits=8, grey=False, metadata=animation.metadata)
        converted, profile = coloured_for(whole, file_format, tell)
        metadata = converted.metadata
        if converted.pixels is not pixels:
            tall = _bytes_of(converted.pixels)[..., :channels]
    else:
        metadata, profile = animation.metadata, None
    beside = prepared(metadata, file_format, width=width, height=height, profile=profile, tell=tell)
    frames = np.ascontiguousarray(tall)
    try:
        if file_format is PNG:
            encoded = _encoded_png(frames.reshape(count, height, width, channels), animation)
        else:
            encoded = _encoded_by_vips(frames, height, animation, file_format is WEBP, quality)
        sides = {"width": width, "height": height}
        whole_file = embedded(encoded, beside, file_format, **sides, alpha=channels == 4)
    except VIPS_ERRORS as error:
        raise PictureError(f"cannot be encoded as {file_format.name}{reason_of(error)}") from error
    write_whole(path, whole_file, overwrite)


def _encoded_by_vips(
    frames: np.ndarray, height: int, animation: Animation, webp: bool, quality: int | None
) -> bytes:
    tall, width, channels = frames.shape
    image = pyvips.Image.new_from_memory(frames.data, width, tall, channels, "uchar")
    image = image.copy(interpretation="srgb")
    delays = list(_rounded(animation.durations, _STEPS[WEBP if webp else GIF]))
    given = [_COUNTED] * len(delays) if webp else delays
    image.set_type(pyvips.GValue.gint_type, "page-height", height)
    image.set_type(pyvips.GValue.array_int_type, "delay", given)
    image.set_type(pyvips.GValue.gint_type, "loop", animation.loops)
    if webp:
        encoded = image.webpsave_buffer(**webp_options(quality), keep=ForeignKeep.NONE)
        return _with_durations(encoded, delays)
    return image.gifsave_buffer(keep=ForeignKeep.NONE)


def _with_durations(webp: bytes, durations: list[int]) -> bytes:
    """An animation that was written with `_COUNTED` for every frame, with these durations:
    libvips makes 100 ms of 10 and less. Frames that are equal have become one, which is as long."""
    data = bytearray(webp)
    at, first = 12, 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"ANMF":
            frames = int.from_bytes(data[at + 20 : at + 23], "little") // _COUNTED
            duration = min(sum(durations[first : first + frames]), 2**24 - 1)
            data[at + 20 : at + 23] = duration.to_bytes(3, "little")
            first += frames
        at += 8 + length + length % 2
    return bytes(data)


def _rounded(durations: list[Fraction], step: int) -> Iterator[int]:
    """Durations in whole steps whose sums stay as close to the exact times as steps allow."""
    last = 0
    for time in accumulate(durations):
        now = round(time / step) * step
        yield now - last
        last = now


def _encoded_png(frames: np.ndarray, animation: Animation) -> bytes:
    from PIL import Image

    first, *others = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    durations = [float(duration) for duration in animation.durations]
    first.save(
        buffer,
        "PNG",
        save_all=True,
        append_images=others,
        duration=durations,
        loop=animation.loops,
    )
    return buffer.getvalue()
