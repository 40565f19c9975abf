"""Windowed networks on images of any size in bounded memory: the protocol of an exact engine around
`WindowedUpscaler`.

What one call of the wrapper gives for the whole image, a band of windows at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .network import CPU_BATCH, DEVICE_BATCH, WindowedUpscaler, plan_axis


@dataclass(frozen=True)
class WindowPlan:
    """Sizes of one run.

    Attributes:
        images, height, width: of the input, in pixels.
        batch: windows per call of the network.
        dtype, device: where and in what the network runs.
        steps: windows, for each of which progress is told.
        memory_required: bytes on the device beside the weights: the network's, and those of the
            rows at work.
        host_memory_required: nothing is kept on the host.
    """

    model: WindowedUpscaler
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
        vertical, horizontal = (
            plan_axis(length, self.model.window, self.model.overlap, self.model.scale)
            for length in (self.height, self.width)
        )
        return len(vertical) * len(horizontal) * self.images

    @property
    def memory_required(self) -> int:
        """Bytes for a batch of windows and the bands that they are joined in, beside weights and
        output."""
        model = self.model
        size = torch.empty((), dtype=self.dtype).element_size()
        working_bytes = getattr(model.network, "working_bytes", None)
        network = working_bytes(self.batch, self.dtype, self.device) if working_bytes else 0
        window, channels = model.window * model.scale, 3
        rows = 3 * self.images * channels * window * self.width * model.scale * max(size, 4)
        return (
            network
            + rows
            + 2 * self.batch * channels * window**2 * max(size, 4)
            + self.images * channels * (self.height * self.width * size)
        )

    def smaller(self) -> WindowPlan | None:
        """Half as many windows at once; None where there is only one."""
        return replace(self, batch=self.batch // 2) if self.batch > 1 else None


class WindowEngine:
    """Offered to tiling engines as ``WindowedUpscaler.exact_engine``."""

    def __init__(self, model: WindowedUpscaler) -> None:
        self.model = model

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
        ``available`` bytes."""
        device = torch.device(device)
        windows = self.model.batch or (CPU_BATCH if device.type == "cpu" else DEVICE_BATCH)
        plan = WindowPlan(self.model, batch, height, width, windows, dtype, device)
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
    ) -> None:
        """Upscale a batch.

        Args:
            image: (B, C, H, W) in [0, 1], on any device.
            plan: from `plan`, for this size.
            write: called as ``write(top, rows)`` with finished rows (B, C, h, W * scale) in order,
                unclamped.
            progress: called as ``progress(done, total)`` for every window, after its batch; may
                raise to interrupt.
        """
        done, total = 0, plan.steps

        def tick() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total)

        top = 0
        for rows in self.model.bands(image.to(plan.device, plan.dtype), plan.batch, tick):
            write(top, rows)
            top += rows.shape[2]

    def release(self) -> None:
        """Nothing to drop: what the network makes of its weights goes when it is moved."""
