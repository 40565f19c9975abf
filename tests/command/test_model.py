"""The command with a real model: a small FDAT with random weights."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from tests.helpers.fake_models import descriptor
from tests.helpers.fdat_cases import random_fdat, small
from tests.helpers.picture_cases import read_picture_file, samples, write_picture_file, write_png

pytest.importorskip("typer")
pytest.importorskip("pyvips")
from typer.testing import CliRunner

from fdat_dense_iso.arch import describe, load_model
from fdat_dense_iso.arch.dense_iso.config import DenseIsoViTConfig, pixel_shuffle_head
from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT
from fdat_dense_iso.command import main as cli
from fdat_dense_iso.command.model import Upscaler
from fdat_dense_iso.common.option import offered_in
from fdat_dense_iso.common.upscaling import UPSCALING
from fdat_dense_iso.upscale import parse_target, upscale_image
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    safetensors.torch.save_file(random_fdat(small(scale=2)).state_dict(), path)
    return path


def upscaled(checkpoint: Path, values: np.ndarray, **options) -> np.ndarray:
    """What the Python functions make of (H, W, C) integers, in the same depth."""
    largest = np.iinfo(values.dtype).max
    image = torch.from_numpy((values / largest).astype(np.float32))[None]
    result = (
        upscale_image(load_model(checkpoint), image, device="cpu", **options)[0].double().numpy()
    )
    return np.floor(result.clip(0, 1) * largest + 0.5).astype(values.dtype)


def largest_difference(found: np.ndarray, expected: np.ndarray) -> int:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert len(np.unique(found)) > 20
    return np.abs(found.astype(int) - expected).max()


def test_flags_are_those_of_upscale_image():
    parameters = inspect.signature(cli.main).parameters
    for option in offered_in("command", UPSCALING):
        described = get_args(parameters[option.name].annotation)[0]
        assert not option.choices or get_args(described) == option.choices
        assert parameters[option.name].default == option.default
    only_python = {"image", "progress", "placement", "preview", "dtype", "output_device"}
    assert set(inspect.signature(upscale_image).parameters) - set(parameters) == only_python


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "tile", "tile": 32, "overlap": 8, "batch": 2},
        {"alpha": "resize", "mode": "whole"},
        {"seamless": "both", "ensemble": 4, "colour_fix": "wavelet", "target": "fit 70x70"},
    ],
    ids=str,
)
def test_the_result_is_that_of_the_functions(tmp_path: Path, checkpoint: Path, options: dict):
    smooth = np.add.outer(np.linspace(0, 0.6, 50), np.linspace(0.1, 0.4, 40))[:, :, None] * [
        1,
        0.8,
        0.5,
        1,
    ]
    values = {
        "rgb.png": (smooth[:, :, :3] * 255).astype(np.uint8),
        "rgba.tif": (smooth * 65535).astype(np.uint16),
        "grey.png": (smooth[:, :, :1] * 65535).astype(np.uint16),
    }
    (tmp_path / "in").mkdir()
    for name, value in values.items():
        write_picture_file(tmp_path / "in" / name, value)
    arguments = [
        str(tmp_path / "in"),
        str(tmp_path / "out"),
        "-m",
        str(checkpoint),
        "--device",
        "cpu",
    ]
    tiled = options.get("mode") == "tile"
    for name, value in options.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    result = CliRunner().invoke(cli.app, arguments)
    *told, last = result.stderr.splitlines()
    assert (result.exit_code, last) == (0, "finished: 3 done, 0 skipped, 0 failed")
    # a warning that is true of all three is shown once
    assert ["looks at the whole picture" in line for line in told] == [True] * tiled
    for name, value in values.items():
        assert (
            largest_difference(
                read_picture_file(tmp_path / "out" / name), upscaled(checkpoint, value, **options)
            )
            <= 1
        )


def test_one_mask_for_pictures_of_any_size(tmp_path: Path, checkpoint: Path):
    (tmp_path / "in").mkdir()
    mask = np.zeros((20, 30, 1), np.uint8)
    mask[2:9, 3:12] = 255
    write_png(tmp_path / "mask.png", mask)
    values = {f"{side}.png": samples(3, 8, height=side, width=2 * side) for side in (40, 90)}
    for name, value in values.items():
        write_png(tmp_path / "in" / name, value)
    line = [
        tmp_path / "in",
        tmp_path / "out",
        "-m",
        checkpoint,
        "--device",
        "cpu",
        "--mask",
        tmp_path / "mask.png",
    ]
    assert CliRunner().invoke(cli.app, list(map(str, line))).exit_code == 0
    for name, value in values.items():
        expected = upscaled(checkpoint, value, mask=torch.from_numpy(mask[None, ..., 0] / 255))
        assert largest_difference(read_picture_file(tmp_path / "out" / name), expected) <= 1


@pytest.mark.parametrize("option", ["gated_half=first", "heads=4"])
def test_options_of_the_model(tmp_path: Path, option: str):
    torch.manual_seed(0)
    head = pixel_shuffle_head(fusion_width=8, widths=(8, 8, 8, 8))
    network = DenseIsoViT(
        DenseIsoViTConfig(window=16, dims=(8,), depths=(1,), heads=(2,), head=head)
    )
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    checkpoint = tmp_path / "vit.safetensors"
    safetensors.torch.save_file(network.state_dict(), checkpoint)
    values = samples(3, 8)
    write_png(tmp_path / "one.png", values)
    arguments = [
        str(tmp_path / "one.png"),
        str(tmp_path / "two.png"),
        "-m",
        str(checkpoint),
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(cli.app, [*arguments, "--model-option", option])
    assert result.exit_code == 0, result.stderr
    image = torch.from_numpy((values / 255).astype(np.float32))[None]
    name, _, value = option.partition("=")
    expected, plain = (
        upscale_image(load_model(checkpoint, **known), image, device="cpu")[0].numpy()
        for known in ({name: value}, {})
    )
    found = read_picture_file(tmp_path / "two.png") / 255
    assert abs(found - expected).max() <= 1 / 255 and abs(found - plain).max() > 2 / 255
    result = CliRunner().invoke(cli.app, [*arguments, "--overwrite", "--model-option", "heads=3"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "3 heads do not divide the width 8" in result.stderr


def test_checkpoints_that_cannot_be_loaded(tmp_path: Path, checkpoint: Path):
    write_png(tmp_path / "one.png", samples(3, 8))
    (tmp_path / "cut.safetensors").write_bytes(checkpoint.read_bytes()[:5000])
    (tmp_path / "text.pth").write_text("hello")
    for name in ("cut.safetensors", "text.pth", "none.safetensors", "one.png"):
        for arguments in (
            [tmp_path / "one.png", tmp_path / "out", "-m", tmp_path / name],
            ["--info", tmp_path / name],
        ):
            result = CliRunner().invoke(cli.app, list(map(str, arguments)))
            assert (result.exit_code, result.stdout) == (2, "")
            assert re.fullmatch(rf"error: .*{name}: .+\n", result.stderr)


def test_info_needs_no_pictures(checkpoint: Path):
    result = CliRunner().invoke(cli.app, ["--info", str(checkpoint)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == describe(load_model(checkpoint)) + "\n"
    assert f"File: {checkpoint.name}, " in result.stdout
    assert CliRunner().invoke(cli.app, ["--info"]).exit_code == 2


def test_in_a_process_of_its_own_from_another_folder(tmp_path: Path, checkpoint: Path):
    write_png(tmp_path / "one.png", samples(3, 8))
    script = os.path.relpath(ROOT / "cli.py", tmp_path)
    line = [
        sys.executable,
        script,
        "one.png",
        "two.webp",
        "-m",
        str(checkpoint),
        "-t",
        "51x39",
        "--device",
        "cpu",
    ]
    result = subprocess.run(
        line, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "one.png -> two.webp (17x13 -> 51x39)\n"
    expected = upscaled(checkpoint, samples(3, 8), target=parse_target("51x39"))
    assert largest_difference(read_picture_file(tmp_path / "two.webp"), expected) <= 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c(tmp_path: Path, checkpoint: Path):
    (tmp_path / "in").mkdir()
    for number in range(40):
        write_png(tmp_path / "in" / f"{number}.png", samples(3, 8, height=96, width=96))
    code = (  # a test run in the background may have inherited that SIGINT is ignored
        "import runpy, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.argv[0] = sys.path[0] + '/cli.py'\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    code = f"import sys\nsys.path[0] = {str(ROOT)!r}\n{code}"
    arguments = ["in", "out", "-m", str(checkpoint), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code, *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    # not by communicate, which passes over the lines that readline has read ahead
    rest, errors = process.stdout.read(), process.stderr.read()
    process.wait(120)
    assert (process.returncode, errors) == (
        130,
        "interrupted: the results written so far are complete\n",
    )
    written = {
        Path(line.split(" -> ")[1].split(" (")[0]).name for line in (first + rest).splitlines()
    }
    assert 1 <= len(written) < 40
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert (
        written <= found and len(found - written) <= 1
    )  # interrupted between writing and saying so
    assert all(read_picture_file(tmp_path / "out" / name).shape == (192, 192, 3) for name in found)


def test_several_pictures_compose_a_folded_head_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = pixel_shuffle_head(fusion_width=8, widths=(8, 8, 8, 8))
    config = DenseIsoViTConfig(dims=(8,), depths=(1,), heads=(2,), hidden=(8,), head=head)
    model = tmp_path / "dense_iso.safetensors"
    safetensors.torch.save_file(DenseIsoViT(config).state_dict(), model)
    (tmp_path / "in").mkdir()
    for number in range(3):
        write_png(tmp_path / "in" / f"{number}.png", samples(3, 8))
    engine, calls = sys.modules["fdat_dense_iso.arch.dense_iso.engine.run"], []
    fold_head = engine.fold_head

    def counting(convolutions, *arguments):
        if not convolutions[0].weight.is_meta:  # of a dry run
            calls.append(1)
        return fold_head(convolutions, *arguments)

    monkeypatch.setattr(engine, "fold_head", counting)
    arguments = [tmp_path / "in", tmp_path / "out", "--model", model, "--device", "cpu"]
    assert CliRunner().invoke(cli.app, list(map(str, arguments))).exit_code == 0
    assert len(list((tmp_path / "out").iterdir())) == 3 and len(calls) == 1


class Neighbours(nn.Module):
    """Half of the frame before, and half of the one after."""

    clip_contract = SimpleNamespace(before=1, after=1)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x[:, :3] + x[:, 6:])


def test_frames_of_an_animation_are_seen_with_their_neighbours_and_count_as_much() -> None:
    network = descriptor(Neighbours(), scale=1, channels=3)
    options = {"target": None, "device": "cpu", "mode": "tile", "cuts": "none", "tile": 16}
    upscaler = Upscaler(model=Path("x"), descriptor=network, options=options)
    frames = np.random.default_rng(0).random((4, 12, 20, 3), np.float32)
    steps: list[tuple[int, int]] = []
    upscale = upscaler.animation(lambda *step: steps.append(step), len(frames))
    results: list[np.ndarray] = []
    upscale(iter([*frames[:3], None]), lambda pixels: results.append(pixels.copy()))
    a, b, c = frames[:3]
    # the fourth is the third again; beyond the ends the clip is mirrored
    expected = [b, (a + c) / 2, (b + c) / 2, c]
    np.testing.assert_allclose(results, expected, atol=1e-6)
    done, total = zip(*steps, strict=True)
    assert list(done) == sorted(done) and set(total) == {done[-1]}
