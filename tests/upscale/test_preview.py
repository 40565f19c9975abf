"""The live preview's engine side: what is shown when, and that nothing is done for what is not
shown."""

from __future__ import annotations

import pytest
import torch

from fdat_dense_iso.arch import load_model
from fdat_dense_iso.upscale import upscale_image
from fdat_dense_iso.upscale.pipeline import AHEAD
from fdat_dense_iso.upscale.preview import DARKENED, LONGEST_SIDE, Growth
from fdat_dense_iso.upscale.seamless import Margins
from tests.helpers.fake_models import nearest, picture, stencil
from tests.helpers.fdat_cases import random_fdat, small


class Shown:
    """A preview that is due at every ``every``-th question."""

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self.asked = 0
        self.steps: list[tuple[int, int]] = []
        self.pictures: list[torch.Tensor] = []

    def due(self) -> bool:
        self.asked += 1
        return self.asked % self.every == 0

    def show(self, thumbnail: torch.Tensor, done: int, total: int) -> None:
        assert thumbnail.dtype == torch.uint8 and thumbnail.ndim == 3 and thumbnail.shape[-1] == 3
        assert max(thumbnail.shape) <= LONGEST_SIDE
        self.steps.append((done, total))
        self.pictures.append(thumbnail.clone())


def as_uint8(picture: torch.Tensor) -> torch.Tensor:
    return (picture[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, -1, 3)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tile_by_tile(channels: int) -> None:
    image, seen, told = picture(48, 64, channels), Shown(), []
    image[..., 3:] = 1
    options = {"tile": 16, "overlap": 0, "batch": 1, "mode": "tile"}
    model = stencil()
    result = upscale_image(
        model, image, preview=seen, progress=lambda *step: told.append(step), **options
    )
    assert torch.equal(result, upscale_image(model, image, **options))
    assert seen.steps == told and len(told) == 12
    assert torch.equal(seen.pictures[-1], as_uint8(result[0]))
    dark = as_uint8(image[0].repeat_interleave(2, 0).repeat_interleave(2, 1) * DARKENED)
    finished = -1
    for shown in seen.pictures:
        new = (shown == as_uint8(result[0])).all(-1)
        assert (new | (shown == dark).all(-1)).all()
        assert new.sum() > finished
        finished = new.sum()


@pytest.mark.parametrize("every", [3, 10**9])
def test_what_is_not_due_is_not_sampled(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled, thumbnail = [], Growth.thumbnail
    monkeypatch.setattr(Growth, "thumbnail", lambda self: sampled.append(1) or thumbnail(self))
    seen = Shown(every)
    result = upscale_image(stencil(), picture(40, 60), tile=16, batch=1, preview=seen)
    assert torch.equal(seen.pictures[-1], as_uint8(result[0]))
    due = seen.asked // every
    assert seen.asked > 10 and len(sampled) == len(seen.pictures) == due + 1  # and the last one


def test_band_by_band() -> None:
    model = load_model(random_fdat(small("pixelshuffledirect", 2)).state_dict())
    image, seen = picture(250, 200), Shown()
    result = upscale_image(model, image, preview=seen)
    assert torch.equal(seen.pictures[-1], as_uint8(result[0]))
    assert torch.equal(result, upscale_image(model, image))
    finished = [
        int((shown == as_uint8(result[0])).all(-1).all(-1).sum()) for shown in seen.pictures
    ]
    assert (
        finished == sorted(set(finished)) and len(finished) > 3
    )  # the first, of the input only, and bands


@pytest.mark.parametrize("size", [(256, 256), (257, 100), (900, 1400), (30, 5000)], ids=str)
def test_large_results_are_averaged_down(size: tuple[int, int]) -> None:
    rows, columns = (torch.linspace(0, 1, side) for side in size)
    image = torch.stack(
        [rows[:, None].expand(size), columns.expand(size), rows[:, None] * columns], -1
    )[None]
    seen = Shown()
    result = upscale_image(nearest(2), image, preview=seen)
    shown, side = seen.pictures[-1].float() / 255, max(size) * 2
    step = side / max(shown.shape[:2])
    assert max(shown.shape[:2]) > LONGEST_SIDE / 2 - 1
    expected = torch.nn.functional.interpolate(result.movedim(-1, 1), shown.shape[:2], mode="area")[
        0
    ].movedim(0, -1)
    assert (shown - expected).abs().max() <= 1 / 255 + 2 * step / (2 * min(size))


def test_every_frame_and_channel_of_its_own() -> None:
    """A model of one channel makes red, green and blue one after the other; equal frames are not
    shown again."""
    image, seen = picture(20, 30, batch=3), Shown()
    image[2] = image[1]
    result = upscale_image(nearest(2, 1), image, preview=seen)
    assert seen.steps == [(step, 6) for step in range(1, 7)]
    for index in (0, 1):
        one, two, three = seen.pictures[3 * index : 3 * index + 3]
        final = as_uint8(result[index])
        assert torch.equal(three, final) and torch.equal(two[..., :2], final[..., :2])
        assert torch.equal(one[..., 0], final[..., 0]) and not torch.equal(
            one[..., 1], final[..., 1]
        )


def test_unmasked_parts_are_not_darkened() -> None:
    image, mask, seen = picture(60, 60), torch.zeros(1, 60, 60), Shown()
    mask[:, :10, :10] = 1
    upscale_image(nearest(2), image, mask=mask, tile=16, overlap=0, batch=1, preview=seen)
    plain = as_uint8(image[0].repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert torch.equal(seen.pictures[0][70:], plain[70:])
    assert torch.equal(seen.pictures[-1], plain)
    assert not torch.equal(seen.pictures[0][:20, 33:50], plain[:20, 33:50])


def test_without_margins_and_in_the_first_members_turn() -> None:
    image, seen = picture(30, 50), Shown()
    model = stencil()
    upscale_image(model, image, seamless="both", ensemble=8, mode="whole", preview=seen)
    assert [shown.shape for shown in seen.pictures] == [(60, 100, 3)]
    first = upscale_image(model, image, seamless="both", mode="whole")
    assert torch.equal(seen.pictures[0], as_uint8(first[0]))


def test_marks_beside_the_crop_are_passed_over() -> None:
    margins = Margins(4, 4)
    canvas, frame = torch.rand(36, 36, 3), torch.rand(18, 18, 3)
    growth = Growth(canvas, frame, margins, None)
    dark = growth.thumbnail()
    growth.mark(slice(0, 8), slice(0, 36), slice(0, 3))
    growth.mark(slice(28, 36), slice(0, 36), slice(0, 3))
    assert torch.equal(growth.thumbnail(), dark)
    growth.mark(slice(0, 36), slice(20, 36), slice(0, 3))
    assert torch.equal(growth.thumbnail()[:, 12:], as_uint8(canvas[8:28, 20:28]))
    assert torch.equal(growth.thumbnail()[:, :12], dark[:, :12])


def test_what_a_preview_raises_ends_the_work() -> None:
    class Broken(Shown):
        def show(self, thumbnail, done, total) -> None:
            raise InterruptedError

    model = nearest()
    with pytest.raises(InterruptedError):
        upscale_image(model, picture(40, 40), tile=16, batch=1, preview=Broken())
    assert len(model.model.calls) <= 1 + AHEAD
