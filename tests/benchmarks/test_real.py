"""The benchmark on spoilt pictures: its means against closed forms, and a whole run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("pyvips")
from benchmarks.real import RECIPES, Recipe, convolved, disc, real, spoil
from tests.helpers.paths import MODELS, ROOT
from tools.bicubic import imresize

SAMPLE = np.asarray(Image.open(ROOT / "samples" / "coffee.png"))[100:196, 200:328]


@pytest.mark.parametrize("radius", [0.9, 2.0, 4.3])
def test_a_disc_has_the_moments_of_a_disc(radius: float) -> None:
    """It sums to 1, and its variance along an axis is r^2 / 4, plus a pixel's own 1 / 12."""
    kernel = disc(radius)
    reach = kernel.shape[0] // 2
    across = np.arange(-reach, reach + 1) ** 2
    assert kernel.sum() == pytest.approx(1)
    assert (kernel * across).sum() == pytest.approx(radius**2 / 4 + 1 / 12, abs=0.07)
    assert np.allclose(kernel, kernel.T) and np.allclose(kernel, kernel[::-1])


def test_convolution_keeps_flat_pictures_and_moves_nothing() -> None:
    assert np.allclose(convolved(np.full((9, 12, 3), 7.0), disc(1.5)), 7)
    point = np.zeros((9, 9, 3))
    point[4, 4] = 1
    assert np.allclose(convolved(point, disc(1.5))[2:7, 2:7, 0], disc(1.5))


def test_noise_is_as_strong_as_the_recipe_says() -> None:
    """The deviation at white and at black is clipped on one side; in the middle it is three
    quarters."""
    grey = np.full((256, 256, 3), 128, np.uint8)
    noise = spoil(grey, 2, Recipe(noise=8), 0).astype(float) - 128
    assert noise.std() == pytest.approx(8 * (0.5 + 128 / 510), rel=0.02)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_repeatable_and_spoils_as_it_says(name: str) -> None:
    spoilt = spoil(SAMPLE, 2, RECIPES[name], 5)
    assert spoilt.shape == (48, 64, 3) and spoilt.dtype == np.uint8
    assert np.array_equal(spoilt, spoil(SAMPLE, 2, RECIPES[name], 5))
    clean = imresize(SAMPLE, 0.5)
    error = np.sqrt(((spoilt.astype(float) - clean) ** 2).mean())
    assert error == 0 if name == "clean" else 1.5 < error < 25


def test_a_run_writes_its_table_and_details(tmp_path: Path) -> None:
    Image.fromarray(SAMPLE).save(tmp_path / "one.png")
    page = tmp_path / "page.md"
    page.write_text("<!-- real -->\n<!-- end of real -->\n")
    app = typer.Typer()
    app.command()(real)
    model = MODELS / "fdat_demo_x2.safetensors"
    command = [str(tmp_path / "one.png"), "--model", str(model), "--crop", "64", "--details"]
    command += ["--recipe", "clean", "--recipe", "JPEG 50, noise 8", "--crops-side", "48"]
    command += ["--page", str(page), "--crops", str(tmp_path / "crops.png")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    assert rows[0] == "| x2 | bicubic | fdat_demo_x2 |" and len(rows) == 4
    bicubic, model_score = (float(cell.split(" / ")[0]) for cell in rows[2].split(" | ")[1:])
    assert model_score > bicubic + 0.5
    assert Image.open(tmp_path / "crops.png").size == (4 * 52 - 4, 2 * 66)
