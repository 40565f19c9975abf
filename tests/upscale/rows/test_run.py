"""`upscale_rows` makes the pixels of `upscale_image`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fdat_dense_iso import arch
from fdat_dense_iso.arch.fdat.engine import plan as plan_module
from fdat_dense_iso.arch.fdat.engine.sweeps import Sweeps
from fdat_dense_iso.upscale import plan_rows, upscale_image, upscale_rows
from tests.helpers.fake_models import Nearest, picture, stencil, windowed
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Held:
    """A picture in memory that is read in parts; remembers the tallest one."""

    def __init__(self, frame: Tensor) -> None:
        self.frame = frame
        self.height, self.width, self.channels = frame.shape
        self.opaque = self.channels < 4 or bool((frame[..., 3] == 1).all())
        self.tallest = 0

    def read(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        self.tallest = max(self.tallest, bottom - top)
        return self.frame[top:bottom, left:right].clone()


def in_rows(model, frame: Tensor, folder, first: int = 0, **options) -> Tensor:
    """The result of `upscale_rows`, from row ``first`` on."""
    rows = []

    def sink(top: int, part: Tensor) -> None:
        assert top == first + sum(map(len, rows))
        rows.append(part.clone())

    upscale_rows(model, Held(frame), sink, folder=folder, first=first, **options)
    assert not list(folder.iterdir())
    return torch.cat(rows)


TILES = {"tile": 32, "overlap": 8}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        TILES,
        {**TILES, "batch": 3},
        {"tile": 32, "overlap": 24},  # more than two tiles share a pixel
        {**TILES, "border": "mirror"},
        {**TILES, "seamless": "both"},
        {**TILES, "seamless": "vertical", "border": "mirror", "alpha": "resize"},
        {"mode": "whole"},
    ],
    ids=str,
)
def test_tiles_are_those_of_the_whole_picture(tmp_path, channels, options):
    frame = picture(101, 83, channels)
    whole = upscale_image(stencil(), frame, **options)[0]
    assert torch.equal(in_rows(stencil(), frame[0], tmp_path, **options), whole)


def test_an_opaque_picture_stays_opaque(tmp_path):
    frame = picture(70, 50, 4)
    frame[..., 3] = 1
    whole = upscale_image(stencil(), frame, **TILES)[0]
    assert torch.equal(in_rows(stencil(), frame[0], tmp_path, **TILES), whole)


@pytest.mark.parametrize("first", [1, 60, 100, 137, 201])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_run_goes_on_from_any_row(tmp_path, first, channels):
    frame = picture(101, 83, channels)
    options = {**TILES, "batch": 2}
    whole = upscale_image(stencil(), frame, **options)[0]
    model = stencil()
    assert torch.equal(in_rows(model, frame[0], tmp_path, first, **options), whole[first:])
    if first > 150:  # and computes only what it needs
        assert len(model.model.calls) < 10


@pytest.mark.parametrize("height,width", [(90, 70), (20, 90), (70, 20)])
def test_windows(tmp_path, height, width):
    frame = picture(height, width)
    model = windowed(Nearest(2), 2, 32, 8)
    whole = upscale_image(model, frame)[0]
    assert torch.equal(in_rows(model, frame[0], tmp_path), whole)


@pytest.fixture(scope="module")
def fdat():
    return arch.load_model(ROOT / "models/fdat_demo_x2.safetensors")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", ["auto", "exact", "tile"])
def test_fdat(tmp_path, fdat, channels, mode):
    frame = picture(75, 50, channels)
    options = {"mode": mode, "alpha": "resize" if channels == 1 else "model"}
    whole = upscale_image(fdat, frame, **options)[0]
    assert torch.equal(in_rows(fdat, frame[0], tmp_path, **options), whole)


def test_maps_in_half_precision_where_the_disk_is_small(tmp_path, fdat):
    frame = picture(75, 50)
    whole = upscale_image(fdat, frame, mode="exact")[0]
    plan = plan_rows(fdat, Held(frame[0]), folder=tmp_path, mode="exact")
    assert plan.disk == 3 * 48 * 75 * 50 * 4 and not plan.half
    plan = plan_rows(fdat, Held(frame[0]), folder=tmp_path, disk=plan.disk - 1, mode="exact")
    assert plan.disk == 3 * 48 * 75 * 50 * 2 and plan.half
    result = in_rows(fdat, frame[0], tmp_path, disk=plan.disk, mode="exact")
    assert 0 < (result - whole).abs().max() < 1e-3


class Stopped(Exception):
    """The run ended early."""


@pytest.mark.parametrize("stop", [1, 4, 13, 21, 29, 38, 45, 50])
def test_fdat_goes_on_with_the_passes_that_are_done(tmp_path, monkeypatch, fdat, stop):
    """Whatever the pass in which it ends, and in the middle of that; 300 rows are six bands."""
    monkeypatch.setitem(plan_module.PREFERRED_TOKENS, "cpu", 56 * 40)
    frame = picture(300, 40)
    options = {"mode": "exact", "precision": "fp32"}
    whole = upscale_image(fdat, frame, **options)[0]
    rows, steps = {}, []

    def sink(top: int, part: Tensor) -> None:
        rows[top] = part.clone()

    def progress(done: int, total: int) -> None:
        steps.append((done, total))
        if len(steps) == stop:
            raise Stopped

    held, about = Held(frame[0]), {"folder": tmp_path, "resumable": True, **options}
    with pytest.raises(Stopped):
        upscale_rows(fdat, held, sink, progress=progress, **about)
    assert list(tmp_path.iterdir())
    first, calls = sum(map(len, rows.values())), []
    held = Held(frame[0])
    monkeypatch.setattr(Sweeps, "block", counted(Sweeps.block, calls))
    upscale_rows(fdat, held, sink, first=first, progress=progress, **about)
    assert steps[-1] == (steps[-1][1], steps[-1][1])
    assert len(calls) == 4 - sum(stop > 6 * passes for passes in (2, 3, 5, 6))
    assert torch.equal(torch.cat([rows[top] for top in sorted(rows)]), whole)
    assert not list(tmp_path.iterdir())


def counted(method, calls: list):
    def call(*arguments) -> None:
        calls.append(1)
        method(*arguments)

    return call


def test_without_being_asked_nothing_stays(tmp_path, fdat):
    def fail(top: int, rows: Tensor) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        upscale_rows(fdat, Held(picture(40, 40)[0]), fail, folder=tmp_path, mode="exact")
    assert not list(tmp_path.iterdir())
