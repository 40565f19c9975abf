"""What the engine needs from a model and from the machine, as protocols: nothing here is imported
by `arch`.

A spandrel descriptor is enough. A network may offer more through attributes of
``descriptor.model``:

- ``tile_contract`` (`TileContract`): it likes, or needs, tiles of a certain kind;
- ``exact_engine`` (`ExactEngine`): it can compute the whole-image result in bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from spandrel import ImageModelDescriptor
from torch import Tensor

Progress = Callable[[int, int], None]
"""``progress(done, total)``, after every batch of tiles (or band); an exception that it raises ends
the work."""


class Preview(Protocol):
    """Shows the frame at work while it grows. Given as ``upscale_image(..., preview=...)``.

    After every batch of tiles (or band), when `Progress` has been told, the engine asks ``due``;
    only when that is true does it sample what is new and call ``show``. Both are called from the
    thread of ``upscale_image``; what they raise ends the work. Nothing is shown at the very end,
    when the result itself is there.
    """

    def due(self) -> bool:
        """Whether a picture is wanted now. Asked often: all throttling belongs here, before any
        work."""
        ...

    def show(self, thumbnail: Tensor, done: int, total: int) -> None:
        """``thumbnail`` (h, w, 3) uint8 on the CPU, longest side up to 512, only valid during the
        call.

        Its finished parts are the model's result, the others the input, darkened. ``done`` of
        ``total`` are the numbers that `Progress` was told last.
        """
        ...


class TileContract(Protocol):
    """Attributes of ``model.tile_contract``.

    window: side of the windows in which the model takes every image by itself: its exact engine runs
        in every mode; None: it has none, and is run in tiles.
    overlap: sensible overlap of neighbouring tiles in input pixels.
    alignment: starts and sizes of tiles are best multiples of this many input pixels.
    network: (B, C, h, w) -> (B, C, h * scale, w * scale), unclamped.
    """

    window: int | None
    overlap: int
    alignment: int
    network: Callable[[Tensor], Tensor]


class ExactPlan(Protocol):
    """Sizes of one exact run: working memory in bytes beside the weights, on the device and on the
    host."""

    memory_required: int
    host_memory_required: int
    steps: int

    def smaller(self) -> ExactPlan | None:
        """A plan that needs less device memory, None where there is none."""
        ...


class ExactEngine(Protocol):
    """``model.exact_engine``: the whole-image result, band by band."""

    def plan(
        self,
        batch: int,
        height: int,
        width: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        available: int | None,
    ) -> ExactPlan:
        """How to run (batch, C, height, width) in ``available`` bytes of the device; None: as many
        as suit it best."""
        ...

    def run(
        self,
        image: Tensor,
        plan: Any,
        write: Callable[[int, Tensor], None],
        progress: Progress | None = None,
        touched: Tensor | None = None,
    ) -> None:
        """image (B, C, H, W); ``write(top, rows)`` gets finished rows (B, C, h, W * scale) in
        order, unclamped.

        Where ``touched`` (H, W) bool is False, the rows may hold anything finite.
        """
        ...

    def release(self) -> None:
        """Drop what is kept on a device other than the CPU between runs, beside the weights of the
        module."""
        ...


class Placement(Protocol):
    """Who owns the device memory: this process alone (`DirectPlacement`), or a host program."""

    device: torch.device

    def auto_dtype(self, model: ImageModelDescriptor) -> torch.dtype:
        """The fastest precision that device and model are good at."""
        ...

    def prepare(
        self, model: ImageModelDescriptor, dtype: torch.dtype, memory_required: int
    ) -> ImageModelDescriptor:
        """The model, or a copy in ``dtype``, on the device, if possible with so many bytes free
        beside it."""
        ...

    def available(self) -> int:
        """Bytes that may be used on the device now."""
        ...

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether smaller parts may do what has failed."""
        ...

    def release_cache(self) -> None:
        """Give cached, unused memory back to the device (after running out of it)."""
        ...
