"""Colour fixes against scipy in float64, and against models whose shift is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from fdat_dense_iso.upscale import upscale_image
from fdat_dense_iso.upscale.colour import AVERAGE_RADIUS, average, fix_colour_, wavelet
from tests.helpers.fake_models import Nearest, descriptor, enlarged, picture, stencil

METHODS = ["average", "wavelet"]


def low_pass(plane: np.ndarray, method: str) -> np.ndarray:
    if method == "average":
        for _ in range(2):
            plane = ndimage.uniform_filter(plane, 2 * AVERAGE_RADIUS + 1, mode="constant")
        return plane
    for level in range(5):
        kernel = np.zeros(2 * 2**level + 1)
        kernel[:: 2**level] = 0.25, 0.5, 0.25
        for axis in (0, 1):
            plane = ndimage.convolve1d(plane, kernel, axis, mode="constant")
    return plane


def fixed(
    result: np.ndarray, frame: np.ndarray, method: str, known: np.ndarray | None = None
) -> np.ndarray:
    """(H * scale, W * scale) and (H, W), in float64."""
    height, width = frame.shape
    scale = result.shape[0] // height
    reduced = result.reshape(height, scale, width, scale).mean((1, 3))
    weight = np.ones_like(frame) if known is None else known.astype(float)
    shift = low_pass((frame - reduced) * weight, method) / np.maximum(
        low_pass(weight, method), 1e-8
    )
    large = Image.fromarray(shift.astype(np.float32), "F").resize(
        result.shape[::-1], Image.Resampling.BICUBIC
    )
    return (result + np.asarray(large)).clip(0, 1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (3, 90), (70, 41)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_against_scipy(method: str, size: tuple[int, int], scale: int, masked: bool) -> None:
    frame = picture(*size)[0]
    result = picture(size[0] * scale, size[1] * scale)[0] * 0.7
    known = picture(*size)[0, ..., 0] > 0.3 if masked else None
    planes = [(result[..., c].double().numpy(), frame[..., c].double().numpy()) for c in range(3)]
    expected = np.stack(
        [fixed(*pair, method, known.numpy() if masked else None) for pair in planes], -1
    )
    fix_colour_(result, frame, method, known, rows=16)
    assert np.abs(result.numpy() - expected).max() <= 1e-5


class Shifted(Nearest):
    """Nearest-neighbour upsampling with the colours moved."""

    def __init__(self, shift: float, scale: int = 2, channels: int = 3) -> None:
        super().__init__(scale, channels)
        self.shift = shift

    def forward(self, x):
        return super().forward(x) + self.shift


@pytest.mark.parametrize("tile", [None, 16])
@pytest.mark.parametrize("size", [(1, 1), (13, 40), (75, 31)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("method", METHODS)
def test_a_constant_shift_is_undone(
    method: str, channels: int, size: tuple[int, int], tile: int | None
) -> None:
    image = picture(*size, channels, batch=3) * 0.4 + 0.5
    image[..., 3:] = 1
    model = descriptor(Shifted(-0.2), 2)
    result = upscale_image(model, image, tile=tile, colour_fix=method)
    assert (result - enlarged(image, 2)).abs().max() <= 1e-5
    assert (upscale_image(model, image, tile=tile) - enlarged(image, 2)).abs().max() > 0.19


@pytest.mark.parametrize("method", METHODS)
def test_alpha_is_left_alone(method: str) -> None:
    image = picture(30, 41, 4)
    model = descriptor(Shifted(-0.1), 2)
    plain, result = upscale_image(model, image), upscale_image(model, image, colour_fix=method)
    assert torch.equal(result[..., 3], plain[..., 3])
    assert (result - plain)[..., :3].abs().max() > 0.05


@pytest.mark.parametrize("method", METHODS)
def test_detail_passes(method: str) -> None:
    """A model that adds a checkerboard of output pixels and a slow shift loses only the shift."""
    rows, columns = torch.meshgrid(torch.arange(160), torch.arange(200), indexing="ij")
    board = ((rows + columns) % 2 * 2 - 1)[..., None] * 0.05
    slow = torch.cos(rows / 160 * torch.pi / 4)[..., None] * 0.1
    frame = torch.full((80, 100, 3), 0.5)
    result = 0.5 + board + slow
    fix_colour_(result := result.expand(-1, -1, 3).clone(), frame, method)
    assert (result - 0.5 - board).abs().max() <= 0.02
    assert (result - 0.5 - board)[70:-70].abs().max() <= 0.001


@pytest.mark.parametrize("method", METHODS)
def test_at_a_seam(method: str) -> None:
    model, image = stencil(), picture(40, 64) * torch.linspace(0, 1, 64)[:, None]
    options = {"seamless": "both", "mode": "whole", "colour_fix": method}
    result, again = (
        upscale_image(model, x, **options) for x in (image, image.roll((20, 32), (1, 2)))
    )
    assert (again - result.roll((40, 64), (1, 2))).abs().max() <= 1e-5


def test_a_masked_shift_is_undone_up_to_its_border() -> None:
    image = picture(90, 90) * 0.4 + 0.3
    mask = torch.zeros(1, 90, 90)
    mask[:, 20:40, 20:40] = 1
    model = descriptor(Shifted(0.1), 2)
    result = upscale_image(model, image, mask=mask, tile=32, colour_fix="wavelet")
    assert (result - enlarged(image, 2))[:, 40:80, 40:80].abs().max() <= 1e-5


@pytest.mark.parametrize("filtered", [average, wavelet])
def test_filters_keep_their_input(filtered) -> None:
    planes = torch.rand(2, 30, 50)
    before = planes.clone()
    assert filtered(planes).shape == planes.shape and torch.equal(planes, before)
