"""How pictures are spoilt for training: against closed forms and the standard's tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn

from tests.helpers.paths import ROOT
from tools.bicubic import imresize
from tools.degrade import (
    GAMMA,
    Degradation,
    Strengths,
    blur,
    blur_kernel,
    compress,
    gaussian_noise,
    sensor_noise,
    sharpen,
    to_bytes,
    to_picture,
)
from tools.flat import FlatPatches

FLAT = torch.full((3, 200, 200), 0.5)
LUMINANCE = [
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
]
"""Table K.1 of the JPEG standard, ITU-T T.81."""


def picture(side: int = 128) -> np.ndarray:
    return np.asarray(Image.open(ROOT / "samples" / "coffee.png"))[
        100 : 100 + side, 100 : 100 + side
    ]


@pytest.mark.parametrize(
    ("across", "along", "angle"), [(1.5, 1.5, 0.0), (2.5, 0.8, 0.0), (2, 1, 0.6)]
)
def test_a_kernel_has_the_moments_of_its_gaussian(
    across: float, along: float, angle: float
) -> None:
    kernel = blur_kernel(across, along, angle, 1.0).double().numpy()
    reach = kernel.shape[0] // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = turn @ np.diag([across**2, along**2]) @ turn.T
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert abs((kernel * x).sum()) < 1e-6 and abs((kernel * y).sum()) < 1e-6
    found = [[(kernel * a * b).sum() for b in (x, y)] for a in (x, y)]
    np.testing.assert_allclose(found, expected, atol=0.05 * across**2)  # cut off at 3 sigma


@pytest.mark.parametrize("exponent", [0.5, 2.0])
def test_every_kernel_keeps_flat_pictures(exponent: float) -> None:
    assert torch.allclose(blur(FLAT, blur_kernel(1.3, 2.1, 1.0, exponent)), FLAT, atol=1e-6)


def test_sharpening_answers_to_every_frequency_as_an_unsharp_mask() -> None:
    """1 + amount * (1 - exp(-sigma^2 w^2 / 2)) is what a Gaussian leaves of a wave."""
    amount, sigma, w = 0.7, 1.2, 2 * np.pi * 20 / 200
    wave = 0.1 * torch.sin(w * torch.arange(200)).expand(3, 200, 200)
    found = sharpen(wave, amount, sigma)[0, 100, 50:150].abs().max() / wave[0, 100].abs().max()
    assert found.item() == pytest.approx(
        1 + amount * (1 - np.exp(-((sigma * w) ** 2) / 2)), abs=0.005
    )
    assert torch.allclose(sharpen(FLAT, amount, sigma), FLAT, atol=1e-6)


def test_gaussian_noise_has_its_deviation() -> None:
    noise = gaussian_noise(FLAT, 0.02, False, np.random.default_rng(0)) - 0.5
    assert noise.std().item() == pytest.approx(0.02, rel=0.02)
    assert abs(np.corrcoef(noise.flatten(1).numpy()) - np.eye(3)).max() < 0.02
    grey = gaussian_noise(FLAT, 0.02, True, np.random.default_rng(0)) - 0.5
    assert torch.equal(grey[0], grey[2])


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_sensor_noise_has_the_variance_of_counted_light(level: float) -> None:
    light, photons, read = level**GAMMA, 2000.0, 0.01
    noisy = sensor_noise(torch.full((3, 200, 200), level), photons, read, np.random.default_rng(1))
    found = noisy.double() ** GAMMA
    assert found.mean().item() == pytest.approx(light, rel=0.002)
    assert found.var().item() == pytest.approx(light / photons + read**2, rel=0.03)


def test_jpeg_rounds_to_the_standards_table() -> None:
    """Of a grey picture, the coefficients come out as multiples of the table at that quality."""
    quality = 30
    grey = picture().mean(2, keepdims=True).repeat(3, 2).astype(np.uint8)
    result = to_bytes(compress(to_picture(grey), "JPEG", quality))[..., 0].astype(float) - 128
    blocks = result.reshape(16, 8, 16, 8).transpose(0, 2, 1, 3)
    coefficients = dctn(blocks, axes=(2, 3), norm="ortho")
    table = np.floor((np.array(LUMINANCE).reshape(8, 8) * (5000 / quality) + 50) / 100)
    steps = coefficients / table
    away = np.abs(steps - np.round(steps)) * table
    assert np.sqrt((away**2).mean()) < 0.5  # the rounding of pixels has a deviation of 0.29
    other = coefficients / (table * 1.2)
    assert np.sqrt(((np.abs(other - np.round(other)) * table) ** 2).mean()) > 1


def test_nothing_shifts() -> None:
    """A spot stays where it is, whatever is drawn, but for noise and compression."""
    calm = Strengths(noise=0, compress=0, last_noise=0, last_compress=0, second_stage=1)
    y, x = np.mgrid[0:96, 0:96] + 0.5
    spot = 255 * np.exp(-((y - 41) ** 2 + (x - 55) ** 2) / (2 * 4**2))
    high = np.floor(spot[..., None].repeat(3, 2) + 0.5).astype(np.uint8)
    for seed in range(8):
        low = Degradation(2, np.random.default_rng(seed), calm)(high)[..., 1].astype(float)
        assert low.shape == (48, 48)
        y, x = np.mgrid[0:48, 0:48] + 0.5
        centre = (low * y).sum() / low.sum(), (low * x).sum() / low.sum()
        assert centre == pytest.approx((20.5, 27.5), abs=0.12)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_seed_decides_everything(scale: int) -> None:
    first, again, other = (
        [Degradation(scale, np.random.default_rng(seed))(picture()) for seed in seeds]
        for seeds in ((1, 2, 3), (1, 2, 3), (4, 5, 6))
    )
    for a, b, c in zip(first, again, other):
        assert a.shape == (128 // scale, 128 // scale, 3)
        assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_what_is_spoilt_is_still_the_picture() -> None:
    """Between 18 and 45 dB from the clean reduction: neither untouched nor another picture."""
    clean = imresize(picture(), 0.5).astype(float)
    degrade = Degradation(2, np.random.default_rng(0))
    errors = [((degrade(picture()) - clean) ** 2).mean() for _ in range(12)]
    decibels = 10 * np.log10(255**2 / np.array(errors))
    assert 18 < decibels.min() < 30 and 26 < np.median(decibels) < 40


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_flat_patches_are_clean_reductions(scale: int) -> None:
    patches = FlatPatches(scale, 16, np.random.default_rng(0), None)
    drawn = [patches.draw() for _ in range(60)]
    for low, high in drawn:
        assert high.shape == (16 * scale, 16 * scale, 3)
        assert np.array_equal(low, imresize(high, 1 / scale) if scale > 1 else high)
    constant = [high for _, high in drawn if np.ptp(high, (0, 1)).max() == 0]
    assert len(constant) > 10 and any(high.min() == 255 for high in constant)
