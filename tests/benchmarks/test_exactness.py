"""The benchmark of exactness: its arithmetic, and local statistics that are what they say."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from benchmarks.exactness import BAND, HEAT_STEPS, Comparison, app, difference, heat, sew, to_truth
from benchmarks.local_statistics import blend_windows, starts, with_local_statistics
from fdat_dense_iso.arch.fdat.architecture import InferenceFDAT
from fdat_dense_iso.arch.fdat.config import FDATConfig
from fdat_dense_iso.arch.fdat.network import FDAT
from tests.helpers.paths import ROOT
from tools.metrics import evaluate

CHECKPOINT = ROOT / "models" / "fdat_demo_x2.safetensors"


@pytest.fixture(scope="module")
def network() -> FDAT:
    torch.manual_seed(0)
    config = FDATConfig(scale=2, embed_dim=16, num_groups=1, depth_per_group=1, num_heads=2)
    model = InferenceFDAT(config).eval().double()
    with torch.no_grad():
        for (
            parameter
        ) in model.parameters():  # strong gates and attention, so that statistics matter
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def test_difference_and_distance_to_truth_band_by_band() -> None:
    rng = np.random.default_rng(0)
    shape = (BAND + 40, 24, 3)
    a, b = rng.random(shape, np.float32), rng.random(shape, np.float32)
    decibels, largest = difference(a, b)
    error = a.astype(np.float64) - b
    assert decibels == pytest.approx(-10 * np.log10((error**2).mean()))
    assert largest == pytest.approx(np.abs(error).max() * 255)
    assert difference(a, a) == (float("inf"), 0)
    for truth in (rng.integers(0, 256, shape, np.uint8), rng.integers(0, 256, shape[:2], np.uint8)):
        result = a if truth.ndim == 3 else a[..., :1]
        rounded = (result * 255).round().astype(np.uint8).reshape(truth.shape)
        assert to_truth(result, truth, 2) == pytest.approx(evaluate(rounded, truth, 2)[0])


def test_row_of_a_comparison() -> None:
    one = Comparison([50, float("inf"), 40], 1.5, [0.1, 0, -0.25])
    assert one.row("tiles of 8") == "| tiles of 8 | 3 | 45.0 | 40.0 | 1.5 | -0.050 | -0.250 | 1 |"


def test_heat_rises_from_black_to_white_in_few_steps() -> None:
    colours = heat(np.linspace(0, 3, 1000, dtype=np.float32)[None], 2)[0].astype(int)
    assert (colours[0] == 0).all() and (colours[-1] == 255).all()
    assert (np.diff(colours, axis=0) >= 0).all() and len(
        np.unique(colours, axis=0)
    ) == HEAT_STEPS + 1


def test_sewn_picture_is_full(tmp_path: Path) -> None:
    for index, size in enumerate([(30, 20), (25, 40)]):
        Image.new("RGB", size, (index + 1,) * 3).save(tmp_path / f"{index}.png")
    canvas = sew(sorted(tmp_path.iterdir()), 50, 70)
    assert canvas.shape == (50, 70, 3) and (canvas > 0).all()
    assert (canvas[0, :, 0] == [1] * 30 + [2] * 25 + [1] * 15).all()


@pytest.mark.parametrize("length", [5, 8, 9, 16, 23, 40])
def test_windows_cover_with_half_overlap(length: int) -> None:
    tops = starts(length, 8)
    covered = np.zeros(length, int)
    for top in tops:
        covered[top : top + 8] += 1
    assert covered.min() >= 1 and tops[-1] + min(8, length) == length
    assert all(b - a <= 4 for a, b in pairwise(tops))


def test_blended_windows_of_a_pointwise_function() -> None:
    x = torch.randn(2, 21, 34, 3, dtype=torch.float64)
    torch.testing.assert_close(blend_windows(x, 8, lambda part: part * 2 + 1), x * 2 + 1)


def test_local_statistics_of_a_window_over_everything_are_global(network: FDAT) -> None:
    image = torch.rand(1, 3, 20, 28, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(with_local_statistics(network, 28)(image), network(image))
        local = with_local_statistics(network, 16)(image)
    assert (local - network(image)).abs().max() > 1e-3


def test_local_statistics_do_not_see_far(network: FDAT) -> None:
    """What changes far away changes the global result, not the local one."""
    image = torch.rand(1, 3, 16, 160, dtype=torch.float64)
    other = image.clone()
    other[..., 80:] = torch.rand(1, 3, 16, 80, dtype=torch.float64)
    with torch.inference_mode():
        for model, equal in ((with_local_statistics(network, 16), True), (network, False)):
            change = (model(image) - model(other))[..., : 2 * 24].abs().max()
            assert (change < 1e-12) == equal


def test_commands(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.open(ROOT / "samples" / "coffee.png").crop((200, 100, 360, 244)).save(
        pictures / "one.png"
    )
    page = tmp_path / "page.md"
    page.write_text(
        "".join(f"<!-- {name} -->\n<!-- end of {name} -->\n" for name in ("pictures", "large"))
    )
    common = ["--model", str(CHECKPOINT), "--page", str(page)]
    runner = CliRunner()
    result = runner.invoke(app, ["pictures", str(pictures), *common])
    assert result.exit_code == 0, result.output
    exact = next(
        line.split(" | ") for line in result.output.splitlines() if line.startswith("| exact")
    )
    assert float(exact[2]) > 100  # float32 rounding
    small = ["--width", "100", "--height", "72", "--tiles", "64"]
    result = runner.invoke(app, ["large", str(pictures), *small, *common])
    assert result.exit_code == 0, result.output
    rows = {
        line.split(" | ")[0]: line.split(" | ")
        for line in page.read_text().splitlines()
        if line.startswith("|")
    }
    assert "| exact | | |" in page.read_text()
    assert 30 < float(rows["| tiles of 64"][1]) < 80
    output = tmp_path / "images" / "heat.png"
    result = runner.invoke(
        app,
        [
            "heatmap",
            str(pictures / "one.png"),
            "--model",
            str(CHECKPOINT),
            "--output",
            str(output),
            "--tiles",
            "64",
        ],
    )
    assert result.exit_code == 0, result.output
    with Image.open(output) as sheet:
        assert sheet.width == 2 * 440 + 8
