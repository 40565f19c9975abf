"""Computes the whole-image result by networks that offer a `protocol.ExactEngine`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .channels import ChannelPass, Mark
from .memory import OutOfMemoryError, first_line
from .pipeline import HostWork
from .protocol import ExactEngine, ExactPlan
from .runner import Runner, all_finite, not_finite

logger = logging.getLogger(__name__)


def bring_home(rows: Tensor, one: ChannelPass, into: Tensor) -> None:
    """Write finished rows (Cout, h, w), on any device, to ``into`` (h, w, C) on the CPU, clamped."""
    part = one.collect(rows.to("cpu").float())
    torch.clamp(part.permute(1, 2, 0), 0, 1, out=into)


class ExactUpscaler:
    """Runs an exact engine on planes, by one plan for each size.

    After running out of memory the plan is replaced by a smaller one.
    """

    def __init__(self, runner: Runner, tick: Callable[[int], None], work: HostWork) -> None:
        self.runner = runner
        self.work = work
        self.tick = tick
        self._plans: dict[tuple[int, int], ExactPlan] = {}
        self._steps: dict[tuple[int, int], int] = {}

    def prepare(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Load the model and plan for images of each of ``sizes``.

        A first plan says how much memory the host should free beside the model. If less is free
        then, a second plan is made for what there is.
        """
        for size in sizes:
            plan = self._new_plan(*size, None)
            self.runner.prepare_bytes(plan.memory_required)
            available = self.runner.placement.available()
            if plan.memory_required > available:
                plan = self._new_plan(*size, available)
            self._plans[size] = plan
            self._steps.setdefault(size, plan.steps)

    def steps(self, height: int, width: int, touched: Tensor | None) -> int:
        """Ticks of one pass over an image of this size: those of its first plan.

        What is ``touched`` makes no difference.
        """
        return self._steps[height, width]

    def _engine(self) -> ExactEngine:
        return self.runner.ready.model.exact_engine

    def _new_plan(self, height: int, width: int, available: int | None) -> ExactPlan:
        engine: ExactEngine = self.runner.original.model.exact_engine
        dtype, device = self.runner.dtype, self.runner.placement.device
        return engine.plan(1, height, width, dtype=dtype, device=device, available=available)

    def run(
        self,
        plane: Tensor,
        into: Tensor,
        one: ChannelPass,
        touched: Tensor | None = None,
        mark: Mark | None = None,
    ) -> None:
        """Upscale ``plane`` (Cin, H, W) into ``into`` (H * scale, W * scale, channels of the pass).

        Where ``touched`` (H, W) bool is False, engines may leave zeros.
        """
        size = plane.shape[-2], plane.shape[-1]
        self._told = 0
        self._raised: BaseException | None = None
        while True:
            plan = self._plans[size]
            try:
                if self._attempt(plane, plan, into, one, touched, mark):
                    return
                reason = None
            except Exception as error:
                if error is self._raised or not self.runner.placement.is_out_of_memory(error):
                    raise
                reason = first_line(error)
            # not within the except block, where the traceback still holds the tensors
            if reason is None:
                self._fall_back()
                self.prepare(list(self._plans))
            else:
                self._plans[size] = self._smaller(plan, reason)

    def _attempt(
        self,
        plane: Tensor,
        plan: ExactPlan,
        into: Tensor,
        one: ChannelPass,
        touched: Tensor | None,
        mark: Mark | None,
    ) -> bool:
        """Run once by a plan; False if the result is not finite."""
        finite: list[Tensor] = []
        steps = self._steps[plane.shape[-2], plane.shape[-1]]

        def write(top: int, rows: Tensor) -> None:
            finite.append(all_finite(rows))
            place = slice(top, top + rows.shape[2]), slice(0, into.shape[1])
            marked = (lambda _: self._call(mark, *place)) if mark else None
            self.work.do(partial(bring_home, rows[0], one, into[place]), marked, piece=True)

        self._engine().run(
            plane[None],
            plan,
            write,
            lambda done, total: self._tell(done * steps // total),
            touched,
        )
        return all(bool(flag) for flag in finite)

    def _tell(self, done: int) -> None:
        """Report progress in steps of the first plan, so that what users see only grows.

        Later plans have other numbers of steps. It is reported after every band even if nothing is
        new, because that is when users can interrupt.
        """
        step, self._told = max(done - self._told, 0), max(done, self._told)
        self._call(self.tick, step)

    def _call(self, callback: Callable[..., None], *values: Any) -> None:
        """Call what the caller has given; what it raises ends the work, whatever it is."""
        try:
            callback(*values)
        except BaseException as error:
            self._raised = error
            raise

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
