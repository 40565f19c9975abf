"""Kernel or twin: what computes an operator on a device, found out at its first use there.

A kernel has to be right and quicker, on the chip that is there and on a band of the picture that
is computed. At its first use for a device, a precision and a shape of weights, some rows go
through the twin in a higher precision, through the twin, and through the kernel in each of its
ways (tiles, warps). A way whose error is above that of the twin's own rounding is dropped, with a
warning where none is left; of those left and the twin the one that is quickest on the whole band
stays for the rest of the process. A kernel that
does not compile or launch, then or later, is replaced by its twin with a warning.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from . import candidates, launch
from .sizes import ROWS

logger = logging.getLogger(__name__)

CHECKED_TOKENS = 2**14
"""Tokens on which kernels are checked, as far as one row of windows has fewer."""

WORSE = 3.0
"""How many times the twin's error a kernel's may be: sums in another order round differently."""

FLOOR = {torch.float32: 3e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""Errors below this share of the deviation of the result are those of rounding, whatever the
twin's."""

TIMED_RUNS = 3


@dataclass(frozen=True)
class Form:
    """What the arguments of an operator are.

    Attributes:
        output: whether the second one is written: rows of an image like the first one.
        gathers: whether the second one gathers sums, of which a kernel has several parts.
        halo: where the number of rows above stands, and behind it that of those below.
        rows: whether the first one are rows of an image.
    """

    output: bool = False
    gathers: bool = False
    halo: int | None = None
    rows: bool = True


FORMS = {
    **dict.fromkeys(("window_half", "channel_half", "feed_forward"), Form(output=True, halo=2)),
    "convolve": Form(output=True, halo=2),
    "gate_sum": Form(gathers=True, halo=3),
    "gram": Form(gathers=True),
    "fold_gate": Form(rows=False),
    "fold_channel": Form(rows=False),
    "corners": Form(halo=1),
}

Way = Callable[..., Any]
_chosen: dict[tuple[object, ...], Way] = {}
_lock = threading.Lock()


def compute(twin: Way, arguments: tuple[Any, ...]) -> Any:
    """Compute an operator, which ``twin`` defines, by what is chosen for the tensors' device."""
    x = arguments[0]
    if not launch.is_possible(x.device, x.dtype):
        _say_once(x.device.type)
        return twin(*arguments)
    key = _key(twin, arguments)
    way = _chosen.get(key)
    if way is None:
        with _lock:
            way = _chosen.get(key) or _choose(twin, arguments)
            _chosen[key] = way
    if way is twin:
        return twin(*arguments)
    try:
        return way(x.contiguous(), *arguments[1:])
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        _chosen[key] = twin
        _report(twin, x, f"failed ({_first_line(error)})")
        return twin(*arguments)


def forget() -> None:
    """Drop all choices: the next use of every operator checks its kernel again."""
    _chosen.clear()


def _key(twin: Way, arguments: tuple[Any, ...]) -> tuple[object, ...]:
    """Device, precisions, shapes of weights: what a kernel is compiled for."""
    name, x = twin.__name__, arguments[0]
    tensors = [a for a in arguments if isinstance(a, Tensor)]
    dtypes = (tensor.dtype for tensor in tensors)
    # of images only the width in channels matters, of weights the shape
    shapes = (tensor.shape[-1:] if tensor.ndim == x.ndim else tensor.shape for tensor in tensors)
    how = arguments[-3:] if name == "convolve" else ()
    return name, x.device, *how, *dtypes, *map(tuple, shapes)


def _choose(twin: Way, arguments: tuple[Any, ...]) -> Way:
    x, *rest = arguments
    ways = candidates.ways_of(twin.__name__, *arguments)
    if not ways:
        return twin
    arguments = (x.contiguous(), *rest)
    right = _right_ways(twin, ways, _few_rows(twin, arguments))
    if not right or x.device.type != "cuda":  # elsewhere kernels run in Triton's interpreter
        return right[0] if right else twin
    # with few rows every way but the twin's many launches would look quick, so it is the whole band
    arguments = _with_new_output(twin, arguments)
    times = {way: _milliseconds(way, arguments) for way in (*right, twin)}
    best = min(times, key=times.__getitem__)
    logger.debug(
        "FDAT %s on %s in %s, width %d: kernel %s ms, twin %.3f ms; the %s is used",
        twin.__name__,
        x.device,
        x.dtype,
        x.shape[-1],
        ", ".join(f"{times[way]:.3f}" for way in right),
        times[twin],
        "twin" if best is twin else "kernel",
    )
    return best


def _right_ways(twin: Way, ways: Sequence[Way], few: tuple[Any, ...]) -> list[Way]:
    """The ways that launch and whose error is that of rounding."""
    x = few[0]
    higher = torch.float64 if x.dtype == torch.float32 else torch.float32
    exact = _result(twin, _converted(few, higher)).double()
    span = float((exact - exact.mean()).square().mean().sqrt())
    own = _result(twin, few)
    # sums are in float32, but a kernel rounds the inputs of their products, whose errors cancel out
    floor = max(FLOOR[own.dtype], FLOOR[x.dtype] / 10)
    allowed = max(WORSE * _error(own, exact), floor * span)
    right, reason = [], ""
    for way in ways:
        try:
            error = _error(_result(twin, few, way), exact)
        except torch.OutOfMemoryError:
            raise
        except Exception as problem:
            reason = reason or f"failed ({_first_line(problem)})"
            continue
        if error <= allowed:
            right.append(way)
        else:
            reason = f"is wrong (error {error:.2g}, at most {allowed:.2g} expected)"
    if reason and not right:
        _report(twin, x, reason)
    return right


def _with_new_output(twin: Way, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with new memory to write to, so that nothing is written to maps and sums."""
    form = FORMS[twin.__name__]
    if not (form.output or form.gathers):
        return arguments
    x, out, *rest = arguments
    if form.output:
        return x, torch.full_like(out, float("nan")), *rest  # what is not written shows
    rest = [a.clone() if isinstance(a, Tensor) else a for a in rest]  # a pilot is written, too
    return x, torch.zeros_like(out), *rest


def _result(twin: Way, few: tuple[Any, ...], way: Way | None = None) -> Tensor:
    """What an operator gives, by ``way`` or by its twin."""
    form, few = FORMS[twin.__name__], _with_new_output(twin, few)
    result = (way or twin)(*few)
    if not form.gathers:
        return few[1] if form.output else result
    sums, pilot = few[1].sum(0), few[2]
    if not isinstance(pilot, Tensor):
        return sums
    # of a uniform picture nothing is left beside the pilot but rounding: so together with it
    total, tokens = sums[-1], few[0].shape[0] * few[0].shape[1]
    cross = torch.outer(pilot, total)
    whole = sums[:-1] + cross + cross.T + tokens * torch.outer(pilot, pilot)
    return torch.cat([whole, (total + tokens * pilot)[None]])


def _error(result: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference; infinite where the result is not finite."""
    error = float((result.double() - exact).square().mean().sqrt())
    return error if error == error else float("inf")


def _few_rows(twin: Way, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments for the first rows only; the rows behind them become the halo below."""
    form, x = FORMS[twin.__name__], arguments[0]
    if not form.rows:
        return arguments
    rows = max(1, CHECKED_TOKENS // x.shape[1] // ROWS) * ROWS
    if x.shape[0] <= rows + 2:
        return arguments
    if form.halo is None:
        return x[:rows], *arguments[1:]
    above, below = arguments[form.halo : form.halo + 2]
    few = list(arguments)
    few[0], few[form.halo + 1] = x[: above + rows + 1], 1
    if form.output:  # and what is added to it
        out = arguments[1]
        factor = out.shape[0] // (x.shape[0] - above - below)
        few[1:] = [
            a[: rows * factor] if isinstance(a, Tensor) and a.shape == out.shape else a
            for a in few[1:]
        ]
    return tuple(few)


def _converted(arguments: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """The arguments with all tensors in another precision, and results, too."""
    return tuple(
        a.to(dtype) if isinstance(a, Tensor) else dtype if isinstance(a, torch.dtype) else a
        for a in arguments
    )


def _milliseconds(way: Way, arguments: tuple[Any, ...]) -> float:
    """The least time of some runs on the device; all kernels have run once before."""
    device, times = arguments[0].device, []
    for _ in range(TIMED_RUNS):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.device(device):
            start.record()
            way(*arguments)
            stop.record()
            stop.synchronize()
        times.append(start.elapsed_time(stop))
    return min(times)


def _report(twin: Way, x: Tensor, reason: str) -> None:
    logger.warning(
        "FDAT's kernel %s %s on %s in %s; plain PyTorch takes its place",
        twin.__name__,
        reason,
        x.device,
        x.dtype,
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@cache
def _say_once(device_type: str) -> None:
    """One line in the log where kernels could be used but Triton is not there."""
    if device_type == "cuda" and not launch.has_triton():
        logger.info(
            "FDAT runs in plain PyTorch: Triton 3.3 or newer is not installed (README: When something goes wrong)"
        )
