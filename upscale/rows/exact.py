"""The whole-image result of a picture that is read in rows; see `upscale.exact`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...common.leftovers import clear_away
from ..channels import ChannelPass, Mark, Tick
from ..exact import ExactUpscaler, Told
from ..pipeline import Pipeline
from ..protocol import ExactPlan
from ..runner import Runner, all_finite
from ..transfer import Arrival
from .finish import Finisher
from .kept import KeptRows
from .source import Continued, PassRows


class ExactRows(ExactUpscaler):
    """Runs an exact engine whose maps live in files.

    Args:
        folder: for the files; it holds nothing else.
        disk: bytes that they may take; None: as many as they need.
        resumable: they stay after an exception, and a run goes on with those that are there.
    """

    def __init__(
        self,
        runner: Runner,
        work: Pipeline,
        folder: Path,
        disk: int | None,
        *,
        resumable: bool,
    ) -> None:
        super().__init__(runner, 1, work)
        self.folder, self.disk, self.resumable = folder, disk, resumable

    def _new_plan(self, shape: tuple[int, int, int], available: int | None) -> ExactPlan:
        engine = self.runner.original.model.exact_engine
        dtype, device = self.runner.dtype, self.runner.placement.device
        limits = {"available": available, "folder": self.folder, "disk": self.disk}
        return engine.plan(*shape, dtype=dtype, device=device, **limits)

    def stream(
        self,
        picture: Continued,
        passes: Sequence[ChannelPass],
        finisher: Finisher,
        tick: Tick,
    ) -> None:
        """Run all passes. The rows of all but the last one wait in files.

        Only a single pass goes on with the files of an earlier run.
        """
        resumable = self.resumable and len(passes) == 1
        if not resumable:
            self._clear()
        try:
            self._stream(picture, passes, finisher, tick)
        except BaseException:
            if not resumable:
                self._clear()
            raise

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            clear_away(path)

    def _stream(
        self,
        picture: Continued,
        passes: Sequence[ChannelPass],
        finisher: Finisher,
        tick: Tick,
    ) -> None:
        *earlier, last = passes
        scale = self.runner.original.scale
        size = picture.height * scale, picture.width * scale
        kept: list[tuple[ChannelPass, KeptRows]] = []
        try:
            for one in earlier:
                path = self.folder / f"pass-{len(kept)}"
                kept.append((one, KeptRows(path, *size, len(one.target))))
                self.run(PassRows(picture, one), [kept[-1][1]], one, tick)
                self.work.drain()  # before they are read
            joined = Joined(kept, last, picture.channels, finisher)
            self.run(PassRows(picture, last), [joined], last, tick)
            self.work.drain()
        finally:
            for _, rows in kept:
                rows.close()

    def _attempt(
        self,
        planes: Any,
        plan: ExactPlan,
        into: Sequence[Any],
        one: ChannelPass,
        told: Told,
        touched: Tensor | None,
        mark: Mark | None,
    ) -> bool:
        """Run once by a plan; False if the result is not finite.

        Every band is asked before it is handed on. Behind one that is not finite nothing is.
        """
        copies, finite = self.runner.copies, True

        def bring(arrival: Arrival, asked: Arrival, top: int) -> None:
            nonlocal finite
            finite = finite and bool(asked.wait())
            if finite:
                into[0].take(top, arrival.wait()[0].float().clamp(0, 1))

        def write(top: int, rows: Tensor) -> None:
            asked = copies.download(all_finite(rows), fresh=True)
            arrival = copies.download(one.collect(rows), fresh=True)
            told.call(partial(self.work.do, partial(bring, arrival, asked, top), piece=True))

        def progress(done: int, total: int) -> None:
            told.call(partial(self.work.after, partial(told.rise, done, total)))

        self._engine().run(planes, plan, write, progress, None)
        self.work.drain()
        return finite


class Joined:
    """Joins the last pass, as it comes, with the others, and hands the rows on."""

    def __init__(
        self,
        kept: list[tuple[ChannelPass, KeptRows]],
        last: ChannelPass,
        channels: int,
        finisher: Finisher,
    ) -> None:
        self.kept, self.last, self.channels, self.finisher = kept, last, channels, finisher

    def take(self, top: int, rows: Tensor) -> None:
        """Rows (h, w, channels of the last pass) from row ``top`` on."""
        if rows.shape[-1] == self.channels:
            self.finisher.take(top, rows)
            return
        whole = torch.empty(*rows.shape[:2], self.channels)
        whole[..., self.last.written] = rows
        for one, found in self.kept:
            whole[..., one.written] = found.read(top, top + len(rows))
        self.finisher.take(top, whole)
