"""`upscale_frames`: frames as they come, in order, and none lost; and calls from several threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from fdat_dense_iso.upscale import upscale_frames, upscale_image
from fdat_dense_iso.upscale.placement import DirectPlacement
from fdat_dense_iso.upscale.precision import in_precision
from fdat_dense_iso.upscale.transfer import is_fresh
from tests.helpers.fake_models import Nearest, descriptor, enlarged, nearest, picture, stencil
from tests.upscale.test_exact import MODELS


def test_equals_upscale_image() -> None:
    frames = list(picture(40, 50, batch=7))
    for options in ({}, {"mode": "whole"}, {"tile": 24, "target": 1.5}, {"ensemble": 2}):
        results: list[torch.Tensor] = []
        upscale_frames(stencil(), frames, lambda p, to=results: to.append(p.clone()), **options)
        expected = upscale_image(stencil(), torch.stack(frames), **options)
        assert (torch.stack(results) - expected).abs().max() <= 1e-6


def test_repeated_frames_are_not_computed() -> None:
    model, told, results = nearest(), [], []
    frames = [picture(20, 30)[0], None, None, picture(20, 31)[0, :, :30], None]
    upscale_frames(model, frames, results.append, progress=lambda *step: told.append(step))
    assert [results[0] is other for other in results] == [True, True, True, False, False]
    assert results[3] is results[4] and len(model.model.calls) == 2
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1] == (5, 1)


@pytest.mark.parametrize("kind", [Exception, BaseException])
@pytest.mark.parametrize("where", ["frames", "progress", "network", "deliver"])
def test_what_is_finished_is_delivered_before_the_exception(where: str, kind: type) -> None:
    class Trouble(kind):
        pass

    network, results, told, drawn = Nearest(2), [], [], []
    image = picture(20, 30, batch=9)

    def frames() -> Iterator[torch.Tensor]:
        for number, frame in enumerate(image):
            drawn.append(number)
            if where == "frames" and number == 6:
                raise Trouble
            yield frame

    def progress(done: int, total: int) -> None:
        told.append(done)
        if where == "progress" and len(told) == 6:
            raise Trouble

    def deliver(result: torch.Tensor) -> None:
        if where == "deliver" and len(results) == 6:
            raise Trouble
        results.append(result.clone())

    def before(_: torch.Tensor) -> None:
        if where == "network" and len(network.calls) == 7:
            raise Trouble

    network.before = before
    threads = threading.active_count()
    with pytest.raises(Trouble):
        upscale_frames(
            descriptor(network, 2), frames(), deliver, batch=1, mode="tile", progress=progress
        )
    assert threading.active_count() == threads
    assert len(results) >= (6 if where != "progress" else 5)
    expected = enlarged(image, 2)
    assert all(torch.equal(result, expected[n]) for n, result in enumerate(results))


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_frames_that_wait_for_others_are_not_lost(kind: type) -> None:
    image, results = picture(20, 30, batch=6), []

    def frames() -> Iterator[torch.Tensor]:
        yield from image
        raise kind

    with pytest.raises(kind):
        upscale_frames(
            nearest(), frames(), lambda one: results.append(one.clone()), batch=4, tile=32
        )
    assert torch.equal(torch.stack(results), enlarged(image, 2))


def test_other_shapes_are_refused() -> None:
    results: list[torch.Tensor] = []
    frames = [picture(20, 30)[0], picture(20, 30)[0], picture(20, 32)[0]]
    with pytest.raises(ValueError, match=r"\(20, 32, 3\) where the first one has \(20, 30, 3\)"):
        upscale_frames(nearest(), frames, results.append)
    assert len(results) == 2
    upscale_frames(nearest(), [], results.append)


def test_memory_of_results_is_used_again_only_when_nobody_holds_it() -> None:
    addresses, kept = [], []

    def deliver(result: torch.Tensor) -> None:
        addresses.append(result.data_ptr())
        if len(addresses) % 3 == 0:
            kept.append((len(addresses) - 1, result[:5]))

    image = picture(40, 50, batch=12)
    upscale_frames(nearest(), list(image), deliver, mode="whole", batch=1)
    assert len(set(addresses)) < 12
    assert all(torch.equal(part, enlarged(image, 2)[n, :5]) for n, part in kept)


def test_fresh_tensors() -> None:
    kept = torch.rand(3)
    holder = [kept]
    assert is_fresh(torch.rand(3)) in (False, True)
    alone = torch.rand(3)
    assert is_fresh(alone)
    assert not is_fresh(kept) and holder
    view = torch.rand(3)
    part = view[1:]
    assert not is_fresh(view) and not is_fresh(part)
    array = torch.rand(3).numpy()
    assert not is_fresh(torch.from_numpy(array))


def test_the_model_is_prepared_once_for_a_video() -> None:
    class Counted(DirectPlacement):
        prepared = 0

        def prepare(self, *arguments):
            self.prepared += 1
            return super().prepare(*arguments)

    for model in (nearest(), MODELS["fdat"]()):
        with Counted(model, "cpu") as placement:
            frames = list(picture(20, 30, batch=24))
            upscale_frames(model, frames, lambda picture: None, placement=placement)
            assert placement.prepared == 1


@pytest.mark.parametrize("name", ["tiles", *MODELS])
@pytest.mark.every(2)
def test_two_calls_at_once_on_one_model(name: str) -> None:
    model = stencil() if name == "tiles" else MODELS[name]()
    model.model.train()
    images = [picture(70, 80 + n)[:, :, :80] for n in range(4)]
    expected = [upscale_image(model, image, device="cpu") for image in images]
    results, gate = {}, threading.Barrier(4)

    def work(number: int) -> None:
        gate.wait()
        for _ in range(3):
            results[number] = upscale_image(model, images[number], device="cpu", batch=1, mode=mode)

    mode = "tile" if name == "tiles" else "auto"
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((results[n] - expected[n]).abs().max() <= 1e-5 for n in range(4))
    assert all(module.training for module in model.model.modules())


def test_a_nested_call_on_another_device_is_refused() -> None:
    model = nearest()
    with (
        DirectPlacement(model, "cpu"),
        pytest.raises(ValueError, match="in use by this thread with device cpu"),
    ):
        placement = DirectPlacement(model, "cpu")
        placement.device = torch.device("meta")
        placement.__enter__()


@pytest.mark.parametrize("where", ["progress", "deliver"])
@pytest.mark.parametrize("at", range(1, 9))
def test_what_is_delivered_has_no_gap(where: str, at: int) -> None:
    """Also where frames repeat, whatever raises: the caller counts them."""
    image, results, told = picture(90, 90, batch=10), [], []

    def frames() -> Iterator[torch.Tensor | None]:
        for number, frame in enumerate(image):
            yield None if number in (2, 6) else frame

    def progress(done: int, total: int) -> None:
        told.append(done)
        if where == "progress" and done == at * total:
            raise InterruptedError

    def deliver(result: torch.Tensor) -> None:
        assert not refused
        if where == "deliver" and len(results) == at:
            refused.append(1)
            raise InterruptedError
        results.append(result.clone())

    refused: list[int] = []
    with pytest.raises(InterruptedError):
        upscale_frames(
            nearest(), frames(), deliver, progress=progress, colour_fix="wavelet", batch=1
        )
    expected = upscale_image(nearest(), image, colour_fix="wavelet")
    same = {2: 1, 6: 5}
    assert len(results) >= at - 1
    for number, result in enumerate(results):
        assert torch.allclose(result, expected[same.get(number, number)], atol=1e-6)


def test_a_copy_in_half_precision_keeps_no_hook_of_another_call() -> None:
    model, other = nearest(), []

    def before(_: torch.Tensor) -> None:
        if not other:
            options = {"precision": "fp16"}
            other.append(
                threading.Thread(target=upscale_image, args=(model, picture(8, 8)), kwargs=options)
            )
            other[0].start()
            other[0].join()

    model.model.before = before
    upscale_image(model, picture(8, 8))
    assert not in_precision(model, torch.float16).model._forward_hooks


def test_progress_of_frames_of_which_some_are_transparent() -> None:
    model, told = descriptor(Nearest(2), 2), []
    frames = [picture(40, 50, 4) for _ in range(4)]
    for number in (0, 2):
        frames[number][..., 3] = 1
    upscale_frames(
        model,
        (frame[0] for frame in frames),
        lambda _: None,
        mode="tile",
        tile=24,
        device="cpu",
        progress=lambda done, total: told.append((done, total)),
    )
    totals = {total for _, total in told}
    assert len(totals) == 1
    assert told[-1] == (4 * totals.pop(), told[0][1])
    assert [done for done, _ in told] == sorted(done for done, _ in told)
