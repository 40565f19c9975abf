"""The command on pictures that do not fit in memory, by a network that repeats every pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("pyvips")
from PIL import Image
from typer.testing import CliRunner

from fdat_dense_iso.command import large
from fdat_dense_iso.command import main as cli
from fdat_dense_iso.picture.large.job import LargeJob
from tests.helpers.command import doubled
from tests.helpers.fake_models import save_nearest
from tests.helpers.picture_cases import read_png, samples, write_png

TILES = ("--mode", "tile", "--tile", "32", "--overlap", "8")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a network and two pictures, on a machine without memory."""
    save_nearest(tmp_path / "net.safetensors")
    write_png(tmp_path / "a.png", samples(3, 8, 150, 90))
    write_png(tmp_path / "b.png", samples(4, 16, 80, 60))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(large, "free_memory", lambda: 0)
    return tmp_path


def run(*arguments: object):
    result = CliRunner().invoke(cli.app, [*map(str, arguments), "-m", "net.safetensors", *TILES])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_it_is_chosen_and_said(place):
    result = run("a.png", "out.png")
    assert "needs about 0.0 GB of memory, of which 0.0 GB are free: it is streamed" in result.output

    assert "a.png -> out.png (90x150 -> 180x300)" in result.output and result.exit_code == 0
    assert (read_png(place / "out.png") == doubled(samples(3, 8, 150, 90))).all()


def test_a_folder(place):
    result = run("a.png", "b.png", "out/", "--format", "tif", "--suffix", "_x2")
    assert result.exit_code == 0, result.output
    assert {path.name for path in (place / "out").iterdir()} == {"a_x2.tif", "b_x2.tif"}


def test_what_fits_is_not_streamed(place, monkeypatch):
    monkeypatch.setattr(large, "free_memory", lambda: 10**10)
    result = run("a.png", "out.png")
    assert result.exit_code == 0 and "streamed" not in result.output


@pytest.mark.parametrize("name,flags", [("out.dzi", ()), ("out.tif", ("--format", "pyramid"))])
def test_pyramids_of_any_picture(place, monkeypatch, name, flags):
    monkeypatch.setattr(large, "free_memory", lambda: 10**10)
    result = run("a.png", name, *flags)
    assert result.exit_code == 0, result.output
    assert "warning" not in result.output and (place / name).exists()
    result = run("b.png", "many/", *(flags or ("--format", "dzi")))
    assert (place / f"many/b{Path(name).suffix}").exists(), result.output


def test_a_contradiction_of_names(place):
    result = run("a.png", "out.png", "--format", "pyramid")
    assert result.exit_code == 2 and "contradict each other" in result.output


@pytest.mark.parametrize(
    "flags,free,told",
    [
        (("--ensemble", "2"), 0, "--ensemble cannot be used with pictures that are streamed"),
        (("--target", "3x", "--colour-fix", "wavelet"), 0, "--target and --colour-fix cannot be"),
        (("--ensemble", "2"), 10**10, None),
        (("--target", "2x"), 0, None),  # the model's own
    ],
)
def test_what_needs_the_whole_picture(place, monkeypatch, flags, free, told):
    monkeypatch.setattr(large, "free_memory", lambda: free)
    result = run("a.png", "out.png", *flags)
    if told is None:
        assert result.exit_code == 0
    else:
        assert result.exit_code == 1 and told in result.output


def test_formats_that_are_not_streamed(place):
    result = run("a.png", "out.webp")
    assert result.exit_code == 1 and "write PNG, TIFF, JPEG or DeepZoom" in result.output
    Image.fromarray(samples(3, 8)).save(place / "a.bmp")
    assert run("a.bmp", "bmp.png").exit_code == 0  # read as a whole, as ever
    result = run("a.bmp", "out.dzi")
    assert result.exit_code == 1 and "pyramids are made of PNG" in result.output


def test_ctrl_c_and_resume(place, monkeypatch):
    write = large._upscale

    def interrupted(work, upscaler, progress, picture, sink, folder, first):
        def stop(top, rows):
            if top >= 128:
                raise KeyboardInterrupt
            sink(top, rows)

        write(work, upscaler, progress, picture, stop, folder, first)

    monkeypatch.setattr(large, "_upscale", interrupted)
    result = run("a.png", "out.png")
    assert result.exit_code == 130
    assert "out.png.partial holds what is done (144 of 300 rows); --resume goes on" in result.output
    assert not (place / "out.png").exists()
    monkeypatch.setattr(large, "_upscale", write)
    assert "resume it, or overwrite it" in run("a.png", "out.png").output
    monkeypatch.setattr(large, "free_memory", lambda: 10**10)  # it goes on all the same
    result = run("a.png", "out.png", "--resume")
    assert "goes on behind row 144 of 300 of its result" in result.output
    assert (read_png(place / "out.png") == doubled(samples(3, 8, 150, 90))).all()
    assert not (place / "out.png.partial").exists()


def test_a_disk_without_room(place, monkeypatch):
    monkeypatch.setattr(LargeJob, "disk_free", property(lambda self: 1000))
    result = run("a.png", "out.png")
    assert result.exit_code == 1
    assert "needs 0.0 GB in the folder of the result" in result.output
    assert not (place / "out.png.partial").exists()


def test_equal_files_for_transparency(place, monkeypatch):
    run("b.png", "streamed.png")
    monkeypatch.setattr(large, "free_memory", lambda: 10**10)
    run("b.png", "whole.png")
    assert (place / "streamed.png").read_bytes() == (place / "whole.png").read_bytes()
    assert np.asarray(Image.open(place / "whole.png")).shape[2] == 4
