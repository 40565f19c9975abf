"""Upscales pictures and videos: `python cli.py INPUT... OUTPUT --model MODEL`. docs/cli.md
describes it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from .streams import open_missing_streams

open_missing_streams()  # before anything is written, and before a file gets the number of one

PROJECT = Path(__file__).parent.with_name("pyproject.toml")  # a clone has it, an installed pack not
INSTALL = (
    "python -m pip install -r requirements.txt -r requirements-cli.txt"
    if PROJECT.is_file()
    else 'python -m pip install "fdat_dense_iso-VERSION-py3-none-any.whl[cli]"'
)
MADE = PROJECT.with_name(".venv")  # by `make demo`
DONE, FAILED, UNUSABLE, DAMAGED, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes

try:
    import typer
    from rich.console import Console

    from ..common.encoding import ENCODING
    from ..common.option import offered_in
    from ..common.upscaling import UPSCALING
    from .automatic import bundled, choosing
    from .console import (
        error_console,
        escape_unprintable,
        folded,
        interruptible,
        messages_on,
        reason,
        say,
        show,
    )
    from .flags import with_flags
    from .model import Upscaler, UsageError, describe_model, load_upscaler, read_mask
    from .run import Bar, Outcome, one_after_the_other, report
    from .video import VideoOptions
    from .work import FileOptions
except ModuleNotFoundError as error:
    advice = f"install it with: {INSTALL}"
    if MADE.is_dir() and Path(sys.prefix).resolve() != MADE.resolve():
        advice = f"{MADE / ('Scripts' if os.name == 'nt' else 'bin') / 'python'} has it"
    sys.stderr.write(f"error: the command line needs the package {error.name}; {advice}\n")
    sys.exit(UNUSABLE)

if TYPE_CHECKING:
    from ..picture.files import Job

HELP = """
Upscale pictures and videos with FDAT, Dense-Iso-ViT or any other model that spandrel loads.

INPUT is a picture, a video, a folder or a pattern in quotes ('photos/**/*.jpg'); there may be several. \
PNG, JPEG, WebP, TIFF and GIF are read and written: 8 and 16 bit, grey and colour, with alpha, ICC profile, \
EXIF and XMP; animated GIF, WebP and PNG frame by frame. Videos are written as MP4, MOV, MKV or WebM, with \
sound, timestamps and colours kept.

OUTPUT is a file if INPUT is one file and OUTPUT has a suffix: .png, .jpg, .webp, .tif, .gif, .dzi, .mp4, .mov, \
.mkv or .webm. Otherwise it is a folder, which is made if it is missing. In a folder, a result has the name of its \
input (see --name, --suffix, --format) and the same place as below the input folder. Existing files are \
skipped without --overwrite; an input is never replaced.

Exit codes: 0 all done or skipped; 1 a file failed, or the one OUTPUT exists; 2 wrong usage, or the \
model cannot be loaded; 3 all done, but a video was damaged, and its result lacks what could not be \
read; 130 interrupted with Ctrl-C; 141 nobody reads the output any more (as with | head).
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
FileOption = partial(typer.Option, rich_help_panel="Files")
RunOption = partial(typer.Option, rich_help_panel="Upscaling")
VideoOption = partial(typer.Option, rich_help_panel="Videos")


class OutputExistsError(ValueError):
    """The one OUTPUT exists and may not be replaced."""


def show_version(asked: bool) -> None:
    """Print this pack's version and those that results depend on, and end, where ``--version`` asks
    for it."""
    if not asked:
        return
    if PROJECT.is_file():
        found = re.search(r'^version\s*=\s*"([^"]+)"', PROJECT.read_text("utf-8"), re.MULTILINE)
        version = found.group(1) if found else "of unknown version"
    else:
        version = metadata.version("fdat-dense-iso")
    parts = [f"fdat-dense-iso {version}"]
    for package in ("torch", "spandrel", "pyvips", "av"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            parts.append(f"{package} {metadata.version(package)}")
    say(", ".join(parts))
    raise typer.Exit


def show_info(model: Path | None) -> None:
    """Print what a checkpoint is, and end, where ``--info`` names one."""
    if model is None:
        return
    escape_unprintable()
    console = error_console()
    with messages_on(console, debug=False):
        try:
            text = folded(describe_model(model), shutil.get_terminal_size().columns)
        except UsageError as error:
            show(console, "error", str(error))
            raise typer.Exit(UNUSABLE) from error
    say(text)
    raise typer.Exit


@app.command(help=HELP, no_args_is_help=True)
@with_flags(Upscaling=UPSCALING, Videos=ENCODING)
def main(
    inputs: Annotated[  # none where one path is given, which is OUTPUT then
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Pictures, videos, folders, quoted patterns.",
            default_factory=list,
            show_default=False,
        ),
    ],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="A file or a folder.")],
    model: Annotated[
        Path,
        typer.Option(
            "--model",
            "-m",
            help="A model file (.safetensors, .pth, .pt, .ckpt), or the name of a bundled model. auto and "
            "auto-x4: for each file the bundled x2 or x4 model that suits it, clean or compressed.",
        ),
    ] = Path("auto"),
    recursive: Annotated[
        bool, FileOption("--recursive", "-r", help="Also take what is in folders below a folder.")
    ] = False,
    overwrite: Annotated[
        bool, FileOption("--overwrite", help="Replace results that exist already.")
    ] = False,
    file_format: Annotated[
        Literal["same", "png", "jpg", "webp", "tif", "pyramid", "dzi"],
        FileOption(
            "--format",
            "-f",
            help="Format of the results in a folder. same: that of the input; pyramid: a tiled TIFF that "
            "also holds smaller copies; dzi: DeepZoom.",
        ),
    ] = "same",
    quality: Annotated[
        int | None,
        FileOption(
            min=1, max=100, help="Quality of JPEG (left out: 95) and of WebP (left out: lossless)."
        ),
    ] = None,
    suffix: Annotated[
        str, FileOption(help="Added to the names of results in a folder, as _x2.")
    ] = "",
    name: Annotated[
        str,
        FileOption(help="Names of results in a folder, made of {stem}, {ext} and {model}."),
    ] = "{stem}",
    max_megapixels: Annotated[
        float,
        FileOption(
            min=0, help="Refuse larger inputs, since a small file can unpack to a huge picture."
        ),
    ] = 200,
    device: Annotated[
        str, RunOption(help="cpu, cuda, cuda:1 or mps; auto: a GPU if there is one.")
    ] = "auto",
    devices: Annotated[
        str | None,
        RunOption(
            metavar="DEVICES",
            help="Several devices at once, through Ray: all, cuda:0,cuda:1 or cpu:4 for four CPU workers.",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        RunOption(
            metavar="ADDRESS", help="The GPUs of a running Ray cluster: 10.0.0.1:6379 or auto."
        ),
    ] = None,
    model_option: Annotated[
        list[str] | None,
        RunOption(
            metavar="NAME=VALUE",
            help="What a model file does not tell, as heads=6,8,6,8; may be given several times.",
        ),
    ] = None,
    threads: Annotated[
        int | None, RunOption(min=1, help="CPU threads; left out: torch decides.")
    ] = None,
    video_format: Annotated[
        Literal["same", "mp4", "mkv", "mov", "webm"],
        VideoOption(
            help="Format of the videos in a folder. same: that of the input, if it can be written."
        ),
    ] = "same",
    resume: Annotated[
        bool,
        FileOption(
            "--resume",
            help="Go on with what an interrupted run left: of a video (.partial.mp4) or a large picture (.partial).",
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show warnings and errors only.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and all log messages.")
    ] = False,
    info: Annotated[
        Path | None,
        typer.Option(
            "--info",
            metavar="MODEL",
            callback=show_info,
            is_eager=True,
            help="Say what a model file is.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show versions.")
    ] = False,
    **options: Any,
) -> None:
    escape_unprintable()
    console = error_console()
    naming = {"file_format": file_format, "name": name, "suffix": suffix, "model": model.stem}
    naming["video_format"] = video_format
    offered = offered_in("command", ENCODING)
    encoding = {option.name: options.pop(option.name) for option in offered}
    video = VideoOptions(encoding=encoding, resume=resume)
    tile, overlap = options["tile"], options["overlap"]
    files = FileOptions(
        quality=quality,
        overwrite=overwrite,
        max_pixels=round(max_megapixels * 1e6),
        video=video,
        pyramid=file_format == "pyramid",
        quiet=quiet,
    )
    with messages_on(console, debug), interruptible() as check_interrupt:
        try:
            if tile is not None and overlap is not None and overlap >= tile:
                raise UsageError(
                    f"--overlap {overlap} leaves nothing of a tile of {tile}; make it smaller than --tile"
                )
            if not inputs:
                raise UsageError(
                    f"only {output} is given; give INPUT and OUTPUT, what to read and write"
                )
            jobs = plan(inputs, output, recursive=recursive, **naming)
            skipped = {job for job in jobs if not overwrite and job.done}
            waiting = [job for job in jobs if job not in skipped]
            if skipped and len(inputs) == 1 and os.path.isfile(inputs[0]):
                raise OutputExistsError(f"{jobs[0].done} exists; --overwrite replaces it")
            for job in sorted(skipped) if not quiet else ():
                show(console, "skipped", f"{job.done} exists; --overwrite replaces it")
            failed = damaged = 0
            if waiting:
                options["mask"] = read_mask(options["mask"], files.max_pixels)
                pair = bundled(model)
                many = None
                if devices is not None or cluster is not None:
                    if device != "auto":
                        raise UsageError(
                            "--device names a single device; leave it out with --devices or --cluster"
                        )
                    device = "cpu"  # in this process
                    many = {
                        "devices": devices or "all",
                        "address": cluster,
                        "threads": threads,
                        "model_options": model_option or [],
                        "options": options,
                        "on_wait": check_interrupt,
                    }
                load = partial(
                    load_upscaler,
                    model_options=model_option or [],
                    device=device,
                    threads=threads,
                    options=options,
                )
                upscaler = choosing(load, *pair) if pair else load(model)
                with Bar(console, len(waiting), check_interrupt, shown=not quiet) as bar:
                    outcomes = upscale_files(waiting, upscaler, files, bar, console, many)
                    failed, damaged = report(outcomes, console, quiet=quiet, debug=debug)
            if len(jobs) > 1 and not quiet:
                done = len(waiting) - failed
                lacking = f" ({damaged} of damaged videos)" if damaged else ""
                counts = f"{done} done{lacking}, {len(skipped)} skipped, {failed} failed"
                show(console, "finished", counts)
            code = FAILED if failed else DAMAGED if damaged else DONE
        except KeyboardInterrupt:
            show(console, "interrupted", "the results written so far are complete")
            code = INTERRUPTED
        except Exception as error:
            show(console, "error", reason(error))
            if debug:
                console.print_exception()
            code = UNUSABLE if isinstance(error, UsageError) else FAILED
    raise typer.Exit(code)


def plan(inputs: list[str], output: str, **options: Any) -> list[Job]:
    """`picture.files.plan_jobs`, with its errors as UsageError."""
    try:
        from ..picture.files import PlanError, is_video, plan_jobs
    except (ImportError, OSError) as error:  # pyvips, or libvips below it
        raise UsageError(f"{reason(error)}; install it with: {INSTALL}") from error
    try:
        jobs = plan_jobs(inputs, output, **options)
    except PlanError as error:
        raise UsageError(str(error)) from error
    if any(is_video(job.target) for job in jobs) and not importlib.util.find_spec("av"):
        raise UsageError(f"videos need the package av; install it with: {INSTALL}")
    return jobs


def upscale_files(
    jobs: list[Job],
    upscaler: Upscaler,
    files: FileOptions,
    bar: Bar,
    console: Console,
    many: dict[str, Any] | None,
) -> Iterator[Outcome]:
    """Upscale files in this process, or by the workers that ``many`` describes."""
    if many is None:
        yield from one_after_the_other(jobs, upscaler, files, bar, console)
        return
    from .many import crew_for, together

    with crew_for(upscaler, files, **many) as crew:
        yield from together(jobs, crew, upscaler, files, bar, console)


if __name__ == "__main__":
    app()
