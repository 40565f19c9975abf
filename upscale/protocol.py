"""Protocols: what the engine needs from a model and from the machine.

A spandrel descriptor is enough as a model. A network may offer more through attributes of
``descriptor.model``; it need not import anything from here for that:

- ``tile_contract`` (`TileContract`): it prefers, or needs, tiles of a certain kind;
- ``exact_engine`` (`ExactEngine`): it can compute the whole-image result in bounded memory;
- ``clip_contract`` (`ClipContract`): it takes several successive frames, and gives one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from spandrel import ImageModelDescriptor
from torch import Tensor

from ..common.rows import Rows

Progress = Callable[[int, int], None]
"""``progress(done, total)``, after every batch of tiles (or band); an exception that it raises ends
the work."""


class Preview(Protocol):
    """Shows the frame in progress. Passed as ``upscale_image(..., preview=...)``.

    After every batch of tiles (or band), and after `Progress`, the engine calls ``due``; only if
    that is true does it sample what is new and call ``show``. Both are called from the thread of
    ``upscale_image``; an exception that they raise ends the work. Nothing is shown at the very end,
    when the result itself is there.
    """

    def due(self) -> bool:
        """Whether a picture is wanted now. Called often, so this is the place to limit the rate."""
        ...

    def show(self, thumbnail: Tensor, done: int, total: int) -> None:
        """Show ``thumbnail``: (h, w, 3) uint8 on the CPU, longest side up to 512.

        It is valid only during the call. Its finished parts are the model's result, the others the
        input, darkened. ``done`` and ``total`` are the last numbers that `Progress` got.
        """
        ...


class TileContract(Protocol):
    """Attributes of ``model.tile_contract``.

    window: side of the windows into which the model divides every image by itself. Its exact engine
        then runs in every mode. None: it has no windows, and is run in tiles.
    overlap: sensible overlap of neighbouring tiles in input pixels.
    alignment: starts and sizes of tiles should be multiples of this many input pixels.
    network: what to call on a tile: (B, C, h, w) -> (B, C, h * scale, w * scale), not clamped.
    mirror_borders: its padding spoils the border of a picture, so that the picture is better
        continued first. It may be left out, which is False.
    """

    window: int | None
    overlap: int
    alignment: int
    network: Callable[[Tensor], Tensor]


Recall = Callable[[str, int, int, Callable[[], Tensor]], Tensor]
"""``recall(name, first, last, compute)``, called by a network with what it computes from the frames
``first`` to ``last`` of its clip alone: gives that, computed now or for an earlier clip."""


class ClipContract(Protocol):
    """Attributes of ``model.clip_contract``.

    Wherever a network is given planes (B, C, h, w), this one gets those of all frames of a clip in
    their order, (B, frames * C, h, w), and makes one picture of them.

    before, after: frames of the clip before and after the one that it gives.
    recalling: the network on one tile (1, frames * C, h, w), called with a `Recall` too; None where
        nothing of a clip can be used again. It may be left out, which is None.
    """

    before: int
    after: int
    recalling: Callable[[Tensor, Recall], Tensor] | None


class ExactPlan(Protocol):
    """Sizes of one exact run.

    memory_required, host_memory_required: bytes beside the weights, on the device and on the host;
        without those of rows that ``write`` has got.
    steps: calls of ``progress``.
    disk_required: bytes of files, where a folder for them was given.
    result_rows: of how many rows of the image ``write`` gets the result at a time, at most; all,
        where a plan does not say.
    """

    memory_required: int
    host_memory_required: int
    disk_required: int
    steps: int
    result_rows: int

    def smaller(self) -> ExactPlan | None:
        """A plan that needs less device memory; None if there is none."""
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
        folder: Path | None = None,
        disk: int | None = None,
    ) -> ExactPlan:
        """Plan a run of images (batch, C, height, width) in ``available`` bytes of the device.

        ``available`` None: as many bytes as are best for speed. With a ``folder`` the image is read
        in bands, and what is as large as it lives in files there, which take ``disk`` bytes at most
        if possible. Only pictures that are larger than memory ask for that.
        """
        ...

    def run(
        self,
        image: Tensor | Rows,
        plan: Any,
        write: Callable[[int, Tensor], None],
        progress: Progress | None = None,
        touched: Tensor | None = None,
    ) -> None:
        """Upscale ``image`` (B, C, H, W), or one that is read in bands.

        ``write(top, rows)`` gets finished rows (B, C, h, W * scale) in order, not clamped. They are
        read after it has returned, so their memory must not be used again. Where
        ``touched`` (H, W) bool is False, the rows may hold anything finite.
        """
        ...

    def release(self) -> None:
        """Drop what is kept between runs on a device other than the CPU, except the weights."""
        ...


class Placement(Protocol):
    """Who owns the device memory: this process alone (`DirectPlacement`), or a host program."""

    device: torch.device

    def auto_dtype(self, model: ImageModelDescriptor) -> torch.dtype:
        """The fastest precision that both the device and the model support well."""
        ...

    def prepare(
        self, model: ImageModelDescriptor, dtype: torch.dtype, memory_required: int
    ) -> ImageModelDescriptor:
        """The model, or a copy in ``dtype``, on the device.

        If possible, ``memory_required`` bytes are free beside it.
        """
        ...

    def available(self) -> int:
        """Bytes that may be used on the device now."""
        ...

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether ``error`` says that memory ran out, so that smaller parts may succeed."""
        ...

    def release_cache(self) -> None:
        """Give cached, unused memory back to the device (after running out of it)."""
        ...
