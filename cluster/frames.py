"""What upscales the frames of a video in a worker of a host program: a model from its checkpoint."""

from __future__ import annotations

from typing import Any

import torch

from ..cpu_torchvision import make_torchvision_importable
from .checkpoint import scratch, written
from .parts import PartWorker


class FrameWorker(PartWorker):
    """A model on one device, and parts of videos for it.

    Args:
        checkpoint: the files of the model by their names, the model first.
        known: options of `arch.load_model`.
        options: of `upscale.upscale_frames`.
        device, threads: where it runs.
    """

    reason = staticmethod(str)

    def __init__(
        self,
        checkpoint: dict[str, bytes],
        *,
        known: dict[str, Any],
        options: dict[str, Any],
        device: str,
        threads: int,
    ) -> None:
        super().__init__()
        torch.set_num_threads(threads)
        make_torchvision_importable()
        from ..arch import load_model

        with scratch() as place:
            model = written(checkpoint, place)
            self._model = load_model(model, **known).to(torch.device(device))
        self._options = options | {"device": device}
        self.upscaler = self

    @property
    def context(self) -> int:
        """How many frames before a frame the model looks at."""
        from ..upscale import neighbours

        return neighbours(self._model, self._options["cuts"])[0]

    def frames(self, frames: Any, deliver: Any, **given: Any) -> None:
        """As `video.job.Upscale`."""
        from ..upscale import upscale_frames

        upscale_frames(self._model, frames, deliver, **self._options | given)
