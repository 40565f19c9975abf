"""The pretended device itself: values, separate memory, and what makes a real one hard."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdat_dense_iso.upscale import upscale_image
from tests.helpers.fake_models import stencil
from tests.helpers.pretended import DeviceFault, Pretended, pretended_device

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))

OPERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "conv2d": lambda x: F.conv2d(x, x[:, :, :3, :3], padding=1),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, x[0, :, None, :2, :2], stride=2),
    "linear": lambda x: F.linear(x, x[0, 0], x[0, 0, 0]),
    "matmul": lambda x: x @ x.mT,
    "einsum": lambda x: torch.einsum("bchw,bchv->bwv", x, x),
    "softmax": lambda x: x.softmax(-1),
    "layer_norm": lambda x: F.layer_norm(x, (8,)),
    "group_norm": lambda x: F.group_norm(x, 3),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "aminmax": lambda x: torch.stack(x.aminmax()),
    "isfinite": lambda x: torch.stack(x.aminmax()).isfinite().all(),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x.expand(4, 2, 3, 8, 8).flatten(0, 2)[:8], 2),
    "permuted": lambda x: x.permute(0, 2, 3, 1).contiguous().view(-1),
    "views": lambda x: x[:, 1:, ::2].transpose(1, 3).reshape(2, 8, -1).flip(1),
    "channels_last": lambda x: x.to(memory_format=torch.channels_last) + 1,
    "interpolate": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic", antialias=True),
    "reflect": lambda x: F.pad(x, (1, 2, 3, 1), mode="reflect"),
    "unfold": lambda x: F.unfold(x, 3),
    "in place": lambda x: x.clone().mul_(3).clamp_(0, 1).sub_(x),
    "out": lambda x: torch.clamp(x, 0.2, 0.5, out=torch.empty_like(x)),
    "out that grows": lambda x: torch.add(x, 1, out=torch.empty(0, device=x.device)),
    "setitem": lambda x: x.clone().index_fill_(1, torch.tensor([1], device=x.device), 2.0),
    "slice written": lambda x: x.clone()[:, :2].copy_(x[:, 1:]),
    "mask": lambda x: x[x > 0.5],
    "index": lambda x: x[:, :, torch.arange(3)],
    "cat": lambda x: torch.cat([x, x.half().float()]),
    "types": lambda x: (x * 255).round().to(torch.uint8).view(torch.int8),
    "inverse": lambda x: torch.linalg.inv(x + 9 * torch.eye(8, device=x.device)),
    "fft": lambda x: torch.fft.rfft2(x).real,
    "factories": lambda x: torch.arange(8, device=x.device) + torch.full((8,), 2.0).to(x.device),
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", OPERATORS)
def test_values_and_geometry_are_those_of_the_cpu(name, inference):
    with pretended_device() as pretended, torch.inference_mode(inference):
        found, expected = OPERATORS[name](X.to(pretended.device)), OPERATORS[name](X)
        assert found.device == pretended.device and type(found) is Tensor
        assert found.stride() == expected.stride()
        torch.testing.assert_close(found.cpu(), expected)


def test_modules_move_there_and_back():
    network = nn.Sequential(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.GELU()).eval()
    expected = network(X)
    with pretended_device() as pretended:
        network.to(pretended.device)
        assert network[0].weight.device == pretended.device
        copied = copy.deepcopy(network)
        assert copied[1].running_var.device == pretended.device
        network.to("cpu")
        assert network[0].weight.device.type == "cpu" and torch.equal(network(X), expected)
        loss = copied(X.to(pretended.device)).square().sum()
        loss.backward()
        assert copied[0].weight.grad.device == pretended.device
        torch.testing.assert_close(loss.cpu(), expected.square().sum())


def test_memory_is_separate():
    with pretended_device() as pretended:
        away = X.to(pretended.device)
        with pytest.raises(RuntimeError, match="at least two devices"):
            away + X
        with pytest.raises(RuntimeError, match="at least two devices"):
            F.conv2d(away, X)
        with pytest.raises(TypeError, match="numpy"):
            away.numpy()
        assert torch.equal((away * torch.tensor(2.0)).cpu(), X * 2)
        away.zero_()
    assert X.any()
    with pytest.raises(RuntimeError, match="no device"):
        torch.empty(1, device="pretended")
    assert not torch.accelerator.is_available()
    assert torch.Stream.__module__ != "tests.helpers.pretended.streams"


WAITS: dict[str, tuple[Callable[[Tensor], object], list[str]]] = {
    "cpu": (lambda x: x.cpu(), ["copy to main memory"]),
    "copy_": (lambda x: torch.empty(x.shape).copy_(x), ["copy to main memory"]),
    "pageable": (
        lambda x: torch.empty(x.shape).copy_(x, non_blocking=True),
        ["copy to main memory"],
    ),
    "strided": (
        lambda x: torch.empty(*x.shape, 2, pin_memory=True)[..., 0].copy_(x, non_blocking=True),
        ["copy to main memory"],
    ),
    "there": (lambda x: X.to(x.device), ["copy to the device"]),
    "staged": (lambda x: X.to(x.device, non_blocking=True), []),
    "item": (lambda x: x.sum().item(), ["value"]),
    "bool": (lambda x: bool(x.sum() > 0), ["value"]),
    "equal": (lambda x: torch.equal(x, x), ["value"]),
    "nonzero": (lambda x: x.nonzero(), ["shape"]),
    "mask": (lambda x: x[x > 0.5], ["shape"]),
    "indices": (lambda x: x[torch.tensor([0, 1])], ["copy to the device"]),
    "indices written": (
        lambda x: x.index_put_((torch.tensor([0, 1]),), x.sum(0)),
        ["copy to the device"],
    ),
    "mask written": (lambda x: x.index_put_((x > 0.5,), x[0, 0, 0, 0]), ["shape"]),
    "work": (lambda x: (x * 2).permute(0, 2, 3, 1).contiguous().half(), []),
    "stream": (lambda x: torch.accelerator.current_stream().synchronize(), ["stream"]),
    "event": (lambda x: torch.Stream(x.device).record_event().synchronize(), ["event"]),
    "device": (lambda x: torch.accelerator.synchronize(), ["device"]),
}


@pytest.mark.parametrize("name", WAITS)
def test_the_host_s_waits_are_counted_with_their_places(name):
    function, kinds = WAITS[name]
    with pretended_device() as pretended:
        x = X.to(pretended.device)
        pretended.forget()
        function(x)
        assert [wait.kind for wait in pretended.waits] == kinds
        assert all("tests/helpers/test_pretended.py" in wait.place for wait in pretended.waits)


def test_a_wait_knows_its_thread():
    with pretended_device() as pretended:
        x = X.to(pretended.device)
        worker = threading.Thread(target=x.cpu, name="worker")
        worker.start()
        worker.join()
        assert pretended.waits[-1].thread == "worker"


def _copied(pretended: Pretended, wait: bool = True) -> tuple[Tensor, Tensor, torch.Stream]:
    """A result, the pinned memory that a side stream copies it to, and that stream."""
    result = X.to(pretended.device) * 2
    side = torch.Stream(pretended.device)
    if wait:
        side.wait_stream(torch.accelerator.current_stream())
    home = torch.empty(X.shape, pin_memory=True)
    with side:
        assert torch.accelerator.current_stream() == side
        home.copy_(result, non_blocking=True)
    assert torch.accelerator.current_stream() != side
    return result, home, side


def _poll(side: torch.Stream) -> None:
    event = side.record_event()
    assert not event.query() and event.query()


def _through_another(side: torch.Stream) -> None:
    """A stream that has waited for the side stream is itself waited for."""
    other = torch.Stream(side.device)
    other.wait_event(side.record_event())
    other.synchronize()


@pytest.mark.parametrize(
    "wait",
    [
        lambda side: side.synchronize(),
        lambda side: side.record_event().synchronize(),
        lambda side: torch.accelerator.synchronize(),
        _poll,
        _through_another,
    ],
)
def test_copies_are_late_until_somebody_waits(wait):
    with pretended_device() as pretended:
        result, home, side = _copied(pretended)
        assert home.is_pinned() and home.isnan().all()
        torch.accelerator.current_stream().synchronize()  # another stream: this says nothing
        (result + 1).cpu()
        assert home.isnan().all()
        wait(side)
        assert torch.equal(home, X * 2)


def test_an_event_covers_only_what_came_before_it():
    with pretended_device() as pretended:
        result, first, side = _copied(pretended)
        event = side.record_event()
        with side:
            second = result.to("cpu", non_blocking=True)
        event.synchronize()
        assert torch.equal(first, X * 2) and second.isnan().all()


def test_memory_to_copy_from_must_stay_until_it_was_copied():
    with pretended_device() as pretended:
        source = X.clone().pin_memory()
        away = source.to(pretended.device, non_blocking=True)
        source.fill_(7)
        assert (away.cpu() == 7).all()


def _no_wait(pretended: Pretended) -> None:
    _copied(pretended, wait=False)


def _overwritten(pretended: Pretended) -> None:
    result, *_others = _copied(pretended)
    result.zero_()


def _freed(pretended: Pretended) -> None:
    result, *_others = _copied(pretended)
    del result
    torch.empty(1, device=pretended.device)


@pytest.mark.parametrize("fault", [_no_wait, _overwritten, _freed])
def test_what_would_be_luck_is_a_fault_even_if_it_is_swallowed(fault):
    with (
        pytest.raises(AssertionError, match=rf"{fault.__name__}|_copied"),
        pretended_device() as pretended,
        pytest.raises(DeviceFault),
    ):
        fault(pretended)


def _recorded(result: Tensor, side: torch.Stream) -> None:
    result.record_stream(side)


def _waited_on_the_device(result: Tensor, side: torch.Stream) -> None:
    torch.accelerator.current_stream().wait_stream(side)


def _waited_on_the_host(result: Tensor, side: torch.Stream) -> None:
    side.synchronize()


@pytest.mark.parametrize("care", [_recorded, _waited_on_the_device, _waited_on_the_host])
def test_freed_memory_is_right_where_the_code_takes_care(care):
    with pretended_device() as pretended:
        result, home, side = _copied(pretended)
        care(result, side)
        del result
        torch.zeros(X.shape, device=pretended.device)
        side.synchronize()
        assert torch.equal(home, X * 2)


def test_memory_is_counted_and_limited():
    with pretended_device(memory=10_000) as pretended:
        x = torch.zeros(1000, device=pretended.device)
        assert torch.accelerator.get_memory_info() == (6000, 10_000)
        with pytest.raises(torch.OutOfMemoryError):
            torch.cat([x, x])
        view = x[:10]
        del x
        assert torch.accelerator.memory_allocated() == 4000
        del view
        assert torch.accelerator.memory_allocated() == 0
        pretended.memory.fail_at = pretended.memory.allocations + 2
        y = torch.zeros(10, device=pretended.device)
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(10, device=pretended.device)
        assert (y + 1).sum() == 10
        assert pretended.memory.peak == 4000


def test_float64_may_be_missing():
    with pretended_device(float64=False) as pretended:
        x = X.to(pretended.device)
        for make in (
            x.double,
            lambda: X.double().to(pretended.device),
            lambda: torch.ones(2, dtype=torch.float64, device=pretended.device),
            lambda: torch.linspace(0, 1, 5, dtype=torch.float64, device=pretended.device),
        ):
            with pytest.raises(TypeError, match="float64"):
                make()
        assert torch.float64 not in torch.accelerator.get_device_capability()["supported_dtypes"]
        assert torch.equal((x * 0.5).cpu(), X * 0.5) and "pretended" in repr(x)


def test_pinning_may_be_missing():
    with pretended_device(pinning=False) as pretended:
        for make in (lambda: torch.empty(2, pin_memory=True), X.pin_memory):
            with pytest.raises(RuntimeError, match="pin"):
                make()
        assert torch.equal(X.to(pretended.device).to("cpu", non_blocking=True), X)
        assert pretended.count("copy to main memory") == 1


def test_pinned_memory_is_counted_as_torch_rounds_it():
    with pretended_device() as pretended:
        x = torch.empty(1000, pin_memory=True)
        assert x.is_pinned() and x[10:].is_pinned() and not X.is_pinned()
        assert pretended.memory.pinned == 4096
        del x
        assert (pretended.memory.pinned, pretended.memory.pinned_peak) == (0, 4096)


def test_a_picture_on_the_device_is_the_same_picture():
    image = torch.rand(1, 40, 40, 3, generator=torch.Generator().manual_seed(2))
    model = stencil()
    options = {"mode": "tile", "tile": 32, "overlap": 8, "batch": 1}
    expected = upscale_image(model, image, **options)
    with pretended_device() as pretended:
        found = upscale_image(model, image, device=pretended.device, **options)
        assert pretended.timeline.launches["convolution"] == 4
        assert pretended.memory.used == 0 < pretended.memory.peak
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
