r"""A network with a fixed input size on images of any size: overlapped windows, blended.

One axis at a time, in integers. All windows have one size, the last is shifted to fit; where two
neighbours overlap, one cosine ramp hands over from the first to the second: what one gains the
other loses, so the weights along an axis sum to one by construction.

    window 0   1 1 1 1 \ . . .
    window 1         . / 1 1 \ . . .
    window 2               . / 1 1 1 1

There is no ramp at the borders of the image and no buffer for normalisation. Images smaller than a
window are continued by reflection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contract import TileContract
from ..guards import is_hooked

if TYPE_CHECKING:
    from .engine import WindowEngine

NETWORK_PREFIX = "network."
CPU_BATCH = 4
DEVICE_BATCH = 16
"""Windows per forward: on a CPU enough to spread what operators cost to begin, while a layer stays
in its cache."""

Place = tuple[tuple[int, int], tuple[int, int]]
"""Output pixels of a window: rows and columns, each first and one past the last."""


@dataclass(frozen=True)
class Window:
    """One window along one axis.

    Attributes:
        start: first pixel, of the image continued to at least one window.
        kept: first and one past the last output pixel of the window that has a share in the result.
        target: where the first kept one lies in the result.
        weights: (kept[1] - kept[0],) shares, float64.
    """

    start: int
    kept: tuple[int, int]
    target: int
    weights: Tensor


def window_starts(length: int, size: int, overlap: int) -> list[int]:
    """First pixels of the fewest windows that cover ``length``, at equal steps; the last is shifted
    back to fit.

    Equal steps, so that windows in a tile of the image lie as they do in the whole image if the
    tile starts at one of these steps, as every tile of 512 with overlap 32 does for windows of 64
    with overlap 16.

    >>> window_starts(200, 64, 16)
    [0, 48, 96, 136]
    """
    if length <= size:
        return [0]
    steps = math.ceil((length - size) / (size - overlap))
    return [min(index * (size - overlap), length - size) for index in range(steps + 1)]


def plan_axis(length: int, size: int, overlap: int, scale: int) -> list[Window]:
    """Windows along one axis of an image of ``length`` pixels, with blending weights in output
    pixels.

    The ramp between two neighbours lies in the middle of what they share and takes half of
    ``overlap``: the outer quarter on either side, where a window knows least of its surroundings,
    is not used. Of a window larger than the image only the image is kept.
    """
    if length <= size:
        begin = (size - length) // 2 * scale
        return [
            Window(
                0,
                (begin, begin + length * scale),
                0,
                torch.ones(length * scale, dtype=torch.float64),
            )
        ]
    starts = window_starts(length, size, overlap)
    ramp = overlap * scale // 2
    rise = 0.5 - 0.5 * torch.cos(
        math.pi * (torch.arange(ramp, dtype=torch.float64) + 0.5) / max(ramp, 1)
    )
    windows = []
    for index, start in enumerate(starts):
        weights = torch.ones(size * scale, dtype=torch.float64)
        begin, end = 0, size * scale
        if index > 0:
            begin = _handover(starts[index - 1], start, size, scale, ramp) - start * scale
            weights[begin : begin + ramp] = rise
        if index + 1 < len(starts):
            end = _handover(start, starts[index + 1], size, scale, ramp) + ramp - start * scale
            weights[end - ramp : end] = 1 - rise
        windows.append(Window(start, (begin, end), start * scale + begin, weights[begin:end]))
    return windows


def _handover(start: int, following: int, size: int, scale: int, ramp: int) -> int:
    """Output pixel at which the ramp between two neighbours begins: in the middle of what they
    share."""
    return ((following + start + size) * scale - ramp) // 2


def reflect(length: int, padded: int) -> Tensor:
    """Indices that continue ``length`` pixels to ``padded`` by reflection at both ends, as often as
    it takes.

    The new pixels are split between both ends; the border pixel is not repeated. A single pixel is
    repeated.
    """
    positions = torch.arange(padded) - (padded - length) // 2
    if length == 1:
        return torch.zeros_like(positions)
    positions = positions % (2 * (length - 1))
    return torch.minimum(positions, 2 * (length - 1) - positions)


def cut_places(windows: Tensor, places: Sequence[Place]) -> list[Tensor]:
    """The output pixels at the place of each window: (N, C, h, w) -> N times (C, rows, columns)."""
    return [
        y[:, slice(*rows), slice(*columns)]
        for y, (rows, columns) in zip(windows, places, strict=True)
    ]


class WindowedUpscaler(nn.Module):
    """Runs a network for ``window`` x ``window`` pixels on images of any size.

    (B, C, H, W) -> (B, C, H * scale, W * scale) in the image's dtype, on its device. An image of
    exactly one window gets exactly the network's output.

    Args:
        network: (N, C, window, window) -> (N, C, window * scale, window * scale); holds all
            parameters. With a method ``parts(x, places)`` it is asked only for the output pixels
            that are kept: N times (C, rows, columns).
        window: side of the network's input, in pixels.
        scale: output size / input size.
        alignment: what the network's tile starts are best multiples of, for engines that tile by
            themselves.
        overlap: least overlap of neighbours, in input pixels, up to half a window; None: a quarter.
        batch: windows per forward; None: `CPU_BATCH` on a CPU, `DEVICE_BATCH` elsewhere.
        assumptions: what the loader of the network took for granted, for `arch.info`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        window: int,
        scale: int,
        alignment: int = 1,
        overlap: int | None = None,
        batch: int | None = None,
        assumptions: Sequence[str] = (),
    ) -> None:
        super().__init__()
        overlap = window // 4 if overlap is None else overlap
        if not 0 <= overlap <= window // 2:
            raise ValueError(
                f"overlap is from 0 to half of the window's {window} pixels, not {overlap}"
            )
        self.network = network
        self.window = window
        self.scale = scale
        self.alignment = alignment
        self.overlap = overlap
        self.batch = batch
        self.assumptions = tuple(assumptions)

    @property
    def tile_contract(self) -> TileContract:
        """For engines that tile by themselves: the network and the only size that it takes."""
        network = self if is_hooked(self) else self.network
        return TileContract(
            size=self.window, overlap=self.overlap, alignment=self.alignment, network=network
        )

    @property
    def exact_engine(self) -> WindowEngine:
        """The same result band by band, in bounded memory, with progress for every window.

        Raises:
            AttributeError: hooks change the result of the whole image, which bands would not pass
                through.
        """
        from .engine import WindowEngine  # it imports this file

        if is_hooked(self):
            raise AttributeError("a hooked upscaler has no exact engine; run the upscaler itself")
        return WindowEngine(self)

    def forward(self, x: Tensor) -> Tensor:
        batch = self.batch or (CPU_BATCH if x.device.type == "cpu" else DEVICE_BATCH)
        return torch.cat(list(self.bands(x, batch)), 2).to(x.dtype)

    def bands(
        self, x: Tensor, batch: int, tick: Callable[[], None] = lambda: None
    ) -> Iterator[Tensor]:
        """Finished rows of the result, from top to bottom: (B, C, h, W * scale), in at least
        float32.

        Args:
            x: (B, C, H, W).
            batch: windows per call of the network.
            tick: called for every window, after its batch.
        """
        if x.ndim != 4 or 0 in x.shape:
            raise ValueError(
                f"expected an image batch (B, C, H, W) without empty sides, found {tuple(x.shape)}"
            )
        images, channels, height, width = x.shape
        vertical, horizontal = (
            plan_axis(length, self.window, self.overlap, self.scale) for length in (height, width)
        )
        if min(height, width) < self.window:
            rows, columns = (
                reflect(length, max(length, self.window)) for length in (height, width)
            )
            x = x[:, :, rows.to(x.device)[:, None], columns.to(x.device)]
        dtype = torch.promote_types(x.dtype, torch.float32)
        places = [
            (image, column) for column in horizontal for image in range(images)
        ]  # equally kept ones together
        top, unfinished = 0, x.new_zeros(images, channels, 0, width * self.scale, dtype=dtype)
        for row, following in zip_longest(vertical, vertical[1:]):
            new = row.target + len(row.weights) - top - unfinished.shape[2]
            unfinished = F.pad(unfinished, (0, 0, 0, new))
            for first in range(0, len(places), batch):
                chosen = places[first : first + batch]
                self._add_windows(unfinished, x, row, row.target - top, chosen)
                for _ in chosen:
                    tick()
            finished = following.target - top if following else unfinished.shape[2]
            yield unfinished[:, :, :finished]
            top, unfinished = top + finished, unfinished[:, :, finished:]

    def _add_windows(
        self, rows: Tensor, x: Tensor, row: Window, top: int, places: list[tuple[int, Window]]
    ) -> None:
        """Add the weighted results of one row of windows to ``rows`` from its row ``top`` on."""
        size = self.window
        windows = [
            x[i, :, row.start : row.start + size, c.start : c.start + size] for i, c in places
        ]
        kept = [(row.kept, column.kept) for _, column in places]
        for (i, column), result in zip(places, self._parts(torch.stack(windows), kept)):
            weights = (row.weights[:, None] * column.weights).to(rows)
            bottom, right = top + len(row.weights), column.target + len(column.weights)
            rows[i, :, top:bottom, column.target : right] += result * weights

    def _parts(self, windows: Tensor, kept: Sequence[Place]) -> Sequence[Tensor]:
        """The kept output pixels of each window."""
        parts = getattr(self.network, "parts", None)
        return cut_places(self.network(windows), kept) if parts is None else parts(windows, kept)
