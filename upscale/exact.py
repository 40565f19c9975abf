"""Computes the whole-image result by networks that offer a `protocol.ExactEngine`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from .channels import ChannelPass, Mark, Tick, is_planar
from .memory import OutOfMemoryError, first_line
from .pipeline import AHEAD, Pipeline
from .protocol import ExactEngine, ExactPlan
from .recall import Shown
from .runner import Runner, all_finite, not_finite, usual_batch
from .transfer import Arrival

logger = logging.getLogger(__name__)


class Told:
    """Reports progress in steps of the first plan, so that what users see only grows.

    Later plans have other numbers of steps. It is reported after every band even if nothing is new,
    because that is when users can interrupt.

    Attributes:
        raised: what a callback of the caller raised. That ends the work, whatever it is: running
            out of memory there is not for the engine to mend.
    """

    def __init__(self, steps: int, tick: Tick) -> None:
        self.steps, self.tick = steps, tick
        self.done = 0
        self.raised: BaseException | None = None

    def rise(self, done: int, total: int) -> None:
        """So many of the present plan's steps are done."""
        done = done * self.steps // total
        step, self.done = max(done - self.done, 0), max(done, self.done)
        self.tick(step)

    def call(self, callback: Callable[[], object]) -> None:
        """Call what may call the caller's callbacks, as all calls of a `Pipeline` do."""
        try:
            callback()
        except BaseException as error:
            self.raised = error
            raise


def write_rows(rows: Arrival, into: Sequence[Tensor], top: int) -> None:
    """Write finished rows (B, h, w, C) to pictures (H, w, C) on the CPU, clamped."""
    arrived = rows.wait()
    for picture, part in zip(into, arrived):
        torch.clamp(part.float(), 0, 1, out=picture[top : top + part.shape[0]])


class ExactUpscaler:
    """Runs an exact engine on frames, by one plan for each size.

    After running out of memory the plan is replaced by a smaller one.

    Args:
        runner: has the model.
        frames: how many there are at most, so that small ones are passed to the engine together.
        work: brings the results home.
    """

    def __init__(self, runner: Runner, frames: int, work: Pipeline) -> None:
        self.runner = runner
        self.frames = frames
        self.work = work
        self._plans: dict[tuple[int, int, int], ExactPlan] = {}
        self._steps: dict[tuple[int, int], int] = {}

    def prepare(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Load the model and plan for images of each of ``sizes``.

        A first plan says how much memory the host should free beside the model. If less is free
        then, a second plan is made for what there is.
        """
        for size in sizes:
            self._steps.setdefault(size, self._new_plan((1, *size), None).steps)
            self._prepare((self.together(*size), *size))

    def _prepare(self, shape: tuple[int, int, int]) -> None:
        plan = self._new_plan(shape, None)
        self.runner.prepare_bytes(plan.memory_required + self._waiting_bytes(shape, plan))
        self._plans[shape] = self._fitting(shape, plan)

    def _fitting(self, shape: tuple[int, int, int], plan: ExactPlan) -> ExactPlan:
        """The plan, or if it does not fit in the memory that is free, another one."""
        waiting = self._waiting_bytes(shape, plan)
        available = self.runner.placement.available()
        if plan.memory_required + waiting <= available:
            return plan
        return self._new_plan(shape, available - waiting)

    def _waiting_bytes(self, shape: tuple[int, int, int], plan: ExactPlan) -> int:
        """Bytes of rows on the device that are on their way to main memory."""
        model = self.runner.original
        frames, height, width = shape
        pixels = frames * getattr(plan, "result_rows", height) * width * model.scale**2
        return AHEAD * pixels * model.output_channels * 4

    def plan_of(self, height: int, width: int) -> ExactPlan:
        """The plan for an image of this size, after `prepare`."""
        return self._plans[1, height, width]

    def together(self, height: int, width: int) -> int:
        """As many frames as are sensible at a time."""
        return min(usual_batch(self.runner.placement.device, height * width), self.frames)

    def steps(self, height: int, width: int, touched: Tensor | None) -> int:
        """Ticks of one pass over an image of this size: those of its first plan.

        What is ``touched`` makes no difference.
        """
        return self._steps[height, width]

    def _engine(self) -> ExactEngine:
        return self.runner.ready.model.exact_engine

    def _new_plan(self, shape: tuple[int, int, int], available: int | None) -> ExactPlan:
        engine: ExactEngine = self.runner.original.model.exact_engine
        dtype, device = self.runner.dtype, self.runner.placement.device
        return engine.plan(*shape, dtype=dtype, device=device, available=available)

    def run(
        self,
        planes: Tensor,
        into: Sequence[Tensor],
        one: ChannelPass,
        tick: Tick,
        touched: Tensor | None = None,
        mark: Mark | None = None,
        shown: Shown | None = None,
    ) -> None:
        """Upscale ``planes`` (B, Cin, H, W), as `channels.PlaneUpscaler` says.

        Where ``touched`` (H, W) bool is False, engines may leave zeros.
        """
        shape = len(planes), planes.shape[-2], planes.shape[-1]
        if shape not in self._plans:  # the last frames of many need less than the others
            self._plans[shape] = self._fitting(shape, self._new_plan(shape, None))
        told = Told(len(planes) * self._steps[shape[1:]], tick)
        while True:
            plan = self._plans[shape]
            try:
                if self._attempt(planes, plan, into, one, told, touched, mark):
                    return
                reason = None
            except Exception as error:
                if error is told.raised or not self.runner.placement.is_out_of_memory(error):
                    raise
                reason = first_line(error)
            # not within the except block, where the traceback still holds the tensors
            if reason is None:
                self._fall_back()
                for known in list(self._plans):
                    self._prepare(known)
            else:
                self._plans[shape] = self._smaller(plan, reason)

    def _attempt(
        self,
        planes: Tensor,
        plan: ExactPlan,
        into: Sequence[Tensor],
        one: ChannelPass,
        told: Told,
        touched: Tensor | None,
        mark: Mark | None,
    ) -> bool:
        """Run once by a plan; False if the result is not finite.

        That is asked once, at the end, because every question makes the host wait for the device.
        """
        finite: list[Tensor] = []
        copies, planar = self.runner.copies, is_planar(into[0])
        half = self.runner.dtype == torch.float16 and copies.device.type != "cpu"

        def write(top: int, rows: Tensor) -> None:
            finite.append(all_finite(rows))
            place = slice(top, top + rows.shape[2]), slice(0, rows.shape[3])
            collected = one.collect(rows, planar=planar)
            if half:  # which a network of that precision gives anyway; sums of windows are float32
                collected = collected.half()
            arrival = copies.download(collected, fresh=True)
            marked = (lambda _: mark(*place)) if mark else None
            bring = partial(write_rows, arrival, into, top)
            told.call(partial(self.work.do, bring, marked, piece=True))

        def progress(done: int, total: int) -> None:
            told.call(partial(self.work.after, partial(told.rise, done, total)))

        staged = copies.staged(planes.unbind())  # lives until the last row has been computed
        images = copies.upload(staged, planes.dtype)
        self._engine().run(images, plan, write, progress, touched)
        return bool(torch.stack(finite).all())

    def release(self) -> None:
        """Let the engine drop what it keeps on the device beside the weights.

        A host does not know of that memory and can't free it.
        """
        self._engine().release()

    def _fall_back(self) -> None:
        if self.runner.dtype == torch.float32:
            raise not_finite(self.runner.original)
        name = self.runner.original.architecture.name
        logger.warning(
            "%s made NaN or infinite values in %s; computing again in float32",
            name,
            self.runner.dtype,
        )
        self.runner.dtype = torch.float32

    def _smaller(self, plan: ExactPlan, reason: str) -> ExactPlan:
        self.runner.placement.release_cache()
        smaller = plan.smaller()
        if smaller is None:
            raise OutOfMemoryError(
                f"out of memory in exact mode with the smallest bands ({reason}); close other programs, unload other "
                "models, or use mode 'tile'"
            )
        logger.warning("out of memory (%s): going on with smaller bands", reason)
        return smaller
