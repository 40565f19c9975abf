"""The unfinished video that an interrupted run leaves, and how a later run resumes it.

The result FILE is first written to FILE.partial.mp4, in fragments, so that it can be played at any
time. When all frames are there, their packets are copied into FILE. A run that resumes moves the
unfinished file to FILE.partial-old.mp4 and copies its whole segments into a new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from .colour import VideoError
from .write import SEGMENT_FRAMES, UNDECODED

logger = logging.getLogger(__name__)

STATE = "UPSCALE_STATE"
"""The key of the file's metadata under which the settings of the run are, as JSON."""


_PARTIAL, _OLD, _LOCK = ".partial.mp4", ".partial-old.mp4", ".partial.lock"
_LONGEST_NAME = 255  # bytes; what every usual file system holds


def partial_path(target: Path) -> Path:
    """Where the unfinished result of ``target`` is."""
    return target.with_name(_stem(target) + _PARTIAL)


def old_path(target: Path) -> Path:
    """Where that file is moved while a run that resumes copies from it."""
    return target.with_name(_stem(target) + _OLD)


def lock_path(target: Path) -> Path:
    """What the run holds that writes ``target``."""
    return target.with_name(_stem(target) + _LOCK)


def _stem(target: Path) -> str:
    """The target's name; of one that leaves no room for the endings its beginning and a digest."""
    name = os.fsencode(target.name)
    room = _LONGEST_NAME - len(_OLD)
    if len(name) <= room:
        return target.name
    digest = hashlib.sha256(name).hexdigest()[:16]
    return name[: room - len(digest) - 1].decode("utf-8", "ignore") + "-" + digest


class Unfinished:
    """An unfinished result: how many frames it has (0 if it can't be read), and whole segments.

    Raises VideoError for a video that is not an unfinished result.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames = 0
        self.state: dict[str, Any] = {}
        with contextlib.suppress(FFmpegError), av.open(str(path), options=UNDECODED) as container:
            found = {key.upper(): value for key, value in container.metadata.items()}
            if STATE not in found:
                raise VideoError(
                    f"{path} is not the unfinished result of an earlier run; rename it"
                )
            self.state = json.loads(found[STATE])
            for packet in container.demux(container.streams.video[0]):
                if packet.dts is None or packet.is_corrupt:
                    break
                self.frames += 1
        self.segments = self.frames // SEGMENT_FRAMES

    def packets(self) -> Generator[av.Packet]:
        """The packets of the video, in decoding order."""
        with av.open(str(self.path), options=UNDECODED) as container:
            yield from container.demux(container.streams.video[0])

    def check(self, state: dict[str, Any]) -> None:
        """Raise VideoError if a run with the settings ``state`` would give other frames."""
        names = self.state.keys() | state.keys()
        differing = sorted(name for name in names if self.state.get(name) != state.get(name))
        if differing:
            raise VideoError(
                f"{self.path} was made with other settings ({', '.join(differing)}); use the same ones, or overwrite it"
            )


def unfinished(target: Path) -> Unfinished | None:
    """The unfinished result of ``target``, or None if there is none with frames.

    If there are two such files, it is the one with more frames.
    """
    found = [Unfinished(path) for path in (partial_path(target), old_path(target)) if path.exists()]
    for one in found:
        if not one.frames:
            logger.warning("%s holds no frame that can be read; it is begun anew", one.path)
    return max((one for one in found if one.frames), key=lambda one: one.frames, default=None)
