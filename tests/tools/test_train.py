"""The training tool: it starts as bicubic interpolation, repeats itself from a seed and says what
it did."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from fdat_dense_iso.arch import load_model
from tests.helpers.paths import ROOT
from tools.bicubic import imresize
from tools.metadata import read_metadata
from tools.networks import small_dense_iso, small_fdat
from tools.patches import PatchSampler
from tools.train import train

SAMPLE = ROOT / "samples" / "coffee.png"

app = typer.Typer()
app.command()(train)


@pytest.mark.parametrize(
    "kind", ["fdat x2", "fdat x4", "dense-iso x4 of 2", "dense-iso x4 of 4", "dense-iso x2 of 4"]
)
def test_untrained_networks_interpolate_bicubically(kind: str) -> None:
    """Against the definition in float64, away from the border, where the convolutions pad with
    zeros."""
    scale = int(kind.split()[1][1:])
    torch.manual_seed(0)
    if kind.startswith("fdat"):
        network, _ = small_fdat(scale, 32, embed_dim=32, num_heads=2)
    else:
        network, _ = small_dense_iso(scale, 32, dims="48,64", patch_size=int(kind.split()[-1]))
    low = np.random.default_rng(0).random((32, 32, 3))
    with torch.inference_mode():
        result = (
            network.double()(torch.from_numpy(low).permute(2, 0, 1)[None])[0]
            .permute(1, 2, 0)
            .numpy()
        )
    border = 3 * scale
    inner = (slice(border, -border), slice(border, -border))
    np.testing.assert_allclose(result[inner], imresize(low, scale)[inner], atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        ["--embed-dim", "32", "--num-groups", "1", "--num-heads", "2", "--patch", "16"],
        ["--architecture", "dense-iso", "--dims", "48,64", "--features", "32", "--patch", "32"],
    ],
    ids=["fdat", "dense-iso"],
)
def test_training_repeats_itself_and_its_file_loads(options: list[str], tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.open(SAMPLE).crop((100, 100, 292, 260)).save(pictures / "one.png")
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file in files:
        command = [
            str(pictures),
            str(file),
            "--scale",
            "4",
            "--steps",
            "3",
            "--batch",
            "2",
            *options,
        ]
        result = CliRunner().invoke(app, [*command, "--data-licence", "CC0-1.0"])
        assert result.exit_code == 0, result.output
    first, second = map(load_file, files)
    assert first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )
    model = load_model(files[0])
    assert model.scale == 4
    assert not [tag for tag in model.tags if "assumed" in tag or "guessed" in tag]
    metadata = read_metadata(files[0])
    ((step, loss),) = json.loads(metadata["training_loss_l1"])
    assert step == 3 and 0 < loss < 0.5
    assert (metadata["training_data"], metadata["training_data_licence"]) == ("one.png", "CC0-1.0")
    assert metadata["training_steps"] == "3" and metadata["training_command"].startswith(
        "python -m tools.train"
    )


def test_options_of_the_other_architecture_are_refused(tmp_path: Path) -> None:
    for options, wrong in (
        (["--dims", "48,64"], "--dims"),
        (["--architecture", "dense-iso", "--embed-dim", "48"], "--embed-dim"),
        (["--architecture", "swinir"], "swinir"),
    ):
        result = CliRunner().invoke(app, [str(tmp_path), str(tmp_path / "o.safetensors"), *options])
        assert result.exit_code == 2 and wrong in result.output


def test_patches_are_aligned(tmp_path: Path) -> None:
    """A reduced high patch is the low patch (where the reduction does not reach over the patch's
    border)."""
    Image.open(SAMPLE).crop((0, 0, 240, 200)).save(tmp_path / "one.png")
    lows, highs = PatchSampler(tmp_path, 2, 24, np.random.default_rng(0)).batch(6)
    assert lows.shape == (6, 3, 24, 24) and highs.shape == (6, 3, 48, 48)
    for low, high in zip(lows.numpy(), highs.numpy()):
        again = imresize(high.transpose(1, 2, 0).astype(np.float64), 0.5)
        np.testing.assert_allclose(
            again[3:-3, 3:-3], low.transpose(1, 2, 0)[3:-3, 3:-3], atol=0.51 / 255
        )
