"""The measures of quality, against published figures and closed forms."""

from __future__ import annotations

import importlib.machinery
import json
import os
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from benchmarks.page import write_section
from benchmarks.quality import average, evaluate_folder, quality, read_picture
from tests.helpers.paths import ROOT
from tools.bicubic import imresize
from tools.metadata import add_metadata, read_curve, read_metadata
from tools.metadata import main as metadata_command
from tools.metrics import evaluate_rgb, load_lpips

BENCHMARK_PICTURES = Path(
    os.environ.get("SR_BENCHMARK_PICTURES", ROOT.parent / "shared" / "images")
)
CHECKPOINT = ROOT / "models" / "fdat_demo_x2.safetensors"


@pytest.mark.parametrize(
    ("folder", "scale", "psnr", "ssim"),
    [("set5", 2, 33.66, 0.9299), ("set5", 4, 28.42, 0.8104), ("set14", 4, 26.00, 0.7027)],
)
def test_bicubic_interpolation_scores_as_published(
    folder: str, scale: int, psnr: float, ssim: float
) -> None:
    """Figures that papers since SRCNN (Dong et al., 2014) and VDSR (Kim et al., 2016) print for
    bicubic."""
    pictures = BENCHMARK_PICTURES / folder
    if not pictures.is_dir():
        pytest.skip(
            f"no {pictures}; SR_BENCHMARK_PICTURES names the folder that holds set5 and set14"
        )
    mean = average(evaluate_folder(pictures, scale, {"bicubic": imresize}), "bicubic")
    assert mean.psnr_y == pytest.approx(psnr, abs=0.03)
    assert mean.ssim_y == pytest.approx(ssim, abs=0.001)


def test_rgb_scores_of_a_constant_error() -> None:
    truth = np.random.default_rng(0).integers(0, 200, (40, 50, 3), dtype=np.uint8)
    psnr, ssim = evaluate_rgb(truth + np.array([2, 0, 0], np.uint8), truth, 2)
    assert psnr == pytest.approx(10 * np.log10(255**2 / (4 / 3)))
    assert 0.99 < ssim < 1
    assert evaluate_rgb(truth, truth, 2) == (float("inf"), pytest.approx(1))


def test_grey_files_stay_grey(tmp_path: Path) -> None:
    """On Y of RGB, 219 levels of 255, the same error would count 1.3 dB less."""
    grey = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert read_picture(tmp_path / "grey.png").shape == (48, 64)
    scores = evaluate_folder(tmp_path, 2, {"constant": lambda low, scale: np.full_like(grey, 128)})
    error = (grey[2:-2, 2:-2].astype(float) - 128) ** 2
    assert scores["grey.png"]["constant"].psnr_y == pytest.approx(
        10 * np.log10(255**2 / error.mean())
    )


def test_command_prints_records_and_writes_the_page(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    Image.open(ROOT / "samples" / "coffee.png").crop((200, 150, 264, 200)).save(
        tmp_path / "tiny" / "colour.png"
    )
    Image.open(ROOT / "samples" / "coffee.png").convert("L").crop((0, 0, 51, 40)).save(
        tmp_path / "tiny" / "grey.png"
    )
    checkpoint, page = tmp_path / "model.safetensors", tmp_path / "page.md"
    shutil.copy(CHECKPOINT, checkpoint)
    page.write_text("before\n<!-- quality -->\nold\n<!-- end of quality -->\nafter\n")
    app = typer.Typer()
    app.command()(quality)
    result = CliRunner().invoke(
        app, [str(tmp_path / "tiny"), "--model", str(checkpoint), "--record", "--page", str(page)]
    )
    assert result.exit_code == 0, result.output
    printed = next(
        line for line in result.output.splitlines() if "tiny average" in line and " model " in line
    )
    score = printed.split(" Y ")[1].split()[0]
    before, after = load_file(CHECKPOINT), load_file(checkpoint)
    assert before.keys() == after.keys() and all(
        torch.equal(before[name], after[name]) for name in before
    )
    assert f'"tiny x2": "{score}"' in read_metadata(checkpoint)["scores_psnr_ssim_y"]
    assert read_metadata(checkpoint)["licence"] == read_metadata(CHECKPOINT)["licence"]
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert f"| model | {score} |" in text
    assert all(f"| {method} |" in text for method in ("bicubic", "Lanczos"))


def test_page_without_a_place_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- end of quality -->\n<!-- quality -->\n")
    with pytest.raises(ValueError, match="no place"):
        write_section(page, "quality", "text")


def test_lpips_if_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the library: what it is given, and what happens when it can't fetch its
    network."""
    given = []

    class Stub(torch.nn.Module):
        def __init__(self, net: str, pnet_rand: bool, verbose: bool) -> None:
            super().__init__()
            if stub.offline:
                raise OSError("no route to host")

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            given.extend([a, b])
            return (a - b).abs().mean()

    stub = types.ModuleType("lpips")
    stub.__spec__ = importlib.machinery.ModuleSpec("lpips", None)
    stub.LPIPS, stub.offline = Stub, False  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", stub)
    lpips = load_lpips()
    assert lpips is not None
    black, white = np.zeros((20, 24), np.uint8), np.full((20, 24), 255, np.uint8)
    assert lpips(black, white, 4) == pytest.approx(2)
    assert [tuple(image.shape) for image in given] == [(1, 3, 12, 16)] * 2
    assert (given[0].unique().tolist(), given[1].unique().tolist()) == ([-1.0], [1.0])
    stub.offline = True  # type: ignore[attr-defined]
    assert load_lpips() is None
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert load_lpips() is None


def test_curve_of_a_log() -> None:
    log = "step 500/1500  L1 0.02305  204 s\nnoise\nstep 1000/1500  L1 0.02143  401 s\n"
    assert read_curve(log, 1000) == [(500, 0.02305), (1000, 0.02143)]
    assert read_curve(log, 500) == [(500, 0.02305)]
    with pytest.raises(ValueError, match="no line between the steps 1000 and 1500"):
        read_curve(log, 1500)
    with pytest.raises(ValueError, match="holds no line"):
        read_curve(log, 200)


@pytest.mark.parametrize(("until", "expected"), [(None, [500, 8000]), (500, [500, 1000, 1500])])
def test_curve_goes_before_what_is_recorded(
    until: int | None, expected: list[int], tmp_path: Path
) -> None:
    checkpoint, log = tmp_path / "model.safetensors", tmp_path / "train.log"
    shutil.copy(CHECKPOINT, checkpoint)
    add_metadata(
        checkpoint,
        {"training_loss_l1": "[[500, 9.0], [1000, 0.5], [1500, 0.4]]", "training_steps": "8000"},
    )
    log.write_text("step 500/8000  L1 0.02305  204 s\nstep 8000/8000  L1 0.02143  401 s\n")
    app = typer.Typer()
    app.command()(metadata_command)
    options = [] if until is None else ["--log-until", str(until)]
    result = CliRunner().invoke(app, [str(checkpoint), "--training-log", str(log), *options])
    assert result.exit_code == 0, result.output
    curve = json.loads(read_metadata(checkpoint)["training_loss_l1"])
    assert [step for step, _ in curve] == expected and curve[0][1] == 0.02305
