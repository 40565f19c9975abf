"""Runs windowed networks on images of any size in bounded memory, one row of windows at a time.

The result equals that of one call of `WindowedUpscaler` for the whole image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...common.dry_run import working_bytes
from ...common.rows import Rows, rows_on
from .bands import Windowing

CPU_BATCH = 4
DEVICE_BATCH = 16
"""Windows per call of the network: on a CPU enough to make the fixed cost of starting an operator
small, and so few that a layer's data stay in its cache."""

CHANNELS = 3


def usual_batch(device: torch.device) -> int:
    """Windows per call of the network, where the caller does not choose."""
    return CPU_BATCH if device.type == "cpu" else DEVICE_BATCH


@dataclass(frozen=True)
class WindowPlan:
    """Sizes of one run.

    Attributes:
        windowing: the network and its windows.
        images, height, width: number and size of the images, in pixels.
        batch: windows per call of the network.
        dtype, device: precision in which the network runs, and where.
        in_bands: the image is read in bands, so that only one of them is in memory.
        host_memory_required: bytes of main memory; 0, because nothing is kept there.
        disk_required: bytes of files; 0 as well.
    """

    windowing: Windowing
    images: int
    height: int
    width: int
    batch: int
    dtype: torch.dtype
    device: torch.device
    in_bands: bool = False

    host_memory_required = 0
    disk_required = 0

    @property
    def steps(self) -> int:
        """Calls of ``progress``: one per window, whatever the batch."""
        rows, columns = self.windowing.axes(self.height, self.width)
        return len(rows) * len(columns) * self.images

    @property
    def result_rows(self) -> int:
        """Rows of the image whose result ``write`` gets at a time, at most."""
        return min(self.windowing.window, self.height)

    @property
    def memory_required(self) -> int:
        """Bytes on the device, without weights and output.

        They are for a batch of windows and the bands in which the windows are joined.
        """
        side, scale = self.windowing.window, self.windowing.scale
        shape = self.batch, CHANNELS, side, side
        network = working_bytes(self.windowing.network, shape, self.dtype, scale, self.device)
        rows = 3 * self.images * CHANNELS * side * scale * self.width * scale
        windows = self.batch * CHANNELS * side**2 * (1 + scale**2)
        height = min(side, self.height) if self.in_bands else self.height
        image = self.images * CHANNELS * height * self.width
        return (
            network + rows * max(self.dtype.itemsize, 4) + (windows + image) * self.dtype.itemsize
        )

    def smaller(self) -> WindowPlan | None:
        """A plan with half as many windows at a time; None if this one has only one."""
        return replace(self, batch=self.batch // 2) if self.batch > 1 else None


class WindowEngine:
    """The engine that tiling engines get as ``WindowedUpscaler.exact_engine``.

    Args:
        windowing: the network and its windows.
        batch: windows per call of the network; None: `usual_batch`.
    """

    def __init__(self, windowing: Windowing, batch: int | None = None) -> None:
        self.windowing = windowing
        self.batch = batch

    def plan(
        self,
        batch: int,
        height: int,
        width: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        available: int | None = None,
        folder: Path | None = None,
        disk: int | None = None,
    ) -> WindowPlan:
        """A plan for ``batch`` images of this size; with a ``folder``, for one read in bands.

        It takes as many windows at a time as are useful and fit in ``available`` bytes, at least 1.
        """
        device = torch.device(device)
        windows = self.batch or usual_batch(device)
        sides, in_bands = (height, width), folder is not None
        plan = WindowPlan(self.windowing, batch, *sides, windows, dtype, device, in_bands)
        while available is not None and plan.memory_required > available:
            smaller = plan.smaller()
            if smaller is None:
                break
            plan = smaller
        return plan

    @torch.inference_mode()
    def run(
        self,
        image: Tensor | Rows,
        plan: WindowPlan,
        write: Callable[[int, Tensor], None],
        progress: Callable[[int, int], None] | None = None,
        touched: Tensor | None = None,
    ) -> None:
        """Upscale a batch.

        Args:
            image: (B, C, H, W) in [0, 1], on any device; or its rows, of which those of a row of
                windows are read at a time, from the top.
            plan: from `plan`, for this size.
            write: called as ``write(top, rows)`` with finished rows (B, C, h, W * scale) in order,
                unclamped.
            progress: called as ``progress(done, total)`` for every window, after its batch; may
                raise to interrupt.
            touched: as for `Windowing.bands`.
        """
        done, total = 0, plan.steps

        def tick() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total)

        top = 0
        image = rows_on(image, plan.device, plan.dtype)
        for rows in self.windowing.bands_of(image, plan.batch, tick, touched):
            write(top, rows)
            top += rows.shape[2]

    def release(self) -> None:
        """Does nothing: what the network computed from its weights is dropped when it is moved."""
