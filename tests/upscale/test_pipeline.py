"""Work beside the network: in order, bounded, with the caller's part in the caller's thread."""

from __future__ import annotations

import gc
import random
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from spandrel import ImageModelDescriptor

from fdat_dense_iso.upscale import upscale_image
from fdat_dense_iso.upscale.pipeline import AHEAD, Pipeline
from tests.helpers.fake_models import Nearest, descriptor, enlarged, picture


def test_order_and_threads() -> None:
    done, told, here = [], [], threading.get_ident()
    with Pipeline() as work:
        for number in range(20):
            work.do(
                lambda n=number: done.append((n, threading.get_ident())) or n,
                lambda n: told.append((n, threading.get_ident())),
            )
        work.do(lambda: done.append((20, 0)))
        while len(done) < 21:  # what is waited for at the end may be done by the caller
            time.sleep(0.01)
    assert [n for n, _ in done] == list(range(21))
    assert told == [(n, here) for n in range(20)]
    assert here not in {thread for _, thread in done}
    assert not [t for t in threading.enumerate() if t.name.startswith("upscale-")]


def test_few_pieces_wait() -> None:
    gate, started, handed = threading.Event(), [], []

    def hand_over() -> None:
        with Pipeline() as work:
            for number in range(6):
                work.do(lambda n=number: (started.append(n), gate.wait()), piece=True)
                handed.append(number)

    thread = threading.Thread(target=hand_over)
    thread.start()
    thread.join(0.3)
    waiting = len(handed), list(started)
    gate.set()
    thread.join()
    assert waiting == (AHEAD, [0])
    assert started == list(range(6))


def test_what_is_prepared_ahead_is_made_one_after_the_other() -> None:
    """Also the first, though it is made in another thread: frames share what they know."""
    working = threading.Lock()

    def make(number: int) -> int:
        assert working.acquire(blocking=False), "two at a time"
        time.sleep(0.01)
        working.release()
        return number

    with Pipeline() as work:
        calls = (partial(make, number) for number in range(6))
        assert list(work.ahead(calls)) == list(range(6))


def test_modes_of_the_caller() -> None:
    seen = []
    torch.set_default_device("meta")
    try:
        with torch.inference_mode(), Pipeline() as work:
            work.do(lambda: seen.append((torch.is_inference_mode_enabled(), torch.empty(1).device)))
    finally:
        torch.set_default_device(None)
    assert seen == [(True, torch.device("cpu"))]


@pytest.mark.parametrize("where", ["task", "then", "caller"])
def test_an_exception_surfaces_once_and_ends_the_work(where: str) -> None:
    done = []

    def fail(*_: object) -> None:
        raise KeyError(where)

    with pytest.raises(KeyError, match=where) as caught, Pipeline() as work:
        task = fail if where == "task" else lambda: done.append(0)
        work.do(task, fail if where == "then" else None, piece=True)
        if where == "caller":
            fail()
        for number in range(1, 9):
            work.do(lambda n=number: done.append(n), piece=True)
    assert len(done) <= 1 + AHEAD
    assert any(entry.name == "fail" for entry in caught.traceback)
    assert not [t for t in threading.enumerate() if t.name.startswith("upscale-")]


class Trouble(Exception):
    pass


def state(model: ImageModelDescriptor) -> dict[str, object]:
    """What a run may not change: the descriptor, its module, and what belongs to the process."""
    module, files = model.model, Path("/proc/self/fd")
    return {
        "descriptor": {k: v for k, v in vars(model).items() if k != "model"},
        "module": {k: v for k, v in vars(module).items() if k not in ("before", "shapes")},
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()],
        "training": [m.training for m in module.modules()],
        "tensors": [(t.data_ptr(), t.dtype, t.requires_grad) for t in module.parameters()],
        "values": {k: v.tolist() for k, v in module.state_dict().items()},
        "threads": threading.active_count(),
        "files": len(list(files.iterdir())) if files.exists() else 0,
        "settings": (torch.get_num_threads(), torch.is_inference_mode_enabled()),
        "default": (torch.get_default_dtype(), torch.empty(0).device),
    }


def test_random_runs_end_and_leave_nothing() -> None:
    """Interrupts and faults at random places of random runs, each followed by a run that succeeds."""
    rng = random.Random(7)
    model = descriptor(Nearest(2), 2)
    network, before = model.model, state(model)
    held = []
    for run in range(200):
        frames, channels = rng.choice([1, 3]), rng.choice([1, 3, 4])
        image = picture(rng.randint(1, 60), rng.randint(1, 60), channels, frames)
        options = {
            "mode": rng.choice(["tile", "whole"]),
            "tile": rng.choice([16, 24]),
            "batch": rng.choice([1, 3]),
            "ensemble": rng.choice([1, 8]),
            "seamless": rng.choice(["none", "both"]),
        }
        if rng.random() < 0.3:
            options["mask"] = (torch.rand(1, *image.shape[1:3]) > 0.7).float()
        at, calls = rng.randint(1, 6), []

        def trouble(*_: object, at: int = at, calls: list = calls) -> None:
            calls.append(1)
            if len(calls) == at:
                raise Trouble

        try:
            if rng.random() < 0.5:
                network.before = trouble
                upscale_image(model, image, device="cpu", **options)
            else:
                upscale_image(model, image, device="cpu", progress=trouble, **options)
        except Trouble:
            pass
        network.before = None
        assert state(model) == before
        if "mask" not in options and channels != 4:
            result = upscale_image(model, image, device="cpu", **options)
            assert (result - enlarged(image, 2)).abs().max() <= 1e-6
            del result
        if run in (50, 199):
            gc.collect()
            held.append(sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects()))
    assert held[1] <= held[0]  # no tensor outlives its run


class SameBuffer(Nearest):
    """Writes every result into the same memory, as networks behind CUDA graphs do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = super().forward(x)
        if x.device.type == "meta":
            return result
        kept = self.__dict__.setdefault("kept", {})
        return kept.setdefault(result.shape, torch.empty_like(result)).copy_(result)


def test_a_network_may_use_the_memory_of_its_result_again() -> None:
    image = picture(120, 90)
    result = upscale_image(descriptor(SameBuffer(2), 2), image, tile=32, overlap=8, batch=1)
    assert (result - enlarged(image, 2)).abs().max() <= 1e-6
