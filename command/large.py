"""The command line's side of pictures that are larger than memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.lock import InUseError
from .console import Tell, printable
from .video import settings_of

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ..picture.files import Job
    from ..picture.large.job import LargeJob
    from ..picture.large.spool import Header, Spool
    from .model import Upscaler

logger = logging.getLogger(__name__)

FREE_SHARE = 0.8
"""Share of the free memory that a picture may take before it is streamed."""
NEED_THE_WHOLE = {"target": None, "mask": None, "ensemble": 1, "colour_fix": "none"}
"""Options that need the whole result in memory, and what they are where they are not used."""
GB = 10**9


@dataclass(frozen=True, kw_only=True)
class LargeOptions:
    """How files are written: of `LargeJob`; ``sharing`` as of `work.FileOptions`."""

    quality: int | None
    pyramid: bool
    resume: bool
    overwrite: bool
    max_pixels: int
    sharing: int = 1


def large_header(job: Job, upscaler: Upscaler, options: LargeOptions) -> Header | None:
    """The head of a picture that is to be streamed through the disk; None for all others.

    These are pictures that would not fit in memory, and those whose result is a pyramid. The log
    says it. Raises ValueError where a picture cannot be streamed and does not fit.
    """
    from ..picture.formats import DEEPZOOM, format_to_write
    from ..picture.large.job import partial_folder
    from ..picture.large.spool import read_header

    header = read_header(job.source, max_pixels=options.max_pixels)
    pyramid = options.pyramid or format_to_write(job.target) is DEEPZOOM
    if header is None:
        if pyramid:
            raise ValueError("pyramids are made of PNG, JPEG, WebP and TIFF files; convert it")
        return None
    needed, free = memory_required(header, upscaler), free_memory() // options.sharing
    goes_on = options.resume and partial_folder(job.target).exists()
    fits = needed <= FREE_SHARE * free
    if fits and not pyramid and not goes_on:
        return None
    flags = [
        f"--{name.replace('_', '-')}"
        for name, unused in NEED_THE_WHOLE.items()
        if upscaler.options.get(name, unused) != unused
        and not (name == "target" and upscaler.size(*sides(header)) == scaled(header, upscaler))
    ]
    about = f"needs about {needed / GB:.1f} GB of memory, of which {free / GB:.1f} GB are free"
    if flags:
        told = " and ".join(flags)
        if pyramid:
            raise ValueError(f"{told} cannot be used with pyramids, which are written in rows")
        if needed <= free:
            return None
        raise ValueError(
            f"{about}; {told} cannot be used with pictures that are streamed through the disk: leave "
            "it out, or use a machine with more memory"
        )
    if not fits:
        logger.warning("%s: %s: it is streamed through the disk", job.source, about)
    return header


def sides(header: Header) -> tuple[int, int]:
    """Height and width of the picture."""
    return header.height, header.width


def scaled(header: Header, upscaler: Upscaler) -> tuple[int, int]:
    """Height and width at the model's scale."""
    scale = upscaler.descriptor.scale
    return header.height * scale, header.width * scale


def memory_required(header: Header, upscaler: Upscaler) -> int:
    """About how many bytes of memory it takes to upscale a picture in memory.

    The picture: as read, as float32, continued beyond its borders, and plane by plane. The result:
    as float32, as integers, encoded. And what an exact engine takes in main memory.
    """
    channels, depth = header.channels, header.bits // 8
    pixels = math.prod(sides(header)) * channels
    result = math.prod(upscaler.size(*sides(header))) * channels
    frames = 2 if scaled(header, upscaler) != upscaler.size(*sides(header)) else 1
    if frames == 2:
        result += math.prod(scaled(header, upscaler)) * channels
    return pixels * (2 * depth + 3 * 4) + result * (4 + 2 * depth) + _maps(header, upscaler)


def _maps(header: Header, upscaler: Upscaler) -> int:
    """Bytes of main memory that exact mode takes."""
    network = getattr(upscaler.descriptor, "model", None)
    engine = getattr(network, "exact_engine", None)
    if engine is None or upscaler.options.get("mode") not in ("auto", "exact"):
        return 0
    from ..upscale import free_memory_of

    device, dtype = upscaler.descriptor.device, upscaler.descriptor.dtype
    on_host = device.type == "cpu"
    available = None if on_host else free_memory_of(device)
    plan = engine.plan(1, *sides(header), dtype=dtype, device=device, available=available)
    return plan.host_memory_required + (plan.memory_required if on_host else 0)


def free_memory() -> int:
    """Bytes of main memory that are free."""
    import psutil

    return psutil.virtual_memory().available


def upscale_large_file(
    job: Job,
    header: Header,
    upscaler: Upscaler,
    options: LargeOptions,
    progress: Callable[[int, int], None],
    tell: Tell,
) -> str:
    """Upscale one picture in rows; the line that says what was done.

    After an exception what there is of the result is kept, and shown.
    """
    from ..picture.large.job import LargeJob

    size = scaled(header, upscaler)
    settings = settings_of(upscaler)
    work = LargeJob(
        job.source,
        job.target,
        header,
        size=size,
        settings=settings,
        quality=options.quality,
        pyramid=options.pyramid,
        resume=options.resume,
        overwrite=options.overwrite,
    )
    if work.resumes:
        logger.warning(
            "%s: goes on behind row %d of %d of its result", job.source, work.done, size[0]
        )
    try:
        work.run(partial(_upscale, work, upscaler, progress))
    except InUseError:
        raise
    except BaseException:
        if work.folder.exists():
            kept = f"{work.folder} holds what is done ({work.done} of {size[0]} rows); --resume goes on from there"
            tell("kept", kept)
        raise
    about = f"{header.width}x{header.height} -> {size[1]}x{size[0]}"
    return printable(f"{job.source} -> {job.target} ({about})")


class AsTensors:
    """A picture on disk as `upscale.rows` reads it."""

    def __init__(self, picture: Spool) -> None:
        self.picture = picture
        self.height, self.width = picture.height, picture.width
        self.channels, self.opaque = picture.channels, picture.opaque

    def read(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        """As `upscale.rows.source.PictureRows.read`."""
        import torch

        return torch.from_numpy(self.picture.read(top, bottom, left, right))


def _upscale(
    work: LargeJob,
    upscaler: Upscaler,
    progress: Callable[[int, int], None],
    picture: Spool,
    sink: Callable[[int, np.ndarray], None],
    folder: Path,
    first: int,
) -> None:
    from ..upscale import plan_rows, upscale_rows

    tensors = AsTensors(picture)
    unused = {*NEED_THE_WHOLE, "cuts"}  # of which a single picture has none
    options = {name: value for name, value in upscaler.options.items() if name not in unused}
    disk = max(work.disk_free - work.disk_required, 0)
    plan = plan_rows(upscaler.descriptor, tensors, folder=folder, disk=disk, **options)
    work.check_disk(plan.disk)
    if plan.half:
        logger.warning(
            "%s: the disk has room for the feature maps in half precision alone: values differ from those of "
            "the picture in memory by rounding, mostly less than half a level of 8 bit",
            work.source,
        )
    upscale_rows(
        upscaler.descriptor,
        tensors,
        lambda top, rows: sink(top, rows.numpy()),
        folder=folder,
        disk=disk,
        first=first,
        resumable=True,
        progress=progress,
        **options,
    )
