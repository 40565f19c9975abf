"""The other devices of the host's machine, which the node for videos may use beside the host's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from spandrel import ImageModelDescriptor

from . import host
from .arch import origin
from .cluster.checkpoint import files_of
from .cluster.connection import ClusterError, connected
from .cluster.crew import Crew
from .cluster.parts import PartWorker
from .cluster.places import Place, other_places
from .cluster.segments import Segments
from .upscale import neighbours, precision_name
from .video import PictureVideo, VideoFile

logger = logging.getLogger(__name__)

WORKER = "fdat_dense_iso.cluster.frames:FrameWorker"


class OwnWorker(PartWorker):
    """Does parts of a video in this process, on the host's device: a `cluster.crew.Own`.

    ``run`` is a `video.job.Upscale`, ``context`` says how many frames before a frame it looks at.
    """

    reason = staticmethod(str)
    ends = staticmethod(host.is_interrupt)

    def __init__(self, run: Callable[..., None], context: int) -> None:
        super().__init__()
        self._run, self.context = run, context
        self.upscaler = self
        self.between: Callable[[], None] = lambda: None

    def frames(
        self, frames: Any, deliver: Any, *, target: Any, progress: Any, **given: Any
    ) -> None:
        """Upscale frames; ``run`` knows the target."""

        def step(done: int, total: int) -> None:
            progress(done, total)
            self.between()

        self._run(frames, deliver, progress=step, **given)


@contextmanager
def segments_beside(
    devices: str | None,
    model: ImageModelDescriptor,
    source: VideoFile | PictureVideo,
    run: Callable[..., None],
    options: dict[str, Any],
) -> Iterator[Callable[[Any], Any] | None]:
    """What makes the segments of a `video.VideoJob` by the host's device and by others; None where
    the host's device is alone, which the log says where ``devices`` asks for others.

    Args:
        run: upscales frames on the host's device, as `video.job.Upscale`.
        options: of `upscale.upscale_frames`, with which it does.

    Raises ClusterError for devices that are not there.
    """
    if not devices:
        yield None
        return
    placement = host.HostPlacement(model)
    places = other_places(devices, str(placement.device))
    with ExitStack() as stack:
        try:
            path, known = _checked(places, model, source)
            given = options | {"precision": precision_name(options["precision"], model, placement)}
            del given["target"]  # comes with each part
            own = OwnWorker(run, neighbours(model, options["cuts"])[0])
            cpus = sum(place.threads for place in places)
            ray = stack.enter_context(connected(None, cpus=cpus))
            crew = Crew(
                ray,
                places,
                WORKER,
                {"known": dict(known), "options": given},
                [files_of(path)],
                on_wait=host.check_interrupt,
                own=own,
            )
            stack.enter_context(crew)
        except ClusterError as error:
            logger.warning("%s works alone: %s", placement.device, error)
            yield None
            return
        yield partial(Segments, crew, target=options["target"])
        logger.info(
            "%s did %d parts of the video, other devices %d",
            *(placement.device, crew.done_here, crew.done),
        )


def _checked(
    places: list[Place], model: ImageModelDescriptor, source: VideoFile | PictureVideo
) -> tuple[Path, Mapping[str, Any]]:
    """The model's file, and the options with which it was loaded. Raises ClusterError where other
    devices cannot help."""
    if not places:
        raise ClusterError("there is no other device (ComfyUI's --cuda-device hides the others)")
    if isinstance(source, PictureVideo):
        raise ClusterError(
            "pictures in memory are not sent to other devices; save the video and load it"
        )
    found = origin(model)
    if found is None:
        raise ClusterError("other devices load the model's file; use this pack's loader")
    return found
