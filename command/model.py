"""The command line's model: loaded, described, and run on pictures and frames.

The one place beside nodes.py that joins `arch` (loads the model) and `upscale` (runs it). Both
import torch, which is slow, so nothing of that is imported before it is needed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.bundled import named, names
from .console import reason

if TYPE_CHECKING:
    import numpy as np
    from spandrel import ImageModelDescriptor
    from torch import Tensor

    from ..picture.formats import Picture
    from ..upscale import Target


class UsageError(ValueError):
    """What was asked for cannot be done; no picture has been touched."""


def read_mask(path: Path | None, max_pixels: int) -> Any:
    """(H, W) float32 in [0, 1]: the mean of a picture's colours, where it is transparent 0."""
    if path is None:
        return None
    from ..picture.read import read_picture

    try:
        pixels = read_picture(path, max_pixels=max_pixels).pixels
    except (OSError, ValueError) as error:
        raise UsageError(f"--mask {path}: {reason(error)}") from error
    return pixels[..., :3].mean(-1) * (pixels[..., 3] if pixels.shape[-1] == 4 else 1)


@dataclass(frozen=True, kw_only=True)
class Upscaler:
    """A loaded model with the options that it runs with."""

    model: Path
    descriptor: ImageModelDescriptor
    options: dict[str, Any]

    @property
    def choices(self) -> list[Upscaler]:
        """Those that a file may get."""
        return [self]

    @cached_property
    def digest(self) -> str:
        """Of the checkpoint."""
        return hashlib.sha256(self.model.read_bytes()).hexdigest()

    @property
    def target(self) -> Target | None:
        """The size that is wanted; None: the model's scale."""
        return self.options["target"]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result."""
        if self.target is None:
            return height * self.descriptor.scale, width * self.descriptor.scale
        return self.target.size(height, width)

    def suited(self, source: Path, pixels: Callable[[], np.ndarray]) -> tuple[Upscaler, str]:
        """The upscaler for a picture of this file, and why; "" if it was asked for.

        ``pixels()`` gives it, or its middle: (H, W, C) in [0, 1].
        """
        return self, ""

    def suited_to_videos(self, source: Path) -> tuple[Upscaler, str]:
        """As `suited`."""
        return self, ""

    @property
    def frame_options(self) -> dict[str, Any]:
        """What the pixels depend on, beside the model."""
        return {name: value for name, value in self.options.items() if name != "device"}

    @property
    def context(self) -> int:
        """How many frames before a frame the model looks at."""
        from ..upscale import neighbours

        return neighbours(self.descriptor, self.options["cuts"])[0]

    def frames(
        self,
        frames: Iterator[Tensor | None],
        deliver: Callable[[Tensor], None],
        *,
        target: Target | None,
        progress: Callable[[int, int], None],
        lead: int = 0,
    ) -> None:
        """Upscale the frames of a video to ``target``, as `video.Upscale`."""
        from ..upscale import upscale_frames

        options = self.options | {"target": target, "progress": progress, "lead": lead}
        upscale_frames(self.descriptor, frames, deliver, **options)

    def animation(
        self, progress: Callable[[int, int], None], count: int
    ) -> Callable[[Iterator[np.ndarray | None], Callable[[np.ndarray], None]], None]:
        """As `picture.animation.UpscaleFrames`, for so many frames."""
        import torch

        def upscale(
            frames: Iterator[np.ndarray | None], deliver: Callable[[np.ndarray], None]
        ) -> None:
            tensors = (frame if frame is None else torch.from_numpy(frame) for frame in frames)
            self.frames(
                tensors,
                lambda result: deliver(result.numpy()),
                target=self.target,
                progress=lambda done, steps: progress(done, steps * count),
            )

        return upscale

    def __call__(self, picture: Picture, progress: Callable[[int, int], None]) -> Picture:
        import torch

        from ..upscale import upscale_image

        image = torch.from_numpy(picture.pixels)[None]  # (1, H, W, C)
        result = upscale_image(self.descriptor, image, progress=progress, **self.options)
        return replace(picture, pixels=result[0].numpy())


def import_engine() -> None:
    """Import torch and what builds on it, which ``--help`` does without. Raises UsageError where it
    is missing."""
    try:
        from ..cpu_torchvision import make_torchvision_importable

        make_torchvision_importable()
        from .. import (
            arch,  # noqa: F401
            upscale,  # noqa: F401
        )
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the package {error.name} is missing; the README says how to install it"
        ) from error


def load_descriptor(model: Path, model_options: list[str] | None = None) -> ImageModelDescriptor:
    """`arch.load_model` with options as ``name=value``; its errors as UsageError. A bundled model
    needs no path."""
    import_engine()
    from ..arch import load_model, parse_options

    try:
        known = parse_options(model_options or [])
    except ValueError as error:
        raise UsageError(f"--model-option: {error}") from error
    path = named(model)
    try:
        return load_model(path, **known)
    except ValueError as error:
        a_name = len(path.parts) == 1 and not path.suffix and not os.path.lexists(path)
        bundled = f", or name a bundled model: {', '.join(names())}" if a_name else ""
        raise UsageError(reason(error) + bundled) from error
    except OSError as error:
        raise UsageError(f"{model}: {reason(error)}") from error


def describe_model(model: Path) -> str:
    """What ``--info`` prints. Raises UsageError."""
    descriptor = load_descriptor(model)
    from ..arch import describe

    return describe(descriptor, whole=True)


def load_upscaler(
    model: Path,
    model_options: list[str],
    device: str,
    threads: int | None,
    options: dict[str, Any],
) -> Upscaler:
    """Check everything that needs no picture, load the model, and return what upscales one.

    ``options`` are those of `common.upscaling` by name, the target as text and the mask as
    `read_mask` gives it. Raises UsageError.
    """
    import_engine()
    import torch

    from ..upscale import parse_target

    if threads is not None:
        torch.set_num_threads(threads)
    target = options["target"]
    try:
        parsed_target = None if target is None else parse_target(target)
    except ValueError as error:
        raise UsageError(f"--target: {error}") from error
    descriptor = load_descriptor(model, model_options)
    try:
        found = torch.device(best_device() if device == "auto" else device)
        if found.type == "meta":
            raise RuntimeError("it holds no values")
        descriptor.to(found)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise UsageError(
            f"--device {device} is not available here: {reason(error)}. Use auto (here {best_device()}), cpu, cuda, "
            "cuda:1 or mps"
        ) from error
    mask = None if options["mask"] is None else torch.from_numpy(options["mask"])
    options = options | {"target": parsed_target, "mask": mask, "device": descriptor.device}
    return Upscaler(model=named(model), descriptor=descriptor, options=options)


def best_device() -> str:
    """What ``--device auto`` stands for here."""
    from ..common.devices import current_accelerator

    return str(current_accelerator() or "cpu")
