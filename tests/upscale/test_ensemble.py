"""Self-ensemble against the mean over the symmetries of the square as numpy has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fdat_dense_iso.arch import load_model
from fdat_dense_iso.upscale import upscale_image
from fdat_dense_iso.upscale.ensemble import members
from tests.helpers.fake_models import nearest, picture, pixels_computed, stencil, whole
from tests.helpers.fdat_cases import random_fdat, small

SYMMETRIES = {
    1: [(0, False)],
    2: [(0, False), (0, True)],
    4: [(0, False), (0, True), (2, False), (2, True)],
    8: [(turns, mirrored) for turns in range(4) for mirrored in (False, True)],
}


def expected(model, image: torch.Tensor, count: int) -> torch.Tensor:
    """Mean over the symmetries: mirrored from left to right or not, then quarter turns."""
    total = 0
    for turns, mirrored in SYMMETRIES[count]:
        x = np.rot90(np.flip(image.numpy(), 2) if mirrored else image.numpy(), turns, (1, 2))
        y = np.rot90(whole(model, torch.from_numpy(x.copy())).numpy(), -turns, (1, 2))
        total = total + (np.flip(y, 2) if mirrored else y).astype(np.float64)
    return torch.from_numpy(total / len(SYMMETRIES[count])).float()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (7, 31), (40, 21)], ids=str)
@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_is_the_mean_of_the_symmetries(count: int, size: tuple[int, int], channels: int) -> None:
    model, image = stencil(2, channels), picture(*size, channels, batch=3)
    result = upscale_image(model, image, ensemble=count)
    assert (result - expected(model, image, count)).abs().max() <= 1e-6
    if count > 1 and size != (1, 1):
        assert (result - whole(model, image)).abs().max() > 0.05


@pytest.mark.parametrize("count", [2, 8])
def test_rgba(count: int) -> None:
    model, image = stencil(), picture(20, 33, 4)
    result = upscale_image(model, image, ensemble=count)
    alpha = expected(model, image[..., 3:].expand(-1, -1, -1, 3), count).mean(-1, keepdim=True)
    colours = expected(model, image[..., :3] * image[..., 3:], count)
    assert (result[..., 3:] - alpha).abs().max() <= 1e-6
    assert (result[..., :3] * alpha - colours.minimum(alpha)).abs().max() <= 1e-5


def test_whole() -> None:
    model, image = stencil(), picture(50, 83)
    result = upscale_image(model, image, mode="whole", ensemble=8)
    assert (result - expected(model, image, 8)).abs().max() <= 1e-6


def test_in_tiles() -> None:
    """Blending is not the same for all members, so the error is that of tiles, less what averages
    out."""
    model, image = stencil(), picture(50, 83)
    options = {"mode": "tile", "tile": 32, "overlap": 16}
    error = (
        (upscale_image(model, image, ensemble=8, **options) - expected(model, image, 8))
        .pow(2)
        .mean()
        .sqrt()
    )
    assert (
        error
        <= (upscale_image(model, image, **options) - whole(model, image)).pow(2).mean().sqrt()
        < 0.01
    )


def test_in_exact_mode() -> None:
    model, image = (
        load_model(random_fdat(small("pixelshuffledirect", 2)).state_dict()),
        picture(21, 34),
    )
    result = upscale_image(model, image, mode="exact", ensemble=8)
    assert (result - expected(model, image, 8)).abs().max() <= 5e-5
    assert (result - whole(model, image)).abs().max() > 1e-3


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_costs_as_many_runs(count: int) -> None:
    model, seen = nearest(), []
    upscale_image(
        model,
        picture(40, 60, batch=2),
        tile=24,
        ensemble=count,
        progress=lambda *step: seen.append(step),
    )
    plain = nearest()
    upscale_image(plain, picture(40, 60, batch=2), tile=24)
    assert pixels_computed(model) == count * pixels_computed(plain)
    assert seen[-1][0] == seen[-1][1] and [done for done, _ in seen] == sorted(
        {done for done, _ in seen}
    )


@pytest.mark.parametrize("rows", [1, 4, 100])
@pytest.mark.parametrize("number", range(8))
def test_turning_back_undoes_the_turn(number: int, rows: int) -> None:
    member, x = members(8)[number], picture(7, 10)[0]
    total = torch.ones_like(x)
    member.add_to(total, member.apply(x), rows)
    assert torch.equal(total, x + 1)
