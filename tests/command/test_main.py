"""The command: what it reads and writes, and what it leaves alone."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.picture_cases import (
    ICC,
    exif_block,
    read_picture_file,
    samples,
    write_picture_file,
)

pytest.importorskip("typer")
pytest.importorskip("pyvips")
from typer.testing import CliRunner

from fdat_dense_iso.command import main as cli
from tests.helpers.command import Model, doubled, files_in, run


def test_one_file(folder: Path, model: Model):
    result = run("one.png", "two.tif")
    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        "one.png -> two.tif (17x13 -> 34x26)\n",
        "",
    )
    np.testing.assert_array_equal(read_picture_file(folder / "two.tif"), doubled(samples(3, 8)))
    assert model.loaded == [Path("net.safetensors")]


def test_a_folder(folder: Path, model: Model):
    (folder / "in" / "deep").mkdir()
    write_picture_file(folder / "in" / "deep" / "c.webp", samples(4, 8))
    result = run("in", "out", "--recursive", "--suffix", "_x2", "--format", "png")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "in/a.png -> out/a_x2.png (17x13 -> 34x26)",
        "in/b.jpg -> out/b_x2.png (17x13 -> 34x26)",
        "in/deep/c.webp -> out/deep/c_x2.png (17x13 -> 34x26)",
    ]
    assert result.stderr == "finished: 3 done, 0 skipped, 0 failed\n"
    assert files_in(folder / "out") == {"a_x2.png", "b_x2.png", "deep/c_x2.png"}
    np.testing.assert_array_equal(
        read_picture_file(folder / "out" / "a_x2.png"), doubled(samples(2, 16))
    )
    np.testing.assert_array_equal(
        read_picture_file(folder / "out" / "deep" / "c_x2.png"), doubled(samples(4, 8))
    )
    assert [call["shape"] for call in model.calls] == [
        (1, 13, 17, 4),
        (1, 13, 17, 3),
        (1, 13, 17, 4),
    ]
    assert len(model.loaded) == 1


def test_folders_that_are_left_out_are_named(folder: Path):
    (folder / "in" / "deep").mkdir()
    told = run("in", "other").stderr.splitlines()
    assert told[0] == "warning: in: folders below it are left out without --recursive: deep"
    assert files_in(folder / "other") == {"a.png", "b.jpg"}


def test_a_pattern_and_a_name(folder: Path):
    assert run("**/*.png", "out", "--name", "{model} {stem}", model="dir/net.v1.pth").exit_code == 0
    assert files_in(folder / "out") == {"net.v1 one.png", "in/net.v1 a.png"}


def test_options_go_to_upscale_image(folder: Path, model: Model):
    run("one.png", "out")
    run(
        *(
            "one.png",
            "x.png",
            "--target",
            "3x",
            "--mode",
            "tile",
            "--tile",
            64,
            "--overlap",
            8,
            "--batch",
            4,
        ),
        *(
            "--precision",
            "bf16",
            "--alpha",
            "resize",
            "--device",
            "cpu",
            "--threads",
            torch.get_num_threads(),
        ),
        *("--seamless", "both", "--ensemble", 8, "--colour-fix", "wavelet", "--mask", "in/a.png"),
    )
    plain, full = model.calls
    assert plain == {
        "shape": (1, 13, 17, 3),
        "target": None,
        "mode": "auto",
        "tile": None,
        "overlap": None,
        "batch": None,
        "precision": "auto",
        "alpha": "model",
        "seamless": "none",
        "border": "auto",
        "cuts": "auto",
        "ensemble": 1,
        "colour_fix": "none",
        "mask": None,
        "device": torch.device("cpu"),
    }
    values = samples(2, 16) / 65535
    np.testing.assert_allclose(full.pop("mask"), values[..., 0] * values[..., 1], atol=1e-6)
    assert full.pop("target").factor == 3
    assert full == {
        "shape": (1, 13, 17, 3),
        "mode": "tile",
        "tile": 64,
        "overlap": 8,
        "batch": 4,
        "precision": "bf16",
        "alpha": "resize",
        "seamless": "both",
        "border": "auto",
        "cuts": "auto",
        "ensemble": 8,
        "colour_fix": "wavelet",
        "device": torch.device("cpu"),
    }
    assert Image.open("x.png").size == (51, 39)


def test_options_of_the_model(folder: Path, model: Model):
    result = run(
        "one.png", "out", "--model-option", "heads=6,8,6,8", "--model-option", "gated_half=first"
    )
    assert result.exit_code == 0, result.stderr
    assert model.options == {"heads": "6,8,6,8", "gated_half": "first"}


def test_threads(folder: Path):
    before = torch.get_num_threads()
    try:
        run("one.png", "out", "--threads", before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_quality(folder: Path):
    for quality in (20, 90):
        assert run("one.png", f"{quality}.jpg", "--quality", quality).exit_code == 0
    assert (folder / "20.jpg").stat().st_size < (folder / "90.jpg").stat().st_size


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_profile_exif_and_orientation(folder: Path, suffix: str):
    Image.fromarray(samples(3, 8)).save("in.jpg", exif=exif_block(6).tobytes(), icc_profile=ICC)
    assert run("in.jpg", f"out{suffix}").exit_code == 0
    image = Image.open(f"out{suffix}")
    assert image.size == (26, 34)
    assert image.info["icc_profile"] == ICC
    exif = image.getexif()
    assert (exif[0x0112], exif[0x010F], exif[0x8298]) == (1, "Söhne", "(c) somebody")
    photo = exif.get_ifd(0x8769)
    assert (photo[0x9003], photo[0xA002], photo[0xA003]) == ("2020:02:03 04:05:06", 26, 34)


def test_warnings_are_lines_on_the_error_stream(folder: Path):
    result = run("in/a.png", "a.jpg")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "warning: a.jpg: JPEG holds 8 bits per channel; 16 bits were rounded to 8",
        "warning: a.jpg: JPEG holds no transparency; the picture is laid on white",
    ]


def test_quiet(folder: Path):
    result = run("in", "out", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_progress_in_a_terminal(folder: Path):
    shutil.copy(folder / "one.png", folder / "in" / "z [b].png")
    arguments = ["in", "out", "--model", "net.pth"]
    result = CliRunner().invoke(cli.app, arguments, env={"FORCE_COLOR": "1", "COLUMNS": "120"})
    assert result.exit_code == 0
    assert "z [b].png" in result.stderr  # the last name on the bar
    assert "%" in result.stderr and "\x1b[" in result.stderr
    assert "\x1b" not in result.stdout and result.stdout.count(" -> ") == 6


def test_a_single_result_that_exists_is_an_error(folder: Path, model: Model):
    (folder / "two.png").write_bytes(b"mine")
    result = run("one.png", "two.png")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: two.png exists; --overwrite replaces it\n"
    assert (folder / "two.png").read_bytes() == b"mine"
    assert model.loaded == []
    assert run("one.png", "two.png", "--overwrite").exit_code == 0
    assert Image.open("two.png").size == (34, 26)


def test_in_folders_what_exists_is_skipped(folder: Path, model: Model):
    (folder / "out").mkdir()
    (folder / "out" / "a.png").write_bytes(b"mine")
    result = run("in", "out")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["in/b.jpg -> out/b.jpg (17x13 -> 34x26)"]
    assert result.stderr.splitlines() == [
        "skipped: out/a.png exists; --overwrite replaces it",
        "finished: 1 done, 1 skipped, 0 failed",
    ]
    assert (folder / "out" / "a.png").read_bytes() == b"mine"

    again = run("in", "out")
    assert (again.exit_code, again.stdout) == (0, "")
    assert again.stderr.splitlines()[-1] == "finished: 0 done, 2 skipped, 0 failed"
    assert len(model.loaded) == 1
    assert run("in", "out", "--overwrite").stdout.count("->") == 4


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_an_input_is_never_replaced(folder: Path, overwrite: list[str]):
    before = (folder / "one.png").read_bytes()
    for output in ("one.png", ".", "in/../one.png"):
        result = run("one.png", output, *overwrite)
        assert (result.exit_code, result.stdout) == (2, "")
        assert re.fullmatch(
            r"error: .*one.png: would replace the input one.png; .*\n", result.stderr
        )
    assert (folder / "one.png").read_bytes() == before


def test_a_file_that_appears_meanwhile_is_kept(
    folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch
):
    original = model.upscale_image

    def slow(*arguments, **options):
        (folder / "two.png").write_bytes(b"theirs")
        return original(*arguments, **options)

    monkeypatch.setattr(sys.modules["fdat_dense_iso.upscale"], "upscale_image", slow)
    result = run("one.png", "two.png")
    assert result.exit_code == 1
    assert result.stderr == "error: one.png: two.png exists and is not to be replaced\n"
    assert (folder / "two.png").read_bytes() == b"theirs"
