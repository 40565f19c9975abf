"""All options together against their pieces put together by hand, bad ones, result types, equal
frames, memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fdat_dense_iso.arch import load_model
from fdat_dense_iso.common.dry_run import LiveBytes
from fdat_dense_iso.upscale import upscale_image
from fdat_dense_iso.upscale.mask import feathered
from tests.helpers.fake_models import (
    Nearest,
    descriptor,
    nearest,
    picture,
    pixels_computed,
    stencil,
    whole,
)
from tests.helpers.fdat_cases import random_fdat, small
from tests.helpers.sampling import sampled
from tests.upscale.test_colour import fixed
from tests.upscale.test_ensemble import expected as mean_of_symmetries
from tests.upscale.test_exact import MODELS
from tests.upscale.test_resize import by_pillow

ALL = {
    "seamless": "both",
    "ensemble": 8,
    "colour_fix": "wavelet",
    "target": "fit 90x90",
    "alpha": "resize",
}


def by_hand(model, frame: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Nine copies of the texture and of its mask, each step on all of that, and the middle of it
    taken in the end."""
    (height, width, channels), scale = frame.shape, model.scale
    tiled = frame.repeat(3, 3, 1)
    modelled = mean_of_symmetries(model, tiled[None, ..., :3], 8)[0].double().numpy()
    weights = feathered(mask.repeat(3, 3)).weights
    known = (weights > 0).numpy()
    size = tiled.shape[0] * scale, tiled.shape[1] * scale
    share = by_pillow(weights[..., None], size)
    planes = []
    for channel in range(min(channels, 3)):
        source = tiled[..., channel]
        corrected = fixed(modelled[..., channel], source.double().numpy(), "wavelet", known)
        plain = by_pillow(source[..., None], size)
        planes.append(plain + share * (corrected - plain))
    if channels == 4:
        planes.append(by_pillow(tiled[..., 3:], size))
    factor = min(90 / height, 90 / width)
    target = round(height * factor), round(width * factor)
    final = []
    for plane in planes:
        weight = planes[3] if channels == 4 and plane is not planes[3] else 1
        large = torch.from_numpy((plane * weight).astype(np.float32))[..., None]
        final.append(
            by_pillow(large, (3 * target[0], 3 * target[1]))[
                target[0] : -target[0], target[1] : -target[1]
            ]
        )
    if channels == 4:
        final[:3] = [(plane / final[3]).clip(0, 1) for plane in final[:3]]
    return torch.from_numpy(np.stack(final, -1))


@pytest.mark.parametrize(("scale", "channels"), [(3, 1), (1, 3), (2, 4)])
def test_all_together(scale: int, channels: int) -> None:
    model = stencil(scale, 1 if channels == 1 else 3)
    frames = picture(55, 47, channels, batch=3)
    frames[..., 3:] = frames[..., 3:] * 0.5 + 0.5
    frames[2] = frames[1]
    masks = torch.zeros(3, 55, 47)
    masks[:, 3:9, 40:] = 1
    masks[0, 30:40, 5:20] = 0.5
    result = upscale_image(model, frames, mask=masks, mode="whole", dtype=torch.float16, **ALL)
    assert result.dtype == torch.float16 and result.shape == (3, 90, 77, channels)
    for frame, mask, found in zip(frames, masks, result):
        assert (found.float() - by_hand(model, frame, mask)).abs().max() <= 1.5e-3
    assert torch.equal(result[1], result[2])


class Plain(nn.Module):
    """A network without what it offers to engines."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)


@pytest.mark.parametrize(
    ("name", "channels"),
    sampled(
        [(name, channels) for name in MODELS for channels in (1, 3, 4)],
        lambda case: case[1] == 4 or case == ("fdat", 1),
    ),
)
def test_all_together_through_exact_engines(name: str, channels: int) -> None:
    model, frames = MODELS[name](), picture(15, 22, channels)
    mask = torch.zeros(1, 15, 22)
    mask[:, :9, 10:] = 1
    plain = descriptor(Plain(model.model), model.scale)
    options = ALL | {"mask": mask, "alpha": "model", "ensemble": 8 if channels == 3 else 2}
    result = upscale_image(model, frames, mode="exact", **options)
    assert result.shape == (1, 61, 90, channels)
    visible = 1 if channels != 4 else result[..., 3:]
    assert (
        (result - upscale_image(plain, frames, mode="whole", **options)) * visible
    ).abs().max() <= 2e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"seamless": "diagonal"},
            "seamless 'diagonal' is not known; use one of none, horizontal, vertical, both",
        ),
        ({"ensemble": 3}, "ensemble 3 is not known; use one of 1, 2, 4, 8"),
        (
            {"colour_fix": "adain"},
            "colour_fix 'adain' is not known; use one of none, average, wavelet",
        ),
        ({"dtype": torch.uint8}, "dtype torch.uint8 is not known"),
        ({"mode": "exact", "mask": torch.ones(1, 8, 8)}, "no exact mode"),
        ({"target": "fit 100"}, "is not understood"),
        ({"mask": torch.ones(2, 8, 8), "seamless": "both"}, "there are 2 masks for 1 pictures"),
    ],
    ids=str,
)
def test_bad_options_are_refused_before_any_work(options: dict, message: str) -> None:
    model = nearest()
    with pytest.raises(ValueError, match=message):
        upscale_image(model, picture(20, 20), **options)
    assert model.model.calls == []


# The result


@pytest.mark.parametrize("target", [None, "1.5x"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_result_type(dtype: torch.dtype, target: str | None) -> None:
    model, image = stencil(), picture(30, 41, 4, batch=2)
    result = upscale_image(model, image, dtype=dtype, target=target)
    assert result.dtype == dtype and torch.equal(
        result, upscale_image(model, image, target=target).to(dtype)
    )


def peak_bytes(image: torch.Tensor, **options) -> int:
    """Main memory beside the input."""
    model = stencil()
    upscale_image(model, image[:1, :80, :80], mode="tile", tile=64)  # its dry runs take no memory
    with LiveBytes() as live:
        upscale_image(model, image, mode="tile", tile=64, batch=1, **options)
    return live.peak - image.nbytes


def test_only_one_frame_is_held_beside_the_result() -> None:
    image = picture(240, 320, batch=6)
    image[:, 0, 0, 0] = torch.linspace(0, 1, 6)
    frame = 4 * 3 * 480 * 640
    assert peak_bytes(image) <= 7 * frame
    assert peak_bytes(image, dtype=torch.float16) <= (6 / 2 + 2) * frame
    assert peak_bytes(image, target="50%") <= (6 / 16 + 3) * frame


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        ({"ensemble": 2}, 1),
        ({"ensemble": 8}, 1),
        ({"colour_fix": "wavelet"}, 1),
        ({"seamless": "both"}, 2.5),
        ({"mask": torch.ones(1, 512, 320).tril()}, 1),
    ],
    ids=["ensemble2", "ensemble8", "colour", "seamless", "mask"],
)
def test_options_need_little_more(options: dict, frames: float) -> None:
    """In frames of the result, beside what is needed without the option: the ensemble's members
    come one at a time."""
    image = picture(512, 320)
    assert peak_bytes(image, **options) <= peak_bytes(image) + (frames + 0.5) * 4 * 3 * 1024 * 640


# Equal frames


def test_equal_frames_are_computed_once() -> None:
    model, image, seen = nearest(), picture(20, 30, batch=2), []
    frames = image[[0, 0, 1, 1, 1, 0]]
    result = upscale_image(model, frames, progress=lambda *step: seen.append(step))
    assert len(model.model.calls) == 3 and seen == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(result, upscale_image(nearest(), image)[[0, 0, 1, 1, 1, 0]])


def test_frames_that_differ_in_one_value_are_not_equal() -> None:
    model, frames = nearest(), picture(20, 30).repeat(2, 1, 1, 1)
    frames[1, 19, 29, 2] += 2**-20
    upscale_image(model, frames)
    assert sum(shape[0] for shape in model.model.calls) == 2


def test_equal_frames_with_other_masks_are_not_equal() -> None:
    model, frames, masks = nearest(), picture(20, 30).expand(3, -1, -1, -1), torch.ones(3, 20, 30)
    masks[2, 0, 0] = 0
    upscale_image(model, frames, mask=masks)
    assert len(model.model.calls) == 2


def test_opaque_frames_pay_for_no_alpha_beside_others() -> None:
    model, frames = nearest(), picture(20, 30, 4, batch=2)
    frames[0, ..., 3] = 1
    upscale_image(model, frames)
    assert pixels_computed(model) == 3 * 20 * 30


def test_work_is_bounded_by_what_is_asked_for() -> None:
    """Nothing of all this touches the plain path: one call of the network and its very values."""

    class Once(Nearest):
        def forward(self, x):
            assert x.device.type == "meta" or not self.calls
            return super().forward(x)

    image = picture(50, 60)
    assert torch.equal(upscale_image(descriptor(Once(2), 2), image), whole(nearest(2), image))
    fdat = load_model(random_fdat(small("pixelshuffledirect", 2)).state_dict())
    assert upscale_image(fdat, image, ensemble=1, seamless="none", colour_fix="none").shape == (
        1,
        100,
        120,
        3,
    )
