"""The models in the box: flat and framed pictures keep their borders, and the files say what they
are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fdat_dense_iso.arch import describe, load_model
from fdat_dense_iso.upscale import upscale_image
from tests.helpers.paths import MODELS
from tools.metadata import read_metadata

FILES = sorted(MODELS.glob("*.safetensors"))
COLOURS = {
    "white": (1, 1, 1),
    "grey": (0.5, 0.5, 0.5),
    "black": (0, 0, 0),
    "blue": (0.1, 0.3, 0.8),
}
HEIGHT, WIDTH = 56, 75


def rows_and_interior(result: torch.Tensor, scale: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of the outermost rows and columns (4, 3), and of what is 12 pixels inside (3,), in
    levels of 8 bit, as a file holds them."""
    levels = (result[0] * 255).round()
    rows = [levels[0], levels[-1], levels[:, 0], levels[:, -1]]
    inside = slice(12 * scale, -12 * scale)
    return torch.stack([row.mean(0) for row in rows]), levels[inside, inside].mean((0, 1))


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_borders_of_flat_pictures_are_as_the_interior(file: Path, colour: str) -> None:
    model = load_model(file)
    flat = torch.tensor(COLOURS[colour]).float().expand(1, HEIGHT, WIDTH, 3).contiguous()
    rows, interior = rows_and_interior(upscale_image(model, flat), model.scale)
    assert (rows - interior).abs().max() <= 1
    assert (interior - flat[0, 0, 0] * 255).abs().max() <= 2


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_borders_of_a_white_frame_are_white(file: Path) -> None:
    model = load_model(file)
    framed = torch.ones(1, HEIGHT, WIDTH, 3)
    framed[:, 12:-12, 12:-12] = torch.tensor([0.2, 0.3, 0.4])
    rows, _ = rows_and_interior(upscale_image(model, framed), model.scale)
    assert rows.min() >= 253.5


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_files_say_what_they_are(file: Path) -> None:
    metadata = read_metadata(file)
    assert file.stat().st_size <= 4_000_000
    assert metadata["training_data_licence"] == "CC0-1.0" and metadata["licence"] == "MIT"
    assert metadata["training_command"].startswith("python -m tools.train")
    assert json.loads(metadata["training_loss_l1"])
    assert "degradation" in describe(load_model(file))
    assert ("JPEG" in metadata["degradation"]) == ("demo" not in file.stem)
