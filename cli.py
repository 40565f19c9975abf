"""Upscales picture files: `python cli.py INPUT... OUTPUT --model MODEL`. docs/cli.md describes it.

The one place beside nodes.py that joins `arch` (loads the model) and `upscale` (runs it). Both import torch,
which is slow, so nothing of that is imported before it is needed.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

INSTALL = "python -m pip install -r requirements.txt -r requirements-cli.txt"
DONE, FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130  # exit codes

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from cli_console import error_console, interruptible, messages_on, printable, reason, show
except ModuleNotFoundError as error:
    sys.stderr.write(f"error: the command line needs the package {error.name}; install it with: {INSTALL}\n")
    sys.exit(UNUSABLE)

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

    from picture import Picture
    from picture_files import Job
    from upscale import Target

HELP = """
Upscale pictures with FDAT, Dense-Iso-ViT or any other model that spandrel loads.

INPUT is a picture, a folder or a pattern in quotes ('photos/**/*.jpg'); there may be several. \
PNG, JPEG, WebP and TIFF are read and written: 8 and 16 bit, grey and colour, with alpha, ICC profile, \
EXIF and XMP.

OUTPUT is a file where INPUT is one file and OUTPUT ends in .png, .jpg, .webp or .tif. Otherwise it is \
a folder, made where it is missing: a result has the name of its input (see --name, --suffix, --format) \
and keeps its place below the input folder. Existing files are skipped without --overwrite; an input is \
never replaced.

Exit codes: 0 all done or skipped; 1 a picture failed, or the one OUTPUT exists; 2 wrong usage, or the \
model cannot be loaded; 130 interrupted with Ctrl-C.
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
FileOption = partial(typer.Option, rich_help_panel="Files")
RunOption = partial(typer.Option, rich_help_panel="Upscaling")


class UsageError(ValueError):
    """What was asked for cannot be done; no picture has been touched."""


class OutputExistsError(ValueError):
    """The one OUTPUT exists and may not be replaced."""


def show_version(asked: bool) -> None:
    if not asked:
        return
    project = Path(__file__).with_name("pyproject.toml").read_text("utf-8")
    version = re.search(r'^version\s*=\s*"([^"]+)"', project, re.MULTILINE)
    parts = [f"fdat-dense-iso {version.group(1) if version else 'of unknown version'}"]
    for package in ("torch", "spandrel", "pyvips"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            parts.append(f"{package} {metadata.version(package)}")
    typer.echo(", ".join(parts))
    raise typer.Exit


@app.command(help=HELP, no_args_is_help=True)
def main(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help="Pictures, folders, quoted patterns.")],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="A file or a folder.")],
    model: Annotated[Path, typer.Option("--model", "-m", help="Checkpoint: .safetensors, .pth, .pt, .ckpt.")],
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", help="A factor (1.5x) or a size (1920x1080, 1920x, x1080), not the model's."),
    ] = None,
    recursive: Annotated[bool, FileOption("--recursive", "-r", help="Folders with all that is below them.")] = False,
    overwrite: Annotated[bool, FileOption("--overwrite", help="Replace results that exist.")] = False,
    file_format: Annotated[
        Literal["same", "png", "jpg", "webp", "tif"],
        FileOption("--format", "-f", help="Format of the results in a folder; same: that of the input."),
    ] = "same",
    quality: Annotated[
        int | None, FileOption(min=1, max=100, help="Of JPEG (else 95) and of WebP (else lossless).")
    ] = None,
    suffix: Annotated[str, FileOption(help="Added to the names in a folder: _x2.")] = "",
    name: Annotated[
        str, FileOption(help="Names in a folder, made of {stem} and {ext} of the input and {model}.")
    ] = "{stem}",
    max_megapixels: Annotated[
        float, FileOption(min=0, help="Refuse larger inputs: a small file can unpack to a huge picture.")
    ] = 200,
    mode: Annotated[
        Literal["auto", "exact", "tile", "whole"],
        RunOption(help="exact: as from one piece, in bands (FDAT); auto: exact where the model can, else tiles."),
    ] = "auto",
    tile: Annotated[int | None, RunOption(min=8, help="Tile size in input pixels; else by free memory.")] = None,
    overlap: Annotated[int | None, RunOption(min=0, help="Of tiles, in input pixels; else the model's.")] = None,
    batch: Annotated[int | None, RunOption(min=1, help="Tiles at once; else by free memory.")] = None,
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "bf16"], RunOption(help="auto: what device and model do well.")
    ] = "auto",
    alpha: Annotated[
        Literal["model", "resize"], RunOption(help="Upscale transparency by the model or resize it.")
    ] = "model",
    device: Annotated[str, RunOption(help="cpu, cuda, cuda:1, mps; auto: a GPU where there is one.")] = "auto",
    threads: Annotated[int | None, RunOption(min=1, help="CPU threads; else torch decides.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Warnings and errors only.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Tracebacks and all log messages.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show versions.")
    ] = False,
) -> None:
    console = error_console()
    naming = {"file_format": file_format, "name": name, "suffix": suffix, "model": model.stem}
    tiling = {"mode": mode, "tile": tile, "overlap": overlap, "batch": batch}
    files = FileOptions(quality=quality, overwrite=overwrite, max_pixels=round(max_megapixels * 1e6))
    with messages_on(console, debug), interruptible() as check_interrupt:
        try:
            if tile is not None and overlap is not None and overlap >= tile:
                raise UsageError(f"--overlap {overlap} leaves nothing of a tile of {tile}; make it smaller than --tile")
            jobs = plan(inputs, output, recursive=recursive, **naming)
            skipped = {job for job in jobs if not overwrite and job.target.exists()}
            waiting = [job for job in jobs if job not in skipped]
            if skipped and len(inputs) == 1 and os.path.isfile(inputs[0]):
                raise OutputExistsError(f"{jobs[0].target} exists; --overwrite replaces it")
            for job in sorted(skipped) if not quiet else ():
                show(console, "skipped", f"{job.target} exists; --overwrite replaces it")
            failed = 0
            if waiting:
                upscaler = load_upscaler(
                    model, target, device, threads, tiling | {"precision": precision, "alpha": alpha}
                )
                failed = upscale_files(waiting, upscaler, files, console, check_interrupt, quiet=quiet, debug=debug)
            if len(jobs) > 1 and not quiet:
                done = len(waiting) - failed
                show(console, "finished", f"{done} done, {len(skipped)} skipped, {failed} failed")
            code = FAILED if failed else DONE
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
    try:
        from picture_files import PlanError, plan_jobs
    except (ImportError, OSError) as error:  # pyvips, or libvips below it
        raise UsageError(f"{reason(error)}; install it with: {INSTALL}") from error
    try:
        return plan_jobs(inputs, output, **options)
    except PlanError as error:
        raise UsageError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class Upscaler:
    """A loaded model with the options that it runs with."""

    descriptor: ImageModelDescriptor
    options: dict[str, Any]
    target: Target | None

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result."""
        if self.target is None:
            return height * self.descriptor.scale, width * self.descriptor.scale
        return self.target.size(height, width)

    def __call__(self, picture: Picture, progress: Callable[[int, int], None]) -> Picture:
        import torch

        from upscale import upscale_image

        image = torch.from_numpy(picture.pixels)[None]  # (1, H, W, C)
        result = upscale_image(self.descriptor, image, target=self.target, progress=progress, **self.options)
        return replace(picture, pixels=result[0].numpy())


def load_upscaler(
    model: Path, target: str | None, device: str, threads: int | None, options: dict[str, Any]
) -> Upscaler:
    try:
        import torch

        from cpu_torchvision import make_torchvision_importable

        make_torchvision_importable()
        from arch import load_model
        from upscale import parse_target
    except ModuleNotFoundError as error:
        raise UsageError(f"the package {error.name} is missing; the README says how to install it") from error

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        parsed_target = None if target is None else parse_target(target)
    except ValueError as error:
        raise UsageError(f"--target: {error}") from error
    try:
        descriptor = load_model(model)
    except ValueError as error:
        raise UsageError(reason(error)) from error
    except OSError as error:
        raise UsageError(f"{model}: {reason(error)}") from error
    try:
        descriptor.to(torch.device(best_device() if device == "auto" else device))
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise UsageError(f"--device {device}: {reason(error)}") from error
    return Upscaler(descriptor=descriptor, options=options | {"device": descriptor.device}, target=parsed_target)


def best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    quality: int | None
    overwrite: bool
    max_pixels: int


def upscale_files(
    jobs: list[Job],
    upscaler: Upscaler,
    files: FileOptions,
    console: Console,
    check_interrupt: Callable[[], None],
    *,
    quiet: bool,
    debug: bool,
) -> int:
    """Upscale one picture after the other, reporting each; how many failed."""
    failed = 0
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )
    with contextlib.nullcontext() if quiet or not console.is_terminal else bar:
        task = bar.add_task("", total=len(jobs))
        for index, job in enumerate(jobs):
            check_interrupt()
            bar.update(task, description=printable(job.source.name), completed=index)

            def progress(done: int, total: int, index: int = index) -> None:
                check_interrupt()
                bar.update(task, completed=index + done / total)

            try:
                line = upscale_file(job, upscaler, files, progress)
            except Exception as error:
                failed += 1
                show(console, "error", f"{job.source}: {reason(error)}")
                if debug:
                    console.print_exception()
                continue
            if not quiet:
                typer.echo(line)
    return failed


def upscale_file(job: Job, upscaler: Upscaler, files: FileOptions, progress: Callable[[int, int], None]) -> str:
    """Upscale one picture; the line that says what was done."""
    from picture import check_writable, read_picture, write_picture

    picture = read_picture(job.source, max_pixels=files.max_pixels)
    height, width, _ = picture.pixels.shape
    new_height, new_width = upscaler.size(height, width)
    check_writable(job.target, width=new_width, height=new_height)
    write_picture(upscaler(picture, progress), job.target, quality=files.quality, overwrite=files.overwrite)
    return printable(f"{job.source} -> {job.target} ({width}x{height} -> {new_width}x{new_height})")


if __name__ == "__main__":
    app()
