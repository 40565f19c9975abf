"""Windowed networks on images of any size in bounded memory, a band of windows at a time.

It gives what one call of the wrapper gives for the whole image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...common.dry_run import working_bytes
from .bands import Windowing

CPU_BATCH = 4
DEVICE_BATCH = 16
"""Windows per forward: on a CPU enough to spread what operators cost to begin, while a layer stays
in its cache."""

CHANNELS = 3


def usual_batch(device: torch.device) -> int:
    """Windows per call of the network where nobody says how many."""
    return CPU_BATCH if device.type == "cpu" else DEVICE_BATCH


@dataclass(frozen=True)
class WindowPlan:
    """Sizes of one run.

    Attributes:
        windowing: what runs.
        images, height, width: of the input, in pixels.
        batch: windows per call of the network.
        dtype, device: where and in what the network runs.
        host_memory_required: bytes of main memory; nothing is kept there.
    """

    windowing: Windowing
    images: int
    height: int
    width: int
    batch: int
    dtype: torch.dtype
    device: torch.device

    host_memory_required = 0

    @property
    def steps(self) -> int:
        """Calls of ``progress``: one per window, whatever the batch."""
        rows, columns = self.windowing.axes(self.height, self.width)
        return len(rows) * len(columns) * self.images

    @property
    def memory_required(self) -> int:
        """Bytes on the device for a batch of windows and the bands that they are joined in, beside
        weights and output."""
        side, scale = self.windowing.window, self.windowing.scale
        shape = self.batch, CHANNELS, side, side
        network = working_bytes(self.windowing.network, shape, self.dtype, scale, self.device)
        rows = 3 * self.images * CHANNELS * side * scale * self.width * scale
        windows = self.batch * CHANNELS * side**2 * (1 + scale**2)
        image = self.images * CHANNELS * self.height * self.width
        return (
            network + rows * max(self.dtype.itemsize, 4) + (windows + image) * self.dtype.itemsize
        )

    def smaller(self) -> WindowPlan | None:
        """Half as many windows at once; None where there is only one."""
        return replace(self, batch=self.batch // 2) if self.batch > 1 else None


class WindowEngine:
    """Offered to tiling engines as ``WindowedUpscaler.exact_engine``.

    Args:
        windowing: what runs.
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
    ) -> WindowPlan:
        """For ``batch`` images of this size: as many windows at once as gain something and fit
        ``available`` bytes, at least one."""
        device = torch.device(device)
        windows = self.batch or usual_batch(device)
        plan = WindowPlan(self.windowing, batch, height, width, windows, dtype, device)
        while available is not None and plan.memory_required > available:
            smaller = plan.smaller()
            if smaller is None:
                break
            plan = smaller
        return plan

    @torch.inference_mode()
    def run(
        self,
        image: Tensor,
        plan: WindowPlan,
        write: Callable[[int, Tensor], None],
        progress: Callable[[int, int], None] | None = None,
        touched: Tensor | None = None,
    ) -> None:
        """Upscale a batch.

        Args:
            image: (B, C, H, W) in [0, 1], on any device.
            plan: from `plan`, for this size.
            write: called as ``write(top, rows)`` with finished rows (B, C, h, W * scale) in order,
                unclamped.
            progress: called as ``progress(done, total)`` for every window, after its batch; may
                raise to interrupt.
            touched: (H, W) bool; windows that hold none of these pixels are left out, as zeros.
        """
        done, total = 0, plan.steps

        def tick() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total)

        top = 0
        image = image.to(plan.device, plan.dtype)
        for rows in self.windowing.bands(image, plan.batch, tick, touched):
            write(top, rows)
            top += rows.shape[2]

    def release(self) -> None:
        """Nothing to drop: what the network makes of its weights goes when it is moved."""
