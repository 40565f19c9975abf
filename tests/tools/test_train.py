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
from tools.progress import Progress
from tools.train import border_weights, continue_from, train

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


SMALL = ["--embed-dim", "32", "--num-groups", "1", "--num-heads", "2", "--patch", "24"]


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all kinds of patches; the weights are those of a training without a break."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.open(SAMPLE).crop((100, 100, 292, 260)).save(pictures / "one.png")
    options = "--scale 2 --steps 4 --batch 3 --spoilt 0.5 --spoilt-patches 6 --flat 0.3 "
    options += "--border-weight 2 --save-every 2 --purpose trying"
    results = []
    for name in ("broken", "whole"):
        output, state = tmp_path / f"{name}.safetensors", tmp_path / f"{name}.state"
        command = [str(pictures), str(output), *options.split(), *SMALL, "--state", str(state)]
        if name == "broken":
            save, saved = Progress.save, []

            def interrupted(self: Progress, *arguments: object, save=save, saved=saved) -> None:
                save(self, *arguments)
                saved.append(arguments[0])
                raise KeyboardInterrupt

            with monkeypatch.context() as patched:
                patched.setattr(Progress, "save", interrupted)
                CliRunner().invoke(app, command)
            assert saved == [2]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        results.append(load_file(output))
        metadata = read_metadata(output)
        assert metadata["purpose"] == "trying" and "JPEG" in metadata["degradation"]
        assert [step for step, _ in json.loads(metadata["training_loss_l1"])] == [4]
    first, second = results
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_state_of_another_training_is_refused(tmp_path: Path) -> None:
    network, _ = small_fdat(2, 32, embed_dim=32, num_heads=2)
    optimizer = torch.optim.AdamW(network.parameters())
    parts = (network, network, optimizer, np.random.default_rng(0))
    Progress(tmp_path / "state", "one", *parts).save(7, [(5, 0.25)], [0.5, 0.75])
    with pytest.raises(ValueError, match="state of another training"):
        Progress(tmp_path / "state", "two", *parts).load([], [])
    curve, losses = [], []
    assert Progress(tmp_path / "state", "one", *parts).load(curve, losses) == 7
    assert (curve, losses) == ([(5, 0.25)], [0.5, 0.75])
    assert Progress(tmp_path / "none", "one", *parts).load(curve, losses) == 0


def test_without_enlargement_training_starts_as_the_mean_of_the_enlarged(tmp_path: Path) -> None:
    """Every pixel is the mean of the four that the network of x2 makes of it."""
    large = load_model(ROOT / "models" / "fdat_demo_x2.safetensors").model.double().eval()
    network, _ = small_fdat(1, 32)
    continue_from(ROOT / "models" / "fdat_demo_x2.safetensors", network, "command")
    picture = torch.rand(1, 3, 24, 32, dtype=torch.float64)
    with torch.inference_mode():
        expected = torch.nn.functional.avg_pool2d(large(picture), 2)
        assert torch.allclose(network.double().eval()(picture), expected, atol=1e-6)


@pytest.mark.parametrize(("groups", "depth"), [(2, 3), (3, 1), (3, 2)])
def test_a_deeper_network_begins_as_the_shallower_one(groups: int, depth: int) -> None:
    """It computes the same, and every new tensor but those behind a closed join can be learnt."""
    start = ROOT / "models" / "fdat_demo_x2.safetensors"
    torch.manual_seed(0)
    network, _ = small_fdat(2, 24, num_groups=groups, depth=depth)
    continue_from(start, network, "command")
    picture = torch.rand(1, 3, 24, 32, dtype=torch.float64)
    result = network.double()(picture)
    assert torch.allclose(result, load_model(start).model.double().eval()(picture), atol=1e-12)
    result.square().mean().backward()
    joins = [network.groups[1].blocks[-1].ffn.fc2.weight, network.groups[-1].conv.weight]
    assert all(join.grad is not None and join.grad.abs().max() > 0 for join in joins)


def test_weights_of_the_border() -> None:
    weights = border_weights(12, 2, 3.0)
    assert weights.shape == (24, 24) and weights.mean().item() == pytest.approx(1)
    assert weights[3, 12] == pytest.approx(3 * weights[4, 12].item())
    assert torch.equal(border_weights(12, 2, 1.0), torch.ones(24, 24))


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
