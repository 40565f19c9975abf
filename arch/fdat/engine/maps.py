"""The full-size feature maps: on the run's device, or in host memory and streamed to it band by
band."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


class RoomOutside:
    """Memory for rows that are computed elsewhere than in their map, and for the unfinished row
    before them."""

    def __init__(self, width: int, dim: int, device: torch.device) -> None:
        self.width, self.dim, self.device = width, dim, device
        self.rows: Tensor | None = None
        self.unfinished: Tensor | None = None

    def begin(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Room for rows [start, stop) behind the one that `end` kept (none at the top): (1 + stop -
        start, W, C)."""
        above = int(start > 0)
        self.rows = torch.empty(
            above + stop - start, self.width, self.dim, dtype=dtype, device=self.device
        )
        if start > 0 and self.unfinished is not None:
            self.rows[0] = self.unfinished
        return self.rows

    def end(self) -> None:
        """Keep the last row, which is not finished, and let go of the rest."""
        if self.rows is not None:
            self.unfinished, self.rows = self.rows[-1].clone(), None


class FeatureMap:
    """A map (H, W, C) that lives where the run computes."""

    def __init__(
        self, height: int, width: int, dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.tensor = torch.empty(height, width, dim, dtype=dtype, device=device)
        self.room_outside = RoomOutside(width, dim, device)

    def read(self, ranges: Iterable[tuple[int, int]], dtype: torch.dtype) -> Iterator[Tensor]:
        """Rows [start, stop) of each range in turn, (stop - start, W, C) in ``dtype``; not to be
        written to."""
        for start, stop in ranges:
            yield self.tensor[start:stop].to(dtype)

    def room(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Where to compute rows [start, stop) in ``dtype``; finished ones are then given to
        `write`.

        Returns:
            The row before them as it was left (none at the top) and they: (1 + stop - start, W, C).
            It is the map itself where that is in ``dtype``.
        """
        if dtype != self.tensor.dtype:
            return self.room_outside.begin(start, stop, dtype)
        return self.tensor[max(0, start - 1) : stop]

    def write(self, start: int, rows: Tensor) -> None:
        """Store rows (h, W, C). A range that is read later may be written to, one being read may
        not."""
        target = self.tensor[start : start + rows.shape[0]]
        if target.data_ptr() != rows.data_ptr():
            target.copy_(rows)
            self.room_outside.end()


class HostMap:
    """A map in host memory (pinned for CUDA) that is streamed to ``device``.

    One band is on its way to the device while the one before it is computed with. All copies go
    through one stream, so a read after a write sees it, and the host never waits.
    """

    def __init__(
        self, height: int, width: int, dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        cuda = device.type == "cuda"
        self.tensor = torch.empty(height, width, dim, dtype=dtype, pin_memory=cuda)
        self.device = device
        self.room_outside = RoomOutside(width, dim, device)
        self.stream = torch.cuda.Stream(device) if cuda else None

    def read(self, ranges: Iterable[tuple[int, int]], dtype: torch.dtype) -> Iterator[Tensor]:
        """As `FeatureMap.read`; the next range is fetched ahead, so it must not be written to
        before it is yielded."""
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

    def room(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """As `FeatureMap.room`, but never the map itself."""
        return self.room_outside.begin(start, stop, dtype)

    def write(self, start: int, rows: Tensor) -> None:
        """As `FeatureMap.write`."""
        self.room_outside.end()
        target = self.tensor[start : start + rows.shape[0]]
        rows = rows.to(self.tensor.dtype)
        if self.stream is None:
            target.copy_(rows)
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            target.copy_(rows, non_blocking=True)
        rows.record_stream(self.stream)
