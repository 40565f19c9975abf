"""FDAT's exact engine behind the layers that make one picture of several frames.

frames -> moved and fused (whole, band by band) -> FDAT's engine, as if that were its picture
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...common.rows import Rows
from ..fdat.architecture import InferenceFDAT
from ..fdat.engine.bands import split_rows
from ..fdat.engine.plan import Plan, bytes_of
from ..fdat.engine.run import ExactEngine
from ..guards import without_autocast

REACH = 3
"""Rows above and below that the layers up to the first one of temporal_fuse see."""

ROWS = 32
"""That frames are fused at a time."""


class Body(InferenceFDAT):
    """The FDAT within a TFDAT: its picture is what the first layer of temporal_fuse makes."""

    def __init__(self, network: Any) -> None:
        nn.Module.__init__(self)
        fdat = network.config.fdat
        self.config = replace(
            fdat,
            num_in_ch=fdat.embed_dim,
            scale=fdat.upsampler_scale,
            unshuffle_mod=False,
        )
        self.conv_first = network.temporal_fuse[2]
        self.groups, self.conv_after = network.groups, network.conv_after
        self.upsampler = network.upsampler
        self.training = network.training


@dataclass(frozen=True)
class ExactPlan:
    """The plan of FDAT's engine, and what comes before it.

    Attributes:
        body: of the engine, for the fused frames.
        front: bytes of the frames and of what they are fused to.
        unshuffle: pixels of a frame to one of the fused ones, along a side.
    """

    body: Plan
    front: int
    unshuffle: int

    @property
    def map_dtype(self) -> torch.dtype:
        """Of the feature maps."""
        return self.body.map_dtype

    @property
    def memory_required(self) -> int:
        """Bytes on the device beside the weights."""
        return self.body.memory_required + self.front

    @property
    def host_memory_required(self) -> int:
        """Bytes in host memory."""
        return self.body.host_memory_required

    @property
    def disk_required(self) -> int:
        """Bytes of files."""
        return self.body.disk_required

    @property
    def steps(self) -> int:
        """Calls of ``progress``."""
        return self.body.steps

    @property
    def result_rows(self) -> int:
        """Rows of a frame whose result ``write`` gets at a time, at most."""
        return self.body.result_rows * self.unshuffle

    def smaller(self) -> ExactPlan | None:
        """A plan with smaller bands; None if there is none."""
        body = self.body.smaller()
        return None if body is None else replace(self, body=body)


class ExactFrames:
    """Whole frames by a TFDAT, in bands; see `fdat.engine.run.ExactEngine`.

    The frames are moved whole, since the flow may reach anywhere; they have few channels.

    Args:
        network: the `tfdat.TFDAT`; its weights may be on any device and in any precision.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self.engine = ExactEngine(network.body)

    def plan(
        self,
        batch: int,
        height: int,
        width: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        available: int | None = None,
        **options: Any,
    ) -> ExactPlan:
        """As FDAT's engine. With a ``folder`` too, frames and what they are fused to are in
        memory."""
        config = self.network.config
        size, multiple = config.fdat.unshuffle, config.alignment
        rows, columns = (-(-side // multiple) * multiple // size for side in (height, width))
        # fused frames, twice while they are put together; frames, padded and moved, and flow; a
        # band's two maps, side by side, and fused
        dim = config.fdat.embed_dim
        each = 2 * dim + 5 * size**2 * config.frames * config.in_channels
        wide = min(rows, ROWS + 2 * REACH) * 6 * dim
        front = batch * columns * (rows * each + wide) * bytes_of(dtype)
        left = None if available is None else max(available - front, 0)
        body = self.engine.plan(
            batch, rows, columns, dtype=dtype, device=device, available=left, **options
        )
        return ExactPlan(body, front, size)

    def front(self, image: Tensor, plan: Plan) -> Tensor:
        """What FDAT's engine reads instead of a picture, (B, C, rows, columns)."""
        network = self.network
        weight = network.conv_first.weight
        with without_autocast(plan.device):
            frames = network.aligned(network.clip_of(image.to(weight.device, weight.dtype)))
            bands = split_rows(plan.rows, ROWS)
            return torch.cat([network.fused(*frames, *band) for band in bands], 2)

    @torch.inference_mode()
    def run(
        self,
        image: Tensor | Rows,
        plan: ExactPlan,
        write: Callable[[int, Tensor], None],
        progress: Callable[[int, int], None] | None = None,
        touched: Tensor | None = None,
    ) -> None:
        """As FDAT's engine, of clips (B, frames * C, H, W), or of single pictures."""
        height, width = (side * self.network.config.scale for side in image.shape[-2:])
        image = image if isinstance(image, Tensor) else image.rows(0, image.shape[2])

        def cropped(top: int, rows: Tensor) -> None:
            rows = rows[:, :, : max(height - top, 0), :width]
            if rows.shape[2]:
                write(top, rows)

        self.engine.run(self.front(image, plan.body), plan.body, cropped, progress)

    def release(self) -> None:
        """Drop the packed weights, as FDAT's engine does."""
        self.engine.release()
