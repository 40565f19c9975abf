"""The command for Dense-Iso-ViT checkpoints: report, conversion, ranking, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer import Typer
from typer.testing import CliRunner

from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT
from fdat_dense_iso.arch.dense_iso.reading.recognise import recognise
from fdat_dense_iso.arch.files import read_checkpoint
from tests.helpers.dense_iso_variants import build
from tools.dense_iso import main, rank_readings

app = Typer()
app.command()(main)


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(
        app, [str(argument) for argument in arguments]
    )
    return result.exit_code, result.output


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "foreign.pth"
    torch.save({"params_ema": build("Restormer")[0].state_dict()}, path)
    return path


def test_report_names_what_was_found_and_assumed(checkpoint: Path) -> None:
    code, output = run(checkpoint, "--set", "heads=3,4")
    assert code == 0
    for text in ("levels.0.0.1.project_in", "42,839 parameters", "gated_half", "assumed", "option"):
        assert text in output


@pytest.mark.parametrize("name", ["Restormer", "inside stages", "x2", "head by head"])
def test_conversion_keeps_every_answer(name: str, tmp_path: Path) -> None:
    module, options = build(name)
    foreign, converted = tmp_path / "foreign.safetensors", tmp_path / "own.safetensors"
    save_file(module.state_dict(), foreign)
    (tmp_path / "foreign.json").write_text(json.dumps(options))
    code, output = run(foreign, "--convert", converted)
    assert code == 0, output
    content, metadata = read_checkpoint(converted)
    recognised = recognise(content, metadata=metadata)
    assert not [remark for remark in recognised.remarks() if remark.startswith("assumed")]
    network = DenseIsoViT(recognised.config).eval()
    network.load_state_dict(content)
    image = torch.rand(1, 3, recognised.config.window, recognised.config.window)
    torch.testing.assert_close(network(image), module(image), rtol=1e-5, atol=1e-5)
    assert run(foreign, "--convert", converted)[0] == 1
    assert run(foreign, "--convert", converted, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "heads"], "'heads' is no option; write NAME=VALUE"),
        (["--set", "colour=red"], "unknown option 'colour'"),
        (["--convert", "own.pth"], "writes .safetensors"),
        (["--rank", "missing.png"], "missing.png"),
    ],
)
def test_mistakes_are_explained(checkpoint: Path, arguments: list[str], message: str) -> None:
    code, output = run(checkpoint, *arguments)
    assert code == 1
    assert message in output


def test_ranking_finds_the_only_reading_that_leaves_the_picture_alone() -> None:
    """At scale 1, a network whose residual vanishes if, and only if, the first half is gated:
    gelu(-10) is 0."""
    module, options = build("grid, x1")
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            silent = (
                "in_conv.weight",
                "in_conv.bias",
                "pos_embed",
                "t0.bias",
                "t1.bias",
                "pw2.bias",
            )
            if name.endswith((*silent, "to_out.weight", "to_out.bias")):
                parameter.zero_()
            elif ".dw." in name:
                parameter[: len(parameter) // 2] = -10 if name.endswith("bias") else 0
    known = {
        "head_activation": "none",
        "norm_eps": 1e-5,
        "align_corners": False,
        "qkv_layout": "3hd",
    }
    readings = list(
        rank_readings(
            module.state_dict(),
            {"heads": options["heads"], **known},  # the fewer are open the sooner it is done
            {},
            torch.rand(2, 3, 16, 16),
        )
    )
    assert readings[0][:2] == ("as assumed", {}) and readings[0][2] < 60
    _, answer, found, better = max(readings, key=lambda reading: reading[2])
    assert better and answer["gated_half"] == "first" and found > 100
