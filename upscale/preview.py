"""Thumbnails of the frame in progress, for `protocol.Preview`.

New parts are sampled only when a thumbnail will be shown.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .protocol import Preview, Progress
from .seamless import Margins

LONGEST_SIDE = 512
SAMPLES = 2
"""Pixels along each axis that are averaged to one of the thumbnail; more would take more time."""

DARKENED = 0.4


class Growth:
    """One frame in progress.

    Args:
        canvas: (H * scale, W * scale, C), to which finished parts are written.
        frame: (H, W, C), the input, continued by ``margins`` like the canvas.
        touched: (H, W) bool, which parts will be computed; None: all.
    """

    def __init__(
        self, canvas: Tensor, frame: Tensor, margins: Margins, touched: Tensor | None
    ) -> None:
        self.canvas = canvas
        self.frame, self.margins, self.touched = frame, margins, touched
        self.scale = canvas.shape[0] // frame.shape[0]
        self._new: list[tuple[slice, slice, slice]] = []
        self._shown: Tensor | None = None

    def mark(self, rows: slice, columns: slice, channels: slice) -> None:
        """Note that these pixels of the canvas are finished, or changed again."""
        self._new.append((rows, columns, channels))

    @property
    def changed(self) -> bool:
        """Whether there is anything that `thumbnail` has not shown yet."""
        return self._shown is None or bool(self._new)

    def thumbnail(self) -> Tensor:
        """(h, w, 3) uint8: what is finished, and elsewhere the input, darkened."""
        canvas = self.margins.crop(self.canvas, self.scale)
        if self._shown is None:
            self._start(canvas)
        shown, step = self._shown, self._step
        assert shown is not None
        offsets = self.margins.rows * self.scale, self.margins.columns * self.scale
        for rows, columns, channels in self._new:
            (top, bottom), (left, right) = (
                (max(part.start - offset, 0) // step, min(-(-(part.stop - offset) // step), length))
                for part, offset, length in zip((rows, columns), offsets, shown.shape)
            )
            if top < bottom and left < right:
                sampled = _sample(
                    canvas[top * step : bottom * step, left * step : right * step, channels], step
                )
                into = shown[top:bottom, left:right, channels]
                into.copy_(torch.where(self._computed[top:bottom, left:right, None], sampled, into))
        self._new.clear()
        return _levels(shown)

    def _start(self, canvas: Tensor) -> None:
        height, width, _ = canvas.shape
        self._step = _step(height, width)
        source = self.margins.crop(self.frame)
        rows, columns = (
            torch.arange(0, side, self._step) // self.scale for side in (height, width)
        )
        self._shown = source[rows[:, None], columns].clone()
        if self.touched is None:
            self._computed = torch.ones(len(rows), len(columns), dtype=torch.bool)
        else:
            self._computed = self.margins.crop(self.touched)[rows[:, None], columns]
        self._shown[self._computed] *= DARKENED


def thumbnail(picture: Tensor) -> Tensor:
    """(h, w, 3) uint8 of a finished picture (H, W, C) in [0, 1], longest side up to 512."""
    return _levels(_sample(picture, _step(*picture.shape[:2])))


def _levels(shown: Tensor) -> Tensor:
    levels = shown[..., :3].nan_to_num().clamp(0, 1).mul(255).round().to(torch.uint8)
    return levels.expand(-1, -1, 3)


def _step(height: int, width: int) -> int:
    """How many pixels along each axis become one of the thumbnail."""
    longest = max(height, width)
    return 1 if longest <= LONGEST_SIDE else SAMPLES * -(-longest // (SAMPLES * LONGEST_SIDE))


def _sample(part: Tensor, step: int) -> Tensor:
    """(h, w, C) reduced ``step`` times: the mean of a few pixels of each ``step`` x ``step`` cell.

    Cells at the end may be incomplete.
    """
    if step == 1:
        return part
    stride = step // SAMPLES
    planes = part[::stride, ::stride].permute(2, 0, 1)[None]
    return F.avg_pool2d(planes, SAMPLES, ceil_mode=True)[0].permute(1, 2, 0)


class Monitor:
    """Reports the progress of the work to `Progress` and `Preview`.

    Attributes:
        total: the steps that there will be.

    Raises:
        ValueError: ``progress`` can't be called, or ``preview`` is none.
    """

    def __init__(self, progress: Progress | None, preview: Preview | None) -> None:
        if progress is not None and not callable(progress):
            raise ValueError(
                f"progress is a {type(progress).__name__}; a function of (done, total) was expected"
            )
        methods = (getattr(preview, name, None) for name in ("due", "show"))
        if preview is not None and not all(map(callable, methods)):
            raise ValueError(
                f"preview is a {type(preview).__name__}; an object with the methods due and show was expected"
            )
        self.progress, self.preview = progress, preview
        self.done = self.total = 0

    def tick(self, steps: int, growth: Growth | None = None) -> None:
        """Report that ``steps`` more steps are done, and show a thumbnail if one is due.

        The last one is shown in any case: a part that was still dark would stay so.
        """
        self.done += steps
        if self.progress:
            self.progress(self.done, self.total)
        if not (self.preview and growth and growth.changed):
            return
        if self.done >= self.total or self.preview.due():
            self.preview.show(growth.thumbnail(), self.done, self.total)
