"""The full-size feature maps: on the run's device, or streamed to it from host memory or a file."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from ....common.leftovers import clear_away


class RoomOutside:
    """Memory for rows that can't be computed in place in their map.

    The last row of a band stays unfinished until the next band; it is kept here between the two.
    """

    def __init__(self, width: int, dim: int, device: torch.device) -> None:
        self.width, self.dim, self.device = width, dim, device
        self.rows: Tensor | None = None
        self.unfinished: Tensor | None = None

    def begin(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Memory (1 + stop - start, W, C): the row that `end` kept, then rows [start, stop).

        At the top of the image there is no kept row, and the memory is one row less.
        """
        above = int(start > 0)
        self.rows = torch.empty(
            above + stop - start, self.width, self.dim, dtype=dtype, device=self.device
        )
        if start > 0 and self.unfinished is not None:
            self.rows[0] = self.unfinished
        return self.rows

    def end(self) -> None:
        """Keep the last row, which is not finished, and free the others."""
        if self.rows is not None:
            self.unfinished, self.rows = self.rows[-1].clone(), None


class FeatureMap:
    """A feature map (H, W, C) in the memory of the device that computes."""

    def __init__(
        self, height: int, width: int, dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.shape, self.dtype = (height, width, dim), dtype
        self.tensor = torch.empty(self.shape, dtype=dtype, device=device)
        self.room_outside = RoomOutside(width, dim, device)

    def seen_as(self, dtype: torch.dtype) -> FeatureMap:
        """The same memory with values of another type of the same size.

        So a map can be read in one type while rows that have been read are written in the other.
        """
        seen = copy.copy(self)
        seen.dtype, seen.tensor = dtype, self.tensor.view(dtype)
        return seen

    def read(self, ranges: Iterable[tuple[int, int]], dtype: torch.dtype) -> Iterator[Tensor]:
        """Yield rows [start, stop) of each range: (stop - start, W, C) in ``dtype``, read-only."""
        for start, stop in ranges:
            yield self.tensor[start:stop].to(dtype)

    def room(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Memory in which to compute rows [start, stop) in ``dtype``; finished ones go to `write`.

        Returns:
            (1 + stop - start, W, C): the row above, as the band before left it, and the rows. At
            the top of the image there is no row above. A view of the map if that has ``dtype``.
        """
        if dtype != self.dtype:
            return self.room_outside.begin(start, stop, dtype)
        return self.tensor[max(0, start - 1) : stop]

    def write(self, start: int, rows: Tensor) -> None:
        """Store rows (h, W, C) from row ``start`` on.

        Rows that `read` has yet to yield may be written to; those that it yields now may not.
        """
        target = self.tensor[start : start + rows.shape[0]]
        if target.data_ptr() != rows.data_ptr():
            target.copy_(rows)
            self.room_outside.end()


class HostMap:
    """A feature map in host memory (pinned for CUDA) that is streamed to ``device``.

    The next band is copied to the device while the device computes with this one. All copies go
    through one stream, so a read sees the writes before it, and the host never waits.
    """

    def __init__(
        self, height: int, width: int, dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        cuda = device.type == "cuda"
        self.shape, self.dtype = (height, width, dim), dtype
        self.tensor = torch.empty(self.shape, dtype=dtype, pin_memory=cuda)
        self.device = device
        self.room_outside = RoomOutside(width, dim, device)
        self.stream = torch.cuda.Stream(device) if cuda else None

    def seen_as(self, dtype: torch.dtype) -> HostMap:
        """As `FeatureMap.seen_as`."""
        seen = copy.copy(self)
        seen.dtype, seen.tensor = dtype, self.tensor.view(dtype)
        return seen

    def read(self, ranges: Iterable[tuple[int, int]], dtype: torch.dtype) -> Iterator[Tensor]:
        """As `FeatureMap.read`, but the next range is fetched ahead.

        So that range must not be written to before it is yielded.
        """
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
        rows = rows.to(self.dtype)
        if self.stream is None:
            target.copy_(rows)
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            target.copy_(rows, non_blocking=True)
        rows.record_stream(self.stream)


class FileMap:
    """A feature map in a file, for pictures that are larger than memory.

    It is read and written by calls, not mapped into memory: so a full disk is an error that can be
    told, and the process does not seem to hold what the system may drop at any time.

    Args:
        path: the file. What is there of an earlier run is kept.

    Raises OSError, also from `read` and `write`, as where the disk is full.
    """

    def __init__(
        self,
        height: int,
        width: int,
        dim: int,
        dtype: torch.dtype,
        device: torch.device,
        path: Path,
    ) -> None:
        self.shape, self.dtype, self.device, self.path = (height, width, dim), dtype, device, path
        self.room_outside = RoomOutside(width, dim, device)
        self.row_bytes = width * dim * torch.empty((), dtype=dtype).element_size()
        self._file = path.open("r+b" if path.exists() else "x+b", buffering=0)
        self._file.truncate(height * self.row_bytes)

    def seen_as(self, dtype: torch.dtype) -> FileMap:
        """As `FeatureMap.seen_as`."""
        seen = copy.copy(self)
        seen.dtype = dtype
        return seen

    def read(self, ranges: Iterable[tuple[int, int]], dtype: torch.dtype) -> Iterator[Tensor]:
        """As `FeatureMap.read`."""
        for start, stop in ranges:
            rows = torch.empty(stop - start, *self.shape[1:], dtype=self.dtype)
            room = memoryview(rows.view(torch.uint8).numpy()).cast("B")
            self._file.seek(start * self.row_bytes)
            while room:
                count = self._file.readinto(room)
                if not count:
                    raise OSError(f"{self.path} has been cut off by another program")
                room = room[count:]
            yield rows.to(self.device, dtype)

    def room(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """As `HostMap.room`."""
        return self.room_outside.begin(start, stop, dtype)

    def write(self, start: int, rows: Tensor) -> None:
        """As `FeatureMap.write`."""
        self.room_outside.end()
        stored = rows.to("cpu", self.dtype).contiguous()
        left = memoryview(stored.view(torch.uint8).numpy()).cast("B")
        self._file.seek(start * self.row_bytes)
        while left:
            left = left[self._file.write(left) :]

    def close(self) -> None:
        """Close the file, which stays."""
        self._file.close()

    def remove(self) -> None:
        """Close the file and remove it."""
        self.close()
        clear_away(self.path)


AnyMap = FeatureMap | HostMap | FileMap
