"""Networks of several frames: what they see at ends and cuts, of segments, in tiles and whole."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdat_dense_iso.upscale import neighbours, upscale_frames, upscale_image, upscale_rows
from fdat_dense_iso.upscale.beyond import InputFrame
from fdat_dense_iso.upscale.clip import ClipTraits, clips, is_cut
from fdat_dense_iso.upscale.recall import Memory
from fdat_dense_iso.upscale.tiled import TiledUpscaler
from tests.helpers.fake_models import descriptor, picture

FIVE = ClipTraits(2, 2)
WEIGHTS = torch.tensor([0.1, 0.3, -0.2, 0.5, 0.3])


class Weighted(nn.Module):
    """Five frames, weighted and summed, each pixel twice as high and wide; remembers each by itself
    and every two neighbours, and what it has computed of them."""

    def __init__(self, *, recalls: bool = False) -> None:
        super().__init__()
        self.weights = nn.Parameter(WEIGHTS.clone())
        self.computed: list[str] = []
        self.recalls = recalls

    @property
    def clip_contract(self) -> SimpleNamespace:
        recalling = self.recalling if self.recalls else None
        return SimpleNamespace(before=2, after=2, recalling=recalling)

    @property
    def tile_contract(self) -> SimpleNamespace:
        return SimpleNamespace(window=None, overlap=4, alignment=1, network=self)

    def forward(self, x: Tensor) -> Tensor:
        return self.recalling(x, lambda name, first, last, compute: compute())

    def recalling(self, x: Tensor, recall: Callable[..., Tensor]) -> Tensor:
        clip = x.unflatten(1, (5, 3))

        def count(name: str) -> None:
            if x.device.type != "meta":
                self.computed += [name] * len(x)

        def alone(number: int) -> Tensor:
            count("alone")
            return clip[:, number].clone()

        def pair(number: int) -> Tensor:
            count("pair")
            a, b = (recall("alone", n, n, lambda n=n: alone(n)) for n in (number, number + 1))
            return a + 2 * b

        pairs = [recall("pair", n, n + 1, lambda n=n: pair(n)) for n in range(4)]
        # from sums of two back to the frames: exact only if each pair is the right one
        frames = [recall("alone", 0, 0, lambda: alone(0))]
        for two in pairs:
            frames.append((two - frames[-1]) / 2)
        weights = self.weights.to(x.dtype)
        total = sum(weight * frame for weight, frame in zip(weights, frames, strict=True))
        return F.interpolate(total, scale_factor=2)


def weighted(**options: Any) -> Any:
    return descriptor(Weighted(**options), scale=2, channels=3)


def scene(count: int, seed: int, height: int = 20, width: int = 26) -> list[Tensor]:
    """Frames (H, W, 3) of one scene: a picture, with a little of its own in each."""
    base = picture(height, width)[0] * 0.5 + 0.4 * (seed % 2)
    return [base + 0.02 * picture(height, width, batch=1 + n)[n] for n in range(count)]


def expected(frames: list[Tensor], seen: list[list[int]]) -> Tensor:
    """What `Weighted` makes of the frames that it should see."""
    results = [sum(w * frames[i] for w, i in zip(WEIGHTS, ones, strict=True)) for ones in seen]
    small = torch.stack(results).clamp(0, 1)
    return small.repeat_interleave(2, 1).repeat_interleave(2, 2)


def run(model: Any, frames: list[Tensor | None], **options: Any) -> Tensor:
    results: list[Tensor] = []
    upscale_frames(model, frames, lambda p: results.append(p.clone()), **options)
    return torch.stack(results)


TWO_SCENES = [
    [2, 1, 0, 1, 2],
    [1, 0, 1, 2, 3],
    [0, 1, 2, 3, 3],
    [1, 2, 3, 3, 3],
    [4, 4, 4, 5, 6],
    [4, 4, 5, 6, 5],
    [4, 5, 6, 5, 4],
]
ONE_SCENE = [[abs(p) if p < 7 else 12 - p for p in range(m - 2, m + 3)] for m in range(7)]


def test_ends_are_mirrored_and_cuts_are_not_looked_over() -> None:
    frames = scene(4, 0) + scene(3, 1)
    for cuts, seen in (("auto", TWO_SCENES), ("none", ONE_SCENE)):
        found = run(weighted(), frames, cuts=cuts)
        assert (found - expected(frames, seen)).abs().max() <= 1e-6
        batch = upscale_image(weighted(), torch.stack(frames), cuts=cuts)
        assert (batch - found).abs().max() <= 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "whole"},
        {"mode": "tile", "tile": 16, "overlap": 4, "batch": 3},
        {"ensemble": 8},
        {"seamless": "both"},
        {"border": "mirror"},
        {"mask": torch.ones(1, 20, 26)},
    ],
    ids=str,
)
def test_with_every_option(options: dict[str, Any]) -> None:
    """The network treats every pixel alike, so none of them changes its result."""
    frames = scene(4, 0) + scene(3, 1)
    for recalls in (False, True):
        found = run(weighted(recalls=recalls), frames, **options)
        assert (found - expected(frames, TWO_SCENES)).abs().max() <= 1e-5


def test_transparency_and_grey() -> None:
    frames = [torch.cat([one, torch.full((20, 26, 1), 0.5)], -1) for one in scene(7, 0)]
    found = run(weighted(), frames)
    colours = expected([one[..., :3] for one in frames], ONE_SCENE)
    assert (found[..., :3] - colours).abs().max() <= 1e-5
    assert (found[..., 3] - 0.5).abs().max() <= 1e-5
    grey = [one[..., :1] for one in scene(7, 0)]
    assert (run(weighted(), grey) - expected(grey, ONE_SCENE)).abs().max() <= 1e-5


def test_repeated_frames_are_computed_where_others_are_seen_around_them() -> None:
    frames = scene(3, 0)
    shown = [frames[0], *[None] * 6, frames[1], None, frames[2]]
    whole = [frames[0]] * 7 + [frames[1]] * 2 + [frames[2]]
    seen = [[abs(p) if p < 10 else 18 - p for p in range(m - 2, m + 3)] for m in range(10)]
    model, told = weighted(), []
    found = run(model, shown, progress=lambda done, total: told.append((done, total)))
    assert (found - expected(whole, seen)).abs().max() <= 1e-6
    assert told[-1] == (10, 1)
    model = weighted()
    batch = upscale_image(model, torch.stack(whole))
    assert (batch - found).abs().max() <= 1e-6
    # frames 1 to 4 see what frame 0 sees
    assert model.model.computed.count("pair") == 4 * 6


def test_a_single_picture_is_repeated_with_a_note(caplog: pytest.LogCaptureFixture) -> None:
    image = scene(1, 0)[0]
    with caplog.at_level(logging.WARNING):
        found = upscale_image(weighted(), image[None])
    assert (found - expected([image], [[0] * 5])).abs().max() <= 1e-6
    assert "takes 5 successive frames; a single picture is repeated" in caplog.text


@pytest.mark.parametrize("count", [1, 2, 3])
def test_videos_shorter_than_a_clip(count: int) -> None:
    frames = scene(count, 0)
    period = max(2 * (count - 1), 1)
    seen = [
        [min(p % period, period - p % period) if count > 1 else 0 for p in range(m - 2, m + 3)]
        for m in range(count)
    ]
    assert (run(weighted(), frames) - expected(frames, seen)).abs().max() <= 1e-6


@pytest.mark.parametrize("recalls", [False, True])
def test_segments_with_their_neighbours_are_the_whole_video(recalls: bool) -> None:
    frames = scene(5, 0) + scene(4, 1) + scene(5, 2)
    whole = run(weighted(), frames)
    before, after = neighbours(weighted())
    assert (before, after) == (3, 3) and neighbours(weighted(), "none") == (2, 2)
    for length in (1, 2, 5):
        parts = []
        for first in range(0, len(frames), length):
            lead = min(before, first)
            trail = min(after, max(len(frames) - first - length, 0))
            part = frames[first - lead : first + length + trail]
            parts.append(run(weighted(recalls=recalls), part, lead=lead, trail=trail))
        assert (torch.cat(parts) - whole).abs().max() <= 1e-6


def test_models_of_one_frame_leave_the_lead_and_the_trail_out() -> None:
    from tests.helpers.fake_models import enlarged, nearest

    frames, model = list(picture(20, 30, batch=6)), nearest()
    assert neighbours(model) == (0, 0)
    found = run(model, frames, lead=2, trail=1)
    assert torch.equal(found, enlarged(torch.stack(frames[2:5]), 2))
    assert sum(shape[0] for shape in model.model.calls) == 3


def test_what_a_clip_shares_with_the_one_before_is_computed_once() -> None:
    frames = scene(4, 0) + scene(3, 1)
    for options, tiles in (({"mode": "whole"}, 1), ({"mode": "tile", "tile": 16, "batch": 2}, 4)):
        model = weighted(recalls=True)
        found = run(model, frames, **options)
        assert (found - expected(frames, TWO_SCENES)).abs().max() <= 1e-6
        assert model.model.computed.count("alone") == 7 * tiles
        # of neighbours that are in none of the clips before: 2 1, 1 0, 0 1, 1 2; 2 3; 3 3; nothing;
        # 4 4, 4 5, 5 6; 6 5; 5 4
        assert model.model.computed.count("pair") == 11 * tiles


def test_without_memory_everything_is_computed_for_each_clip(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fdat_dense_iso.upscale.tiled.SHARE", 0)
    frames = scene(7, 0)
    model = weighted(recalls=True)
    found = run(model, frames)
    assert (found - expected(frames, ONE_SCENE)).abs().max() <= 1e-6
    assert model.model.computed.count("pair") == 4 * 7


def test_what_is_kept_is_given_up_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = scene(7, 0)
    model = weighted(recalls=True)
    kept: list[int] = []
    monkeypatch.setattr("fdat_dense_iso.upscale.tiled.TiledUpscaler.together", lambda *_: 1)
    attempt = TiledUpscaler._attempt

    def short(self: TiledUpscaler, tiles: Tensor, recalls: Any = ()) -> Any:
        kept.append(self._memory.held if self._memory else -1)
        if len(kept) == 3:
            monkeypatch.setattr(self.runner, "_run", failing(self.runner._run))
        return attempt(self, tiles, recalls)

    def failing(call: Callable[..., Any]) -> Callable[..., Any]:
        def fail(*args: Any) -> Any:
            monkeypatch.setattr(call.__self__, "_run", call)
            raise torch.OutOfMemoryError("CUDA out of memory")

        return fail

    monkeypatch.setattr(TiledUpscaler, "_attempt", short)
    found = run(model, frames, mode="tile", tile=64)
    assert (found - expected(frames, ONE_SCENE)).abs().max() <= 1e-5
    assert max(kept[:3]) > 0 and set(kept[3:]) == {-1}


def test_memory_does_not_grow_with_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither frames that are alive at a time nor bytes that are kept."""
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most: list[int] = []

    def video(count: int) -> Any:
        base = picture(130, 130)[0]
        for number in range(count):
            frame = base + 0.001 * (number % 7)
            alive.add(frame)
            gc.collect(0)
            most.append(len(alive))
            yield frame

    held: set[int] = set()
    keep = Memory.keep

    def noted(self: Memory, *args: Any) -> None:
        keep(self, *args)
        held.add(self.held)

    monkeypatch.setattr(Memory, "keep", noted)
    upscale_frames(weighted(recalls=True), video(100), lambda result: None)
    # of one clip: five frames, four pairs, and at the beginning the mirrored ones of two
    assert max(held) <= 11 * 130 * 130 * 3 * 4
    assert max(most) <= 16


def test_cuts() -> None:
    still = dict(enumerate([0, 0.01, 0.01, 0.3, 0.01, 0.02]))
    quick = dict(enumerate([0, 0.2, 0.25, 0.3, 0.2, 0.2]))
    dark = dict(enumerate([0, 0.01, 0.01, 0.05, 0.01, 0.02]))
    flash = dict(enumerate([0, 0.01, 0.5, 0.5, 0.01, 0.02]))
    assert [n for n in still if is_cut(still, n)] == [3]
    assert not [n for changes in (quick, dark, flash) for n in changes if is_cut(changes, n)]


def test_only_frames_that_clips_reach_are_held() -> None:
    drawn: list[int] = []

    def frames() -> Any:
        for number in range(30):
            drawn.append(number)
            yield InputFrame.of(torch.zeros(4, 4, 3))

    for number, clip in enumerate(clips(frames(), FIVE)):
        assert len(drawn) == min(number + 4, 30)
        assert [one.number for one in clip.frames][2] == number


class Exactly:
    """An exact engine that runs `Weighted` on whole clips, and writes them in two bands."""

    def __init__(self, network: Weighted) -> None:
        self.network = network

    def plan(self, batch: int, height: int, width: int, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(
            memory_required=0, host_memory_required=0, steps=1, smaller=lambda: None
        )

    def run(self, image: Tensor, plan: Any, write: Any, progress: Any, touched: Any) -> None:
        result = self.network(image)
        half = result.shape[2] // 2
        write(0, result[:, :, :half])
        write(half, result[:, :, half:])
        progress(1, 1)

    def release(self) -> None:
        pass


def test_an_exact_engine_gets_clips_too() -> None:
    frames = scene(4, 0) + scene(3, 1)
    model = weighted()
    model.model.exact_engine = Exactly(model.model)
    found = run(model, frames, mode="exact")
    assert (found - expected(frames, TWO_SCENES)).abs().max() <= 1e-6


def test_a_picture_that_is_streamed_is_repeated(tmp_path: Path) -> None:
    image = scene(1, 0)[0]
    rows = SimpleNamespace(height=20, width=26, channels=3, opaque=True)
    rows.read = lambda top, bottom, left, right: image[top:bottom, left:right]
    found: list[Tensor] = []
    upscale_rows(
        weighted(), rows, lambda top, part: found.append(torch.as_tensor(part)), folder=tmp_path
    )
    assert (torch.cat(found) - expected([image], [[0] * 5])[0]).abs().max() <= 1e-6


def test_opaque_and_transparent_frames_recall_nothing_of_each_other() -> None:
    """The neighbours of an opaque frame are given as they are, those of others times alpha."""
    frames = list(torch.rand(9, 20, 26, 4, generator=torch.Generator().manual_seed(1)))
    frames[2][..., 3] = 1
    found, plain = (
        run(weighted(recalls=recalls), frames, cuts="none") for recalls in (True, False)
    )
    assert torch.equal(found, plain)
