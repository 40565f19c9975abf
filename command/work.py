"""What the command line does with each of its files, in whichever process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ..common.printable import printable
from ..common.wear import LARGEST
from .console import Tell
from .large import LargeOptions, large_header, upscale_large_file
from .model import Upscaler
from .video import Elsewhere, VideoOptions, upscale_video_file

if TYPE_CHECKING:
    from ..picture.files import Job


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """How files are read and written, for every one alike.

    quiet: which model was chosen for a file is not told.
    sharing: so many processes share the memory of a machine.
    """

    quality: int | None
    overwrite: bool
    max_pixels: int
    video: VideoOptions
    pyramid: bool
    quiet: bool = False
    sharing: int = 1

    @property
    def large(self) -> LargeOptions:
        """For pictures that are larger than memory."""
        return LargeOptions(
            quality=self.quality,
            pyramid=self.pyramid,
            resume=self.video.resume,
            overwrite=self.overwrite,
            max_pixels=self.max_pixels,
            sharing=self.sharing,
        )


def upscale_file(
    job: Job,
    upscaler: Upscaler,
    files: FileOptions,
    progress: Callable[[int, int], None],
    tell: Tell,
    elsewhere: Elsewhere | None = None,
) -> tuple[str, bool]:
    """Upscale one picture or video; the line that says what was done, and whether all of it was
    there. ``elsewhere``: of a video, as for `upscale_video_file`."""
    from ..picture.files import is_video

    def chosen(choice: tuple[Upscaler, str]) -> Upscaler:
        upscaler, reason = choice
        if reason and not files.quiet:
            tell("model", reason)
        return upscaler

    if is_video(job.target):
        upscaler = chosen(upscaler.suited_to_videos(job.source))
        limits = {"overwrite": files.overwrite, "max_pixels": files.max_pixels}
        return upscale_video_file(
            job, upscaler, files.video, progress, tell, elsewhere=elsewhere, **limits
        )
    from ..picture.animation import is_animation, read_animation, upscaled, write_animation
    from ..picture.large.spool import read_middle
    from ..picture.read import read_picture
    from ..picture.write import check_writable, write_picture

    if is_animation(job.source, job.target):
        animation = read_animation(job.source, max_pixels=files.max_pixels)
        count, height, width, _ = animation.frames.shape
        new_height, new_width = upscaler.size(height, width)
        check_writable(job.target, width=new_width, height=new_height)
        upscaler = chosen(upscaler.suited(job.source, lambda: animation.frames[0] / 255))
        result = upscaled(animation, upscaler.animation(progress, count))
        write_animation(result, job.target, quality=files.quality, overwrite=files.overwrite)
        sides = f"{width}x{height} -> {new_width}x{new_height}"
        return printable(f"{job.source} -> {job.target} ({sides}, {count} frames)"), True
    header = large_header(job, upscaler, files.large)
    if header is not None:
        middle = partial(read_middle, job.source, header, LARGEST)
        upscaler = chosen(upscaler.suited(job.source, middle))
        return upscale_large_file(job, header, upscaler, files.large, progress, tell), True
    picture = read_picture(job.source, max_pixels=files.max_pixels)
    height, width, _ = picture.pixels.shape
    new_height, new_width = upscaler.size(height, width)
    check_writable(job.target, width=new_width, height=new_height)
    upscaler = chosen(upscaler.suited(job.source, lambda: picture.pixels))
    write_picture(
        upscaler(picture, progress), job.target, quality=files.quality, overwrite=files.overwrite
    )
    sides = f"{width}x{height} -> {new_width}x{new_height}"
    return printable(f"{job.source} -> {job.target} ({sides})"), True
