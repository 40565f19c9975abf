"""From the model's rows to the rows of the result, as `frame.FrameUpscaler` does it for frames."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..channels import unpremultiply_
from ..resize import enlarged_rows
from .source import Continued

BAND = 64
"""Rows that are enlarged at a time, as `resize.enlarged_bands` has it."""

PART = 64
"""Rows of the result that are handed on at a time."""

Sink = Callable[[int, Tensor], None]
"""``sink(top, rows)`` gets finished rows (h, W * scale, C) float32 in [0, 1], in order and without a
gap, in a thread of their own. They are valid during the call."""


class Finisher:
    """Takes the model's rows of a continued picture, and hands on those of the result.

    Args:
        picture: the input, continued; ``picture.premultiplied`` says whether the model computes
            alpha, too.
        scale: of the model.
        sink: gets the rows.
        first: the row of the result with which to begin; those above have been written already.
    """

    def __init__(self, picture: Continued, scale: int, sink: Sink, first: int = 0) -> None:
        self.picture, self.scale, self.sink = picture, scale, sink
        self.margin = picture.margins.rows * scale
        self.end = picture.source.height * scale
        self.done = first
        self._enlarged: tuple[int, Tensor] | None = None

    def take(self, top: int, rows: Tensor) -> None:
        """Rows (h, W * scale, C) of the continued picture, clamped, from its row ``top`` on.

        Rows that were there before are passed over, so that a run which begins again does not
        deliver them twice.
        """
        begin, end = top - self.margin, min(top - self.margin + len(rows), self.end)
        start = max(begin, self.done)
        if start >= end:
            return
        if start > self.done:
            raise RuntimeError(f"rows {self.done} to {start} are missing; please report this")
        left = self.picture.margins.columns * self.scale
        rows = rows[start - begin : end - begin]
        for part in rows[:, left : rows.shape[1] - left].split(PART):
            if self.picture.channels == 4:
                part = part.clone()
                self._finish_alpha_(part, self.done + self.margin)
            self.sink(self.done, part)
            self.done += len(part)

    def _finish_alpha_(self, rows: Tensor, top: int) -> None:
        if self.picture.premultiplied:
            unpremultiply_(rows)
        elif self.picture.source.opaque:
            rows[..., 3] = 1
        else:
            left = self.picture.margins.columns * self.scale
            rows[..., 3] = self._alpha(top, top + len(rows))[:, left : left + rows.shape[1]]

    def _alpha(self, top: int, bottom: int) -> Tensor:
        """Rows [top, bottom) of the resampled alpha (h, W * scale)."""
        step, parts = BAND * self.scale, []
        for band in range(top // step, -(-bottom // step)):
            if self._enlarged is None or self._enlarged[0] != band:
                self._enlarged = band, self._enlarge(band)
            first = band * step
            parts.append(self._enlarged[1][max(top - first, 0) : bottom - first])
        return torch.cat(parts)

    def _enlarge(self, band: int) -> Tensor:
        picture = self.picture

        def alpha(top: int, bottom: int) -> Tensor:
            return picture.read(top, bottom, 0, picture.width)[..., 3:].permute(2, 0, 1)

        top = band * BAND
        bottom = min(top + BAND, picture.height)
        return enlarged_rows(alpha, picture.height, top, bottom, self.scale)[..., 0].clamp(0, 1)
