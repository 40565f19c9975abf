"""The sweeps by fused operators against the plain network in float64; here the twins compute."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from fdat_dense_iso.arch.fdat.architecture import InferenceFDAT
from fdat_dense_iso.arch.fdat.config import PRESETS, FDATConfig
from fdat_dense_iso.arch.fdat.engine import run as engine_run
from fdat_dense_iso.arch.fdat.engine.bounds import fitting
from fdat_dense_iso.arch.fdat.engine.maps import HostMap
from fdat_dense_iso.arch.fdat.engine.plan import Plan
from fdat_dense_iso.arch.fdat.network import FDAT
from tests.helpers.fdat_cases import SMALL, UPSAMPLER_SCALES, random_fdat, small
from tests.helpers.sampling import sampled


@pytest.fixture(autouse=True)
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU runs as any other device."""
    monkeypatch.setattr(Plan, "fused", True)


def picture(batch: int, height: int, width: int) -> torch.Tensor:
    noise = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    return noise * torch.linspace(0.1, 1, height)[:, None]


def run(model: FDAT, image: torch.Tensor, dtype: torch.dtype, **options: object) -> torch.Tensor:
    options = {"dtype": dtype, "device": "cpu", "map_dtype": dtype, **options}
    plan = model.exact_engine.plan(image.shape[0], *image.shape[2:], **options)
    parts: list[torch.Tensor] = []
    steps: list[int] = []
    model.exact_engine.run(
        image,
        plan,
        lambda top, rows: parts.append(rows.clone()),
        lambda done, total: steps.append(done),
    )
    assert steps == list(range(1, plan.steps + 1))
    return torch.cat(parts, 2)


def whole(model: FDAT, image: torch.Tensor) -> torch.Tensor:
    twin = InferenceFDAT(model.config).double().eval()
    twin.load_state_dict(model.state_dict())
    with torch.inference_mode():
        return twin(image.double())


def assert_exact(config: FDATConfig, *size: int, **options: object) -> None:
    model, image = random_fdat(config).double(), picture(*size)
    error = run(model, image.double(), torch.float64, **options) - whole(model, image)
    assert error.abs().max() <= 1e-10


def decibels(model: FDAT, image: torch.Tensor, dtype: torch.dtype) -> float:
    """PSNR over the span of the plain network's result in float64."""
    expected, got = whole(model, image), run(model, image, dtype).double()
    span = expected.max() - expected.min()
    return float(10 * torch.log10(span**2 / (got - expected).square().mean()))


@pytest.mark.parametrize(
    ("upsampler", "scale"), sampled(UPSAMPLER_SCALES, lambda case: case[1] <= 4)
)
@pytest.mark.every(3)
def test_every_upsampler(upsampler: str, scale: int) -> None:
    for size in ((2, 29, 21), (1, 9, 1)):
        assert_exact(small(upsampler, scale), *size, band=8)


@pytest.mark.parametrize("size", [(1, 1, 9), (1, 40, 5), (1, 17, 8)], ids=str)
@pytest.mark.parametrize("band", [8, 24, 1000])
def test_bands(size: tuple[int, int, int], band: int) -> None:
    assert_exact(small("transpose+conv", 4), *size, band=band)


@pytest.mark.parametrize(
    "config",
    [
        replace(SMALL, window_size=4, num_groups=1),
        replace(SMALL, window_size=12, aim_reduction_ratio=4),
        replace(SMALL, group_block_pattern=("channel", "spatial"), depth_per_group=2),
        replace(SMALL, group_block_pattern=("spatial",), depth_per_group=3),
        replace(SMALL, group_block_pattern=("channel",)),
        replace(SMALL, upsampler_type="pa_up", scale=2, unshuffle_mod=True),
    ],
    ids=lambda c: f"{c.window_size}-{'-'.join(c.group_block_pattern)}-{c.unshuffle}",
)
@pytest.mark.every(2)
def test_other_configurations(config: FDATConfig) -> None:
    assert_exact(config, 1, 29, 35, band=8)


@pytest.mark.parametrize("upsampler", ["transpose+conv", "lda"])
def test_streamed_maps(upsampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps that are copied ahead of use: a row written too early or read too late would show."""
    monkeypatch.setattr(engine_run, "FeatureMap", HostMap)
    assert_exact(small(upsampler, 2), 2, 50, 19, band=8)


def test_maps_in_another_precision() -> None:
    model, image = random_fdat(small("transpose+conv", 2)), picture(1, 33, 40)
    expected = run(model, image, torch.float32)
    got = run(model, image, torch.float32, map_dtype=torch.float16, band=8)
    assert 0 < (got - expected).abs().max() <= 0.01 * expected.abs().max()


KINDS = "transpose+conv", "pixelshuffle", "nearest+conv", "dysample", "lda"


@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 50), (torch.float16, 60)])
@pytest.mark.parametrize("upsampler", KINDS)
@pytest.mark.parametrize("preset", ["tiny", "medium", "light", "large"])
@pytest.mark.every(13)
def test_half_precision_with_maps_in_it(
    preset: str, upsampler: str, dtype: torch.dtype, least: float
) -> None:
    size = (1, 24, 21) if preset in ("medium", "large") else (1, 40, 33)
    model = random_fdat(replace(PRESETS[preset], upsampler_type=upsampler))
    found = decibels(model, picture(*size), dtype)
    print(f"{preset} {upsampler} {dtype}: {found:.1f} dB")  # for docs/fdat-gpu.md, by pytest -rP
    assert found >= least


@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 50), (torch.float16, 60)])
@pytest.mark.parametrize("seed", [2, 0, 1, 3, 4])
@pytest.mark.every(4)
def test_half_precision_of_large_with_dysample_on_one_row(
    seed: int, dtype: torch.dtype, least: float
) -> None:
    """A hard case: in the plain network in float32, rounding the depthwise weights to bfloat16 alone
    leaves 46 dB."""
    model = random_fdat(replace(PRESETS["large"], upsampler_type="dysample"), seed)
    found = decibels(model, picture(1, 1, 40), dtype)
    print(f"seed {seed} {dtype}: {found:.1f} dB")
    assert found >= least


@pytest.mark.parametrize("large", ["", "groups.0.conv", "conv_first"])
def test_maps_that_leave_float16_are_in_bfloat16(large: str) -> None:
    """From the convolution on whose values grow; before it, float16 rounds an eighth as much."""
    model, image = random_fdat(small("transpose+conv", 2)), picture(1, 33, 40)
    if large:
        with torch.no_grad():
            model.get_submodule(large).weight.mul_(1e6)
            model.upsampler[-1].weight.mul_(1e-3)
    assert [group.maps for group in fitting(model)] == [large != "conv_first", not large]
    assert decibels(model, image, torch.bfloat16) >= 45
    with pytest.raises(AssertionError) if large else nullcontext():
        assert decibels(model, image, torch.float16) >= 60
