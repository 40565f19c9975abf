"""`upscale_image` on a device that is not the CPU: same pixels, few waits, nothing left behind."""

from __future__ import annotations

import random
import threading

import pytest
import torch

from fdat_dense_iso.upscale import OutOfMemoryError, upscale_frames, upscale_image
from fdat_dense_iso.upscale.pipeline import AHEAD
from fdat_dense_iso.upscale.transfer import Copies
from tests.helpers.fake_models import Nearest, descriptor, enlarged, nearest, picture, stencil
from tests.helpers.pretended import pretended_device
from tests.upscale.test_exact import MODELS
from tests.upscale.test_preview import Shown

NETWORKS = {"tiles": stencil, **MODELS}
OPTIONS = {
    "odd": {},
    "grey": {"channels": 1},
    "transparent": {"channels": 4},
    "frames": {"batch": 3},
    "mask": {"mask": torch.ones(1, 61, 83).tril()},
    "ensemble": {"ensemble": 8},
    "seamless": {"seamless": "both", "target": 1.5},
    "colours": {"colour_fix": "wavelet", "dtype": torch.float16},
    "preview": {"preview": True},
}


def mine(pretended) -> list[str]:
    """Where the caller's thread waited."""
    return [f"{w.kind} {w.place}" for w in pretended.waits if w.thread == "MainThread"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.every(2)
def test_same_pixels_as_on_the_cpu(name: str, case: str) -> None:
    options = dict(OPTIONS[case])
    image = picture(61, 83, options.pop("channels", 3), options.pop("batch", 1))
    if name == "tiles":
        options |= {"tile": 32, "batch": 2}
    if options.pop("preview", False):
        options["preview"] = Shown()
    expected = upscale_image(NETWORKS[name](), image, device="cpu", **options)
    with pretended_device() as pretended:
        model = NETWORKS[name]()
        before = [parameter.data_ptr() for parameter in model.model.parameters()]
        result = upscale_image(model, image, device=pretended.device, **options)
        assert pretended.memory.used == 0
    assert [parameter.data_ptr() for parameter in model.model.parameters()] == before
    tolerance = 2e-3 if result.dtype == torch.float16 else 1e-5
    if image.shape[-1] == 4:  # where alpha is small, dividing by it makes more of a difference
        tolerance = 1e-3
    assert result.device.type == "cpu" and (result - expected).abs().max() <= tolerance


@pytest.mark.parametrize("name", NETWORKS)
def test_the_host_waits_a_few_times_per_picture(name: str) -> None:
    """Not once per tile, band, block or window; the finishing thread may wait for each piece's event."""
    waits = []
    for side in (70, 200):
        with pretended_device() as pretended:
            options = {"tile": 32, "overlap": 8, "batch": 1} if name == "tiles" else {}
            upscale_image(NETWORKS[name](), picture(side, 90), device=pretended.device, **options)
            waits.append(mine(pretended))
    # the last pieces, which nothing runs beside, may be finished by the caller
    few, more = ([wait for wait in found if "in wait" not in wait] for found in waits)
    assert len(more) == len(few) <= 3, more
    assert all(len(found) - len(more) <= 2 * (1 + AHEAD) for found in waits)


def test_what_is_not_finite_is_computed_again_in_float32() -> None:
    """In the tile where it happens, and from there on: those of before stay in half precision."""

    class Overflows(Nearest):
        def forward(self, x):
            result = super().forward(x)
            return (
                torch.where(x.amax() > 0.99, torch.inf, result)
                if x.dtype != torch.float32
                else result
            )

    image = picture(16, 160) * 0.9
    image[:, 3, 70] = 1
    with pretended_device() as pretended:
        result = upscale_image(
            descriptor(Overflows(2), 2),
            image,
            tile=16,
            overlap=0,
            batch=1,
            precision="fp16",
            device=pretended.device,
        )
    expected = enlarged(image, 2)
    assert torch.equal(result[:, :, 128:], expected[:, :, 128:])
    assert torch.equal(result[:, :, :128], expected[:, :, :128].half().float())


@pytest.mark.parametrize("name", NETWORKS)
def test_results_in_half_precision_go_home_in_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half the bytes, and what is rounded is below a sixteenth of a level of 8 bits."""
    sent: list[torch.dtype] = []
    download = Copies.download

    def noted(self: Copies, tensor: torch.Tensor, *, fresh: bool) -> object:
        sent.append(tensor.dtype)
        return download(self, tensor, fresh=fresh)

    monkeypatch.setattr(Copies, "download", noted)
    with pretended_device() as pretended:
        upscale_image(NETWORKS[name](), picture(61, 83), device=pretended.device, precision="fp16")
    assert set(sent) - {torch.bool} == {torch.float16}  # bool: whether a tile is finite


def test_a_device_without_float64() -> None:
    for make in NETWORKS.values():
        image = picture(70, 90)
        expected = upscale_image(make(), image, device="cpu")
        with pretended_device(float64=False) as pretended:
            result = upscale_image(make(), image, device=pretended.device)
        assert (result - expected).abs().max() <= 1e-5


def test_without_pinned_memory() -> None:
    image = picture(70, 90)
    with pretended_device(pinning=False) as pretended:
        result = upscale_image(nearest(), image, tile=32, batch=1, device=pretended.device)
    assert (result - enlarged(image, 2)).abs().max() <= 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_running_out_of_memory_anywhere(name: str) -> None:
    """At random allocations: the same picture, or an error that says what to do."""
    rng, image = random.Random(3), picture(64, 70)
    runs = 8 if name == "dense_iso" else 24
    options = {"tile": 32, "batch": 2} if name == "tiles" else {}
    threads = threading.active_count()
    with pretended_device() as pretended:
        model = NETWORKS[name]()
        expected = upscale_image(model, image, device=pretended.device, **options)
        count = pretended.memory.allocations
    finished = 0
    for _ in range(runs):
        with pretended_device() as pretended:
            pretended.memory.fail_at = rng.randint(1, count)
            try:
                result = upscale_image(model, image, device=pretended.device, **options)
                assert (result - expected).abs().max() <= 1e-5
                finished += 1
            except (OutOfMemoryError, torch.OutOfMemoryError):
                pass
            assert pretended.memory.used == 0 and threading.active_count() == threads
            assert all(p.device.type == "cpu" for p in model.model.parameters())
    assert finished >= runs // 2


def test_small_frames_go_through_the_network_together() -> None:
    frames = [picture(40, 60 + n)[0, :, :60] for n in range(10)]
    for name in ("tiles", "fdat"):
        with pretended_device() as pretended:
            model, results = NETWORKS[name](), []
            upscale_frames(model, frames, results.append, device=pretended.device)
        if name == "tiles":
            assert {shape[0] for shape in model.model.calls} == {10}
        for frame, result in zip(frames, results, strict=True):
            expected = upscale_image(NETWORKS[name](), frame[None], device="cpu")[0]
            assert (result - expected).abs().max() <= 1e-5
