"""Decides which pictures and videos the command line reads, and where each result goes.

Nothing is opened or written here.
"""

from __future__ import annotations

import dataclasses
import glob
import logging
import os
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from .formats import GIF, format_of_name, format_to_write
from .others import JPEG_SUFFIXES, OTHER_SUFFIXES

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
"""Kinds of videos that are both read and written."""
_READ_VIDEO_SUFFIXES = (
    *(".avi", ".divx", ".dv", ".mxf", ".nut", ".ogv", ".ogm", ".rm", ".rmvb", ".qt"),
    *(".mpg", ".mpeg", ".m1v", ".m2v", ".mpv", ".vob", ".vro"),
    *(".ts", ".m2ts", ".mts", ".m2t", ".trp", ".dvr-ms", ".wtv"),
    *(".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2"),
    # of one stream, without a container
    *(".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".ivf", ".obu", ".y4m", ".mjpeg", ".mjpg"),
)
_UNFINISHED = (".partial.mp4", ".partial-old.mp4")  # files that interrupted runs leave
_TOLD = 8  # names and kinds in the line about files that are passed over
_NAME_FIELDS = ("stem", "ext", "model")


class PlanError(ValueError):
    """The inputs and the output do not fit together; nothing has been done."""


@dataclasses.dataclass(frozen=True, order=True)
class Job:
    """One picture or video to read, and where its result goes: ``target``, or ``instead`` where the
    format of ``target`` cannot hold the sound of a video and no format was asked for."""

    source: Path
    target: Path
    instead: Path | None = dataclasses.field(default=None, compare=False)

    @property
    def done(self) -> Path | None:
        """The result, if it exists."""
        places = (self.target, self.instead) if self.instead else (self.target,)
        return next((place for place in places if os.path.exists(place)), None)


def is_video(path: Path) -> bool:
    """Whether the file's name is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES + _READ_VIDEO_SUFFIXES


def _only_read(path: Path) -> bool:
    """Whether the file's name is that of a kind of picture that is read and not written."""
    return path.suffix.lower() in OTHER_SUFFIXES + JPEG_SUFFIXES


def plan_jobs(
    inputs: Sequence[str],
    output: str,
    *,
    recursive: bool = False,
    file_format: str = "same",
    video_format: str = "same",
    name: str = "{stem}",
    suffix: str = "",
    model: str = "",
) -> list[Job]:
    """One job for each picture or video, in the order of the inputs and by name within each.

    `inputs` are files, folders (with `recursive` everything below them) and glob patterns (`**` is
    any depth). `output` is a folder where it exists as one, ends in a slash or has no suffix, and
    where the inputs are not one single file; else a file. Below a folder the structure under the
    input folder, or under the fixed part of the pattern, is kept, and the result is called `name` +
    `suffix`, with {stem} and {ext} of the picture and {model}. `file_format` is png, jpg, webp, tif,
    pyramid (which is a tif), dzi or same; `video_format` is mp4, mkv, mov, webm or same, which is
    mp4 for the kinds of videos that are only read, or mkv where mp4 cannot hold their sound.

    Hidden files are passed over, and so are results of earlier runs: files in an output folder that
    lies in the input folder, and, if both are the same folder, files whose names end as `name` and
    `suffix` make them.

    Raises PlanError where nothing is found, where two pictures would get one result, and where a
    result would replace one of the pictures.
    """
    single_file = len(inputs) == 1 and os.path.isfile(inputs[0])
    to_folder = (
        not single_file
        or os.path.isdir(output)
        or output.endswith(("/", os.sep))
        or not Path(output).suffix
    )
    if to_folder:
        if os.path.isfile(output) and not single_file:
            raise PlanError(
                f"{output}: OUTPUT is a file, and INPUT is more than one file; give a folder"
            )
        _check_folder(Path(output))
        ending = _ending(name, suffix)
        found = [
            pair for text in inputs for pair in _pictures(text, Path(output), recursive, ending)
        ]
        jobs = []
        for source, folder in dict.fromkeys(found):
            extension = _extension(source, file_format, video_format)
            target = Path(output, folder, _result_name(source, extension, name, suffix, model))
            chosen = video_format == "same" and source.suffix.lower() in _READ_VIDEO_SUFFIXES
            jobs.append(Job(source, target, target.with_suffix(".mkv") if chosen else None))
        jobs = _without_rivals(jobs)
    else:
        _check_single(Path(inputs[0]), Path(output), file_format, video_format, name, suffix)
        _check_folder(Path(output).parent)
        jobs = [Job(Path(inputs[0]), Path(output))]
    _check_distinct(jobs)
    return jobs


def _pictures(text: str, output: Path, recursive: bool, ending: str) -> Iterator[tuple[Path, Path]]:
    """The pictures that one input stands for, each with its folder below the output folder."""
    if os.path.isfile(text):
        yield Path(text), Path()
        return
    if os.path.isdir(text):
        base = Path(text)
        paths = _files_below(base, recursive)
    elif glob.has_magic(text):
        base, paths = _matching(text)
    else:
        raise PlanError(f"{text}: no such file or folder, and no pattern with * or ?")

    real_base, real_output = Path(os.path.realpath(base)), Path(os.path.realpath(output))
    count, unknown = 0, []
    for path in paths:
        if path.name.endswith(_UNFINISHED):
            continue
        known = format_of_name(path) is not None or is_video(path) or _only_read(path)
        if not known or (path.exists() and not path.is_file()):  # a pipe would be waited for
            unknown.append(path.name)
            continue
        if real_output == real_base and ending and path.stem.endswith(ending):
            continue
        if real_base in real_output.parents and real_output in Path(os.path.realpath(path)).parents:
            continue
        count += 1
        yield path, path.parent.relative_to(base)
    if unknown:
        logger.warning("%s: %s", text, _passed_over(unknown))
    look_below = count and not recursive and os.path.isdir(text)
    if look_below and (below := _folders_in(base, real_output)):
        logger.warning(
            "%s: folders below it are left out without --recursive: %s", text, _some(below)
        )
    if count == 0:
        advice = (
            ""
            if recursive or not os.path.isdir(text)
            else " (folders below it are read with --recursive)"
        )
        raise PlanError(f"{text}: found no PNG, JPEG, WebP, TIFF or GIF file and no video{advice}")


def _matching(pattern: str) -> tuple[Path, list[Path]]:
    """The files that match a pattern, and the folder that is its fixed part.

    What exists by its name is no pattern, and where none matches, brackets stand for themselves.
    """
    parts = Path(pattern).parts
    fixed = 0
    while fixed < len(parts) and (
        not glob.has_magic(parts[fixed]) or os.path.exists(Path(*parts[: fixed + 1]))
    ):
        fixed += 1
    base = Path(*parts[:fixed])
    loose = parts[fixed:]
    for rest in (loose, [part.replace("[", "[[]") for part in loose]):
        matches = glob.glob(os.path.join(glob.escape(str(base)), *rest), recursive=True)
        files = [Path(match) for match in sorted(matches) if os.path.isfile(match)]
        if files:
            break
    return base, files


def _passed_over(names: list[str]) -> str:
    """How many files of which kinds are not read, and some of their names."""
    kinds = Counter(Path(name).suffix.lower() or "no suffix" for name in names)
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_TOLD))
    rest = len(kinds) - _TOLD
    more = f" and {rest} more kinds" if rest > 0 else ""
    return (
        f"passed over {len(names)} files of kinds that are not read ({told}{more}): {_some(names)}"
    )


def _some(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(names[:_TOLD]) + (", ..." if len(names) > _TOLD else "")


def _files_below(folder: Path, recursive: bool) -> Iterator[Path]:
    def report(error: OSError) -> None:
        logger.warning("%s: passed over: %s", error.filename, error.strerror)

    for root, folders, files in os.walk(folder, onerror=report):
        folders[:] = (
            sorted(name for name in folders if not name.startswith(".")) if recursive else []
        )
        yield from (Path(root, name) for name in sorted(files) if not name.startswith("."))


def _folders_in(folder: Path, output: Path) -> list[str]:
    """Names of the folders right below one, without hidden ones, links and the one for results."""
    with os.scandir(folder) as entries:
        found = (
            entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and entry.name[0] != "."
        )
        return sorted(name for name in found if Path(os.path.realpath(folder / name)) != output)


def _check_folder(path: Path) -> None:
    """Raise PlanError for what is no folder, and cannot become one."""
    existing = next((one for one in (path, *path.parents) if os.path.lexists(one)), None)
    if existing and not existing.is_dir():
        kind = "a file" if existing.is_file() else "neither a folder nor a file"
        raise PlanError(
            f"{existing} is {kind}, and results go into a folder; give another OUTPUT (one that ends "
            "in .png, .mp4 and so on names a file)"
        )


def _check_single(
    source: Path, output: Path, file_format: str, video_format: str, name: str, suffix: str
) -> None:
    if name != "{stem}" or suffix:
        raise PlanError("--name and --suffix make names in an output folder; OUTPUT is a file here")
    video = output.suffix.lower() in VIDEO_SUFFIXES
    if not video and format_to_write(output) is None:
        raise PlanError(
            f"{output}: cannot write '{output.suffix}' files; give a name in .png, .jpg, .webp, .tif, .gif or .dzi, "
            f"for videos in {', '.join(VIDEO_SUFFIXES)} (a folder of this name ends in a slash)"
        )
    animated = format_of_name(source) is GIF  # which FFmpeg reads as a video
    if (video and format_of_name(source) and not animated) or (is_video(source) and not video):
        raise PlanError(f"{source} and {output}: one is a picture and the other a video")
    if video:
        flag, wanted, fits = (
            "--video-format",
            video_format,
            output.suffix.lower() == f".{video_format}",
        )
    else:
        flag, wanted, fits = (
            "--format",
            file_format,
            format_to_write(output) == format_to_write(Path(f"x{suffix_of(file_format)}")),
        )
    if wanted != "same" and not fits:
        raise PlanError(f"{output}: the name's suffix and {flag} {wanted} contradict each other")


def _ending(name: str, suffix: str) -> str:
    """The fixed text at the end of every result's stem.

    Raises PlanError for a name that cannot be used.
    """
    try:
        fields = list(string.Formatter().parse(name))
    except ValueError as error:
        raise PlanError(f"--name {name!r}: {error}") from error
    for _, field, specification, conversion in fields:
        if field is not None and (field not in _NAME_FIELDS or specification or conversion):
            allowed = ", ".join(f"{{{known}}}" for known in _NAME_FIELDS)
            raise PlanError(f"--name {name!r}: unknown field {{{field}}}; there are {allowed}")
    if "/" in name + suffix or os.sep in name + suffix:
        raise PlanError("--name and --suffix are parts of a file name and hold no slash")
    literal, field, _, _ = fields[-1] if fields else ("", None, None, None)
    return suffix if field is not None else literal + suffix


def suffix_of(file_format: str) -> str:
    """The suffix of files in a format of the option of this name."""
    return ".tif" if file_format == "pyramid" else f".{file_format}"


def _extension(source: Path, file_format: str, video_format: str) -> str:
    if is_video(source):
        if video_format != "same":
            return f".{video_format}"
        return source.suffix if source.suffix.lower() in VIDEO_SUFFIXES else ".mp4"
    if file_format != "same":
        return suffix_of(file_format)
    if _only_read(source):
        return ".jpg" if source.suffix.lower() in JPEG_SUFFIXES else ".png"
    if format_of_name(source) is None:
        raise PlanError(f"{source}: its name does not say which format to write; use --format")
    return source.suffix


def _result_name(source: Path, extension: str, name: str, suffix: str, model: str) -> str:
    stem = name.format(stem=source.stem, ext=source.suffix.removeprefix("."), model=model) + suffix
    if not stem or stem.startswith("."):
        raise PlanError(f"--name {name!r} gives {stem + extension!r}, which is no usable file name")
    return stem + extension


def _without_rivals(jobs: list[Job]) -> list[Job]:
    """The same jobs, in whose places of second choice no other result goes."""
    taken = {os.path.normcase(os.path.abspath(job.target)) for job in jobs}
    return [
        dataclasses.replace(
            job, instead=job.target.with_name(f"{job.target.stem}{job.source.suffix}.mkv")
        )
        if job.instead and os.path.normcase(os.path.abspath(job.instead)) in taken
        else job
        for job in jobs
    ]


def _check_distinct(jobs: list[Job]) -> None:
    # a source that does not exist fails when its turn comes
    sources = {_identity(job.source): job.source for job in jobs if job.source.exists()}
    by_target: dict[str, Job] = {}
    for job in jobs:
        replaced = sources.get(_identity(job.done)) if job.done else None
        if replaced is not None:
            raise PlanError(
                f"{job.done}: would replace the input {replaced}; give another OUTPUT or --suffix"
            )
        other = by_target.setdefault(os.path.normcase(os.path.abspath(job.target)), job)
        if other is not job:
            raise PlanError(
                f"{other.source} and {job.source} would both become {job.target}; use --name '{{stem}}_{{ext}}'"
            )


def _identity(path: Path) -> tuple[int, int]:
    """The same pair for every name of one file: links, or other case if the system ignores case."""
    status = path.stat()
    return status.st_dev, status.st_ino
