"""The full-size feature maps: on the run's device, or in host memory and streamed to it band by band."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


class RoomOutside:
    """Memory for the rows that are about to be written to a map, with the two rows that were written before them."""

    def __init__(self, width: int, dim: int, device: torch.device) -> None:
        self.width, self.dim, self.device = width, dim, device
        self.kept: Tensor | None = None

    def begin(self, start: int, height: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if start == 0:
            self.kept = None
        above = 0 if self.kept is None else self.kept.shape[0]
        both = torch.empty(above + height, self.width, self.dim, dtype=dtype, device=self.device)
        if self.kept is not None:
            both[:above] = self.kept
        return both, both[above:]

    def end(self, rows: Tensor) -> None:
        self.kept = rows[-2:].clone()


class FeatureMap:
    """A map (H, W, C) that lives where the run computes."""

    def __init__(self, height: int, width: int, dim: int, dtype: torch.dtype, device: torch.device) -> None:
        self.tensor = torch.empty(height, width, dim, dtype=dtype, device=device)
        self.room_outside = RoomOutside(width, dim, device)

    def read(self, ranges: Iterable[tuple[int, int]], dtype: torch.dtype) -> Iterator[Tensor]:
        """Rows [start, stop) of each range in turn, (stop - start, W, C) in ``dtype``; not to be written to."""
        for start, stop in ranges:
            yield self.tensor[start:stop].to(dtype)

    def room(self, start: int, height: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Where to compute rows [start, start + height), which are then given to `write`, in ``dtype``.

        Returns:
            The two rows written before (none at the top) and the rows themselves (h + 2, W, C); a view of the latter,
            (h, W, C). Both are the map itself where it is in ``dtype``.
        """
        if dtype != self.tensor.dtype:
            return self.room_outside.begin(start, height, dtype)
        above = max(0, start - 2)
        both = self.tensor[above : start + height]
        return both, both[start - above :]

    def write(self, start: int, rows: Tensor) -> None:
        """Store rows (h, W, C). A range that is read later may be written to, one being read may not."""
        target = self.tensor[start : start + rows.shape[0]]
        if target.data_ptr() != rows.data_ptr():
            target.copy_(rows)
            self.room_outside.end(rows)


class HostMap:
    """A map in host memory (pinned for CUDA) that is streamed to ``device``.

    One band is on its way to the device while the one before it is computed with. All copies go through one stream,
    so a read after a write sees it, and the host never waits.
    """

    def __init__(self, height: int, width: int, dim: int, dtype: torch.dtype, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self.tensor = torch.empty(height, width, dim, dtype=dtype, pin_memory=cuda)
        self.device = device
        self.room_outside = RoomOutside(width, dim, device)
        self.stream = torch.cuda.Stream(device) if cuda else None

    def read(self, ranges: Iterable[tuple[int, int]], dtype: torch.dtype) -> Iterator[Tensor]:
        """As `FeatureMap.read`; the next range is fetched ahead, so it must not be written to before it is yielded."""
        ready = None
        for start, stop in ranges:
            fetched = self._fetch(start, stop)
            if ready is not None:
                yield self._arrived(*ready).to(dtype)
            ready = fetched
        if ready is not None:
            yield self._arrived(*ready).to(dtype)

    def _fetch(self, start: int, stop: int) -> tuple[Tensor, torch.cuda.Event | None]:
        if self.stream is None:
            return self.tensor[start:stop].to(self.device, copy=True), None
        with torch.cuda.stream(self.stream):
            rows = self.tensor[start:stop].to(self.device, non_blocking=True)
            event = torch.cuda.Event()
            event.record(self.stream)
            return rows, event

    def _arrived(self, rows: Tensor, event: torch.cuda.Event | None) -> Tensor:
        if event is not None:
            compute = torch.cuda.current_stream(self.device)
            compute.wait_event(event)
            rows.record_stream(compute)
        return rows

    def room(self, start: int, height: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """As `FeatureMap.room`, but never the map itself."""
        return self.room_outside.begin(start, height, dtype)

    def write(self, start: int, rows: Tensor) -> None:
        """As `FeatureMap.write`."""
        self.room_outside.end(rows)
        target = self.tensor[start : start + rows.shape[0]]
        rows = rows.to(self.tensor.dtype)
        if self.stream is None:
            target.copy_(rows)
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            target.copy_(rows, non_blocking=True)
        rows.record_stream(self.stream)
