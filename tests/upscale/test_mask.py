"""Mask-limited upscaling: weights against scipy, the rest against the unmasked and the plainly
resampled picture."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage

from fdat_dense_iso.arch import load_model
from fdat_dense_iso.upscale import upscale_image
from fdat_dense_iso.upscale.mask import GROWTH, LEAST, SOFTENING, feathered
from fdat_dense_iso.upscale.resize import resize
from tests.helpers.fake_models import Stencil, picture, pixels_computed, stencil, whole, windowed
from tests.helpers.fdat_cases import random_fdat, small

REACH = GROWTH + SOFTENING
"""Input pixels outside of a mask where the model has a share."""


def box(height: int, width: int, top: int, bottom: int, left: int, right: int) -> torch.Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, top:bottom, left:right] = 1
    return mask


def resampled(image: torch.Tensor, scale: int = 2) -> torch.Tensor:
    return torch.stack(
        [resize(frame, (frame.shape[0] * scale, frame.shape[1] * scale)) for frame in image]
    )


def enlarged(mask: torch.Tensor, scale: int = 2) -> torch.Tensor:
    return mask.repeat_interleave(scale, -2).repeat_interleave(scale, -1)


def test_a_straight_border_is_a_ramp() -> None:
    weights = feathered(box(50, 80, 0, 50, 0, 30)[0]).weights
    outside = torch.arange(80) - 29
    expected = ((REACH + 1 - outside) / (2 * SOFTENING + 1)).clamp(0, 1)
    assert (weights - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("size", [(1, 1), (9, 70), (60, 45)], ids=str)
def test_weights_against_scipy(size: tuple[int, int]) -> None:
    mask = picture(*size)[0, ..., 0] ** 8
    region = feathered(mask)
    grown = ndimage.maximum_filter(
        torch.where(mask >= LEAST, mask, 0).double().numpy(), 2 * GROWTH + 1, mode="nearest"
    )
    mean = [
        ndimage.uniform_filter(x, 2 * SOFTENING + 1, mode="constant")
        for x in (grown, torch.ones(size).double().numpy())
    ]
    assert (region.weights - torch.from_numpy(mean[0] / mean[1])).abs().max() <= 1e-5
    assert (region.weights >= mask - LEAST).all()
    assert region.touched[region.weights > 0].all()


@pytest.mark.parametrize("options", [{"tile": 32, "overlap": 8}, {"mode": "whole"}], ids=str)
@pytest.mark.parametrize(("scale", "channels"), [(2, 1), (1, 3), (2, 3), (3, 3), (2, 4)])
def test_the_model_inside_resampling_outside(scale: int, channels: int, options: dict) -> None:
    model, image = stencil(scale), picture(101, 143, channels, batch=3)
    masks = torch.cat(
        [box(101, 143, 10, 30, 20, 60), box(101, 143, 90, 101, 0, 5), box(101, 143, 50, 51, 70, 71)]
    )
    result = upscale_image(model, image, mask=masks, **options)
    plain, modelled = resampled(image, scale), upscale_image(model, image, **options)
    inside = enlarged(masks, scale).bool()
    reached = torch.stack(
        [torch.from_numpy(ndimage.maximum_filter(m.numpy(), 2 * REACH + 3)) for m in masks]
    )
    outside = ~enlarged(reached, scale).bool()
    assert (result - modelled)[inside].abs().max() <= 1e-6
    assert (result - plain)[outside].abs().max() <= 2e-5
    assert (plain - modelled)[inside].abs().max() > 0.05
    if channels != 4:
        low, high = torch.minimum(plain, modelled) - 1e-5, torch.maximum(plain, modelled) + 1e-5
        assert ((result >= low) & (result <= high)).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_grey_mask_is_a_mix(channels: int) -> None:
    model, image = stencil(), picture(40, 51, channels)
    if channels == 4:  # no premultiplied colour above its alpha, also where resampling overshoots
        image[..., :3], image[..., 3:] = image[..., :3] * 0.2 + 0.3, image[..., 3:] * 0.2 + 0.8
    result = premultiplied(
        upscale_image(model, image, mask=torch.full((1, 40, 51), 0.25), mode="whole")
    )
    modelled, plain = (
        premultiplied(upscale_image(model, image, mode="whole")),
        premultiplied(resampled(image)),
    )
    assert (result - (0.25 * modelled + 0.75 * plain)).abs().max() <= 1e-5


def premultiplied(image: torch.Tensor) -> torch.Tensor:
    return (
        torch.cat([image[..., :3] * image[..., 3:], image[..., 3:]], -1)
        if image.shape[-1] == 4
        else image
    )


@pytest.mark.parametrize(
    "options", [{}, {"ensemble": 8, "colour_fix": "wavelet"}, {"mode": "whole"}], ids=str
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_empty_mask_is_plain_resampling(
    channels: int, options: dict, caplog: pytest.LogCaptureFixture
) -> None:
    model, image, seen = stencil(), picture(33, 41, channels, batch=2), []
    result = upscale_image(
        model,
        image,
        mask=torch.zeros(1, 64, 64),
        progress=lambda *step: seen.append(step),
        **options,
    )
    assert (result - resampled(image)).abs().max() <= 2e-5
    assert model.model.calls == [] and seen == [(1, 2), (2, 2)]
    assert (
        caplog.text.count("the mask is empty (0 everywhere), so the pictures are only resampled")
        == 1
    )


def test_an_empty_mask_needs_no_mirrored_border() -> None:
    image = picture(33, 41)
    result = upscale_image(stencil(), image, mask=torch.zeros(1, 64, 64), border="mirror")
    assert (result - resampled(image)).abs().max() <= 2e-5


def test_a_full_mask_changes_nothing() -> None:
    model, image = (
        load_model(random_fdat(small("pixelshuffledirect", 2)).state_dict()),
        picture(40, 50),
    )
    assert torch.equal(
        upscale_image(model, image, mask=torch.ones(1, 7, 9)), upscale_image(model, image)
    )


def test_an_empty_frame_beside_others() -> None:
    model, image = stencil(), picture(40, 40, batch=3)
    masks = torch.zeros(3, 40, 40)
    masks[1] = 1
    seen: list[tuple[int, int]] = []
    result = upscale_image(model, image, mask=masks, progress=lambda *step: seen.append(step))
    assert (result[::2] - resampled(image)[::2]).abs().max() <= 2e-5
    assert (result[1] - whole(model, image[1:2])[0]).abs().max() <= 1e-6
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("ensemble", [1, 8])
@pytest.mark.parametrize("side", [1, 50, 150, 400])
def test_only_tiles_that_it_touches_are_computed(side: int, ensemble: int) -> None:
    model, image, tile, overlap = stencil(1), picture(600, 800), 64, 16
    mask = box(600, 800, 100, 100 + side, 200, 200 + side)
    seen: list[tuple[int, int]] = []
    upscale_image(
        model,
        image,
        mask=mask,
        tile=tile,
        overlap=overlap,
        ensemble=ensemble,
        progress=lambda *step: seen.append(step),
    )
    tiles_along = (side + 2 * (REACH + 1) + tile) / (tile - overlap) + 1
    assert pixels_computed(model) <= ensemble * (tiles_along * tile) ** 2
    assert pixels_computed(model) >= ensemble * (side + 2 * REACH) ** 2
    assert seen[-1][0] == seen[-1][1] == sum(shape[0] for shape in model.model.calls)


@pytest.mark.parametrize("name", ["stencil", "windowed", "fdat"])
def test_the_automatic_tile_leaves_most_out(name: str) -> None:
    image, mask = picture(700, 800), box(700, 800, 300, 350, 300, 340)
    if name == "fdat":
        model, calls = load_model(random_fdat(small("pixelshuffledirect", 2)).state_dict()), []
        model.model.register_forward_hook(
            lambda module, inputs, output: calls.append(tuple(inputs[0].shape))
        )
        model.model.calls = calls
    else:
        model = stencil() if name == "stencil" else windowed(Stencil(), 2, 32, 8)
    upscale_image(model, image, mask=mask)
    assert 0 < pixels_computed(model) <= 0.3 * 700 * 800


def test_exact_mode_is_the_whole_image_inside() -> None:
    model, image = (
        load_model(random_fdat(small("pixelshuffledirect", 2)).state_dict()),
        picture(60, 70),
    )
    mask = box(60, 70, 5, 20, 30, 50)
    result = upscale_image(model, image, mask=mask, mode="exact")
    assert (result - whole(model, image))[enlarged(mask).bool()].abs().max() <= 5e-5
    assert (result - resampled(image))[:, 90:].abs().max() <= 2e-5


@pytest.mark.parametrize("size", [(50, 72), (200, 288), (25, 24)], ids=str)
def test_masks_of_other_sizes_are_resampled(size: tuple[int, int]) -> None:
    model, image, mask = stencil(), picture(100, 144), box(100, 144, 20, 60, 24, 72)
    other = box(*size, size[0] // 5, size[0] * 3 // 5, size[1] // 6, size[1] // 2)
    result, expected = (upscale_image(model, image, mask=m, tile=32) for m in (other, mask))
    deep = box(100, 144, 26, 54, 30, 66)
    assert (result - expected)[enlarged(deep).bool()].abs().max() <= 1e-6
    far = ~enlarged(box(100, 144, 0, 60 + REACH + 6, 0, 72 + REACH + 6)).bool()
    assert (result - expected)[far].abs().max() <= 1e-6


def test_masks_meet_at_a_seam() -> None:
    model, image = stencil(), picture(80, 100)
    mask = box(80, 100, 0, 6, 0, 9)
    options = {"seamless": "both", "mode": "whole"}
    result = upscale_image(model, image, mask=mask, **options)
    half = (40, 50)
    again = upscale_image(model, image.roll(half, (1, 2)), mask=mask.roll(half, (1, 2)), **options)
    assert (again - result.roll((80, 100), (1, 2))).abs().max() <= 1e-5
    assert (result - resampled(image))[:, -2:, -2:].abs().max() > 0.02


def test_two_dimensional_and_half_precision_masks() -> None:
    model, image, mask = stencil(), picture(40, 40), box(40, 40, 3, 10, 3, 10)
    expected = upscale_image(model, image, mask=mask)
    assert torch.equal(upscale_image(model, image, mask=mask[0]), expected)
    assert torch.equal(upscale_image(model, image, mask=mask.half()), expected)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(2, 20, 20), "there are 2 masks for 3 pictures"),
        (torch.zeros(1, 1, 20, 20), r"of the shape \(1, 1, 20, 20\); floating point \(B, H, W\)"),
        (torch.zeros(1, 0, 20), "floating point"),
        (torch.zeros(1, 20, 20, dtype=torch.uint8), "torch.uint8"),
        (torch.full((1, 20, 20), float("nan")), "NaN or infinite"),
        ("mask.png", "the mask is a str"),
    ],
    ids=range(6),
)
def test_bad_masks(mask, message: str) -> None:
    model = stencil()
    with pytest.raises(ValueError, match=message):
        upscale_image(model, picture(20, 20, batch=3), mask=mask)
    assert model.model.calls == []
