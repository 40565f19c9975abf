"""Seamless textures: against the middle of nine copies, and against the upscaled half-rolled
texture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fdat_dense_iso.arch import load_model
from fdat_dense_iso.upscale import upscale_image
from fdat_dense_iso.upscale.seamless import Margins, extend
from tests.helpers.fake_models import (
    Nearest,
    Stencil,
    descriptor,
    nearest,
    picture,
    stencil,
    whole,
    windowed,
)
from tests.helpers.fdat_cases import random_fdat, small
from tests.helpers.paths import MODELS

AXES = {"horizontal": (2,), "vertical": (1,), "both": (1, 2)}


def rolled(x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    return torch.roll(x, [x.shape[axis] // 2 for axis in axes], axes)


@pytest.mark.parametrize("size", [(3, 5), (17, 40), (64, 90)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seamless", AXES)
def test_is_the_middle_of_many_copies(seamless: str, channels: int, size: tuple[int, int]) -> None:
    image, model = picture(*size, channels, batch=3), stencil(2, channels)
    copies = [3 if axis in AXES[seamless] else 1 for axis in (1, 2)]
    expected = whole(model, image.repeat(1, *copies, 1))
    for axis in AXES[seamless]:
        expected = expected.narrow(axis, 2 * image.shape[axis], 2 * image.shape[axis])
    assert (upscale_image(model, image, seamless=seamless) - expected).abs().max() <= 1e-6
    assert (upscale_image(model, image) - expected).abs().max() > 0.05


@pytest.mark.parametrize("target", [None, "50x90", "30x20", "100%"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("seamless", AXES)
def test_the_half_rolled_texture_gives_the_half_rolled_result(
    seamless: str, channels: int, target: str | None
) -> None:
    axes = AXES[seamless]
    image = picture(60, 40, channels)
    image[..., 3:] = image[..., 3:] * 0.5 + 0.5
    options = {"target": target, "seamless": seamless}
    model = stencil()
    result = upscale_image(model, image, **options)
    again = upscale_image(model, rolled(image, axes), **options)
    assert (again - rolled(result, axes)).abs().max() <= 1e-5
    plain = (
        upscale_image(model, image, target=target),
        upscale_image(model, rolled(image, axes), target=target),
    )
    assert (plain[1] - rolled(plain[0], axes)).abs().max() > 0.05


def test_in_tiles() -> None:
    """Where tiles end differs between the two, so that they agree only as well as tiles do among
    themselves."""
    image, model = picture(90, 130), stencil()
    options = {"tile": 64, "overlap": 16, "seamless": "both"}
    result, again = (
        upscale_image(model, image, **options),
        upscale_image(model, rolled(image, (1, 2)), **options),
    )
    tiles = (upscale_image(model, image, tile=64, overlap=16) - whole(model, image)).abs().max()
    assert (again - rolled(result, (1, 2))).abs().max() <= 2 * tiles < 0.08
    plain, other = (
        upscale_image(model, x, tile=64, overlap=16) for x in (image, rolled(image, (1, 2)))
    )
    assert (other - rolled(plain, (1, 2))).abs().max() > 0.2


@pytest.mark.parametrize("size", [(20, 12), (48, 80)], ids=str)
def test_networks_of_one_input_size(size: tuple[int, int]) -> None:
    image, model = picture(*size), windowed(Stencil(), 2, 32, 8)
    result = upscale_image(model, image, seamless="both")
    expected = whole(stencil(), image.repeat(1, 3, 3, 1))
    expected = expected[:, 2 * size[0] : 4 * size[0], 2 * size[1] : 4 * size[1]]
    inside = upscale_image(model, picture(100, 100)) - whole(stencil(), picture(100, 100))
    assert (result - expected).abs().max() <= 1.5 * inside[:, 8:-8, 8:-8].abs().max()


def test_exact_mode() -> None:
    """FDAT's statistics are those of the continued texture, so that its two results agree nearly,
    not to the bit."""
    model = load_model(random_fdat(small("pixelshuffledirect", 2)).state_dict())
    image = torch.nn.functional.interpolate(picture(8, 8).movedim(-1, 1), (64, 96), mode="bicubic")
    image = image.movedim(1, -1).clamp(0, 1)

    def error(seamless: str) -> float:
        result = upscale_image(model, image, mode="exact", seamless=seamless)
        again = upscale_image(model, rolled(image, (1, 2)), mode="exact", seamless=seamless)
        return (again - rolled(result, (1, 2))).pow(2).mean().sqrt().item()

    assert error("both") < 0.2 * error("none")


@pytest.mark.parametrize("length", [1, 2, 7])
def test_extend(length: int) -> None:
    x = torch.arange(float(length))
    assert extend(x, 0, 5, True).tolist() == [float((i - 5) % length) for i in range(length + 10)]
    mirrored = np.pad(np.arange(length), 5, mode="symmetric").astype(float)
    assert extend(x, 0, 5, False).tolist() == mirrored.tolist()


def test_margins_are_taken_off_again() -> None:
    for seamless in ("none", *AXES):
        margins, x = Margins.of(seamless, 4), torch.rand(6, 3, 2)
        continued = margins.add(x)
        assert continued.shape == (6 + 8 * margins.wrap[0], 3 + 8 * margins.wrap[1], 2)
        assert torch.equal(margins.crop(continued), x)
        larger = continued.repeat_interleave(3, 0).repeat_interleave(3, 1)
        assert torch.equal(margins.crop(larger, 3)[::3, ::3], x)


# Borders of other pictures


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(3, 5), (17, 40)], ids=str)
def test_a_mirrored_border_is_that_of_the_padded_picture(size: tuple[int, int], channels: int):
    image, model = picture(*size, channels), stencil(2)
    image[..., 3:] = 1
    padded = np.pad(image.numpy(), ((0, 0), (16, 16), (16, 16), (0, 0)), mode="symmetric")
    expected = upscale_image(model, torch.from_numpy(padded), border="model")[:, 32:-32, 32:-32]
    assert (upscale_image(model, image, border="mirror") - expected).abs().max() <= 1e-6
    assert torch.equal(upscale_image(model, image), upscale_image(model, image, border="model"))
    assert (upscale_image(model, image) - expected).abs().max() > 0.05


def test_a_seam_and_a_mirrored_border() -> None:
    image, model = picture(17, 40), stencil(2)
    padded = np.pad(image.numpy(), ((0, 0), (16, 16), (0, 0), (0, 0)), mode="symmetric")
    padded = np.pad(padded, ((0, 0), (0, 0), (16, 16), (0, 0)), mode="wrap")
    expected = whole(model, torch.from_numpy(padded))[:, 32:-32, 32:-32]
    found = upscale_image(model, image, border="mirror", seamless="horizontal")
    assert (found - expected).abs().max() <= 1e-6


@pytest.mark.parametrize(("name", "before", "after"), [("x2", 3.8, 1.2), ("x4", 5, 0.5)])
def test_a_flat_white_picture_stays_white_at_its_border(name: str, before: float, after: float):
    """In levels of 255, by the bundled models; asked for the exact result, the network's own."""
    model, white = load_model(MODELS / f"fdat_demo_{name}.safetensors"), torch.ones(1, 24, 24, 3)

    def darkening(**options: str) -> float:
        return 255 * (1 - upscale_image(model, white, **options)).max().item()

    assert darkening() <= after < before <= darkening(border="model")
    assert darkening(mode="tile") <= after
    assert darkening(mode="exact") == pytest.approx(darkening(border="model"), abs=0.01)
    assert darkening(mode="exact", border="mirror") <= after


def test_colour_fix_and_mask_with_a_mirrored_border() -> None:
    """A model that shifts every colour: the input's come back up to the border, and outside of the
    mask the picture is only resampled."""
    model, image = descriptor(Shifted(2), 2), picture(40, 48).mul(0.2).add(0.4)
    fixed = upscale_image(model, image, border="mirror", colour_fix="average")
    plain = upscale_image(nearest(2), image)
    assert (fixed - plain).abs().max() <= 0.02
    mask = torch.zeros(1, 40, 48)
    mask[:, :4, :4] = 1
    masked = upscale_image(model, image, border="mirror", mask=mask)
    assert (masked[:, :8, :8] - plain[:, :8, :8] - 0.1).abs().max() <= 1e-6
    resampled = upscale_image(nearest(2), image, mask=torch.zeros(1, 40, 48))
    assert (masked - resampled)[:, 60:-4, 60:-4].abs().max() <= 1e-6


class Shifted(Nearest):
    """Repeats every pixel, a tenth brighter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 0.1
