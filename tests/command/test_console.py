"""What goes wrong, what the command says then, its exit codes, and interrupts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.helpers.picture_cases import (
    claiming,
    encoded,
    samples,
    write_png,
    write_tiff,
)

pytest.importorskip("typer")
pytest.importorskip("pyvips")
from typer.testing import CliRunner

from fdat_dense_iso.command import main as cli
from fdat_dense_iso.command.console import folded
from tests.helpers.command import Model, files_in, run
from tests.helpers.paths import ROOT

BUNDLED = ROOT / "models" / "fdat_demo_x2.safetensors"


def whole_png() -> bytes:
    return encoded(Image.fromarray(samples(3, 8, height=64, width=64)), "PNG")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(
            b"no picture", "the content is neither PNG, JPEG, WebP, TIFF nor GIF", id="text"
        ),
        pytest.param(whole_png()[:-3000], "the PNG data is broken or cut off", id="truncated"),
        pytest.param(whole_png()[:20], "the PNG data is broken or cut off", id="header alone"),
        pytest.param(
            claiming(100_000, 100_000),
            "it claims 100000x100000 pixels; the limit is 200 million",
            id="bomb",
        ),
    ],
)
def test_a_broken_file_is_reported_and_the_rest_is_done(folder: Path, content: bytes, reason: str):
    (folder / "in" / "aa.png").write_bytes(content)
    result = run("in", "out")
    assert result.exit_code == 1
    error, summary = result.stderr.splitlines()
    assert error.startswith(f"error: in/aa.png: {reason}")
    assert summary == "finished: 2 done, 0 skipped, 1 failed"
    assert files_in(folder / "out") == {"a.png", "b.jpg"}


def test_a_link_to_nothing_and_a_name_too_long_fail_alone(folder: Path):
    (folder / "in" / "aa.png").symlink_to(folder / "gone.png")
    (folder / "in" / f"b{'x' * 250}.png").write_bytes((folder / "in" / "a.png").read_bytes())
    (folder / "out").mkdir()
    result = run("in", "out", "--suffix", "_4x")
    assert result.exit_code == 1
    first, second, summary = result.stderr.splitlines()
    assert first.startswith("error: in/aa.png: ") and "File name too long" in second
    assert summary == "finished: 2 done, 0 skipped, 2 failed"


def test_a_line_has_600_characters_and_no_control_characters(folder: Path):
    text = PngInfo()
    for number in range(300):
        text.add_text(f"key \x1b[31m{number}", "value")
    Image.fromarray(samples(3, 8)).save(folder / "in" / "a.png", pnginfo=text)
    result = run("in/a.png", "a.jpg")
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("warning: a.jpg: not kept: ") and line.isprintable()
    assert len(line) <= len("warning: ") + 600


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes with names")
def test_a_pipe_in_a_folder_is_not_waited_for(folder: Path):
    os.mkfifo(folder / "in" / "pipe.png")
    result = run("in", "out")
    assert result.exit_code == 0
    assert "passed over 1 files of kinds that are not read (1 .png): pipe.png" in result.stderr


def test_a_claim_of_too_many_pixels(folder: Path):
    result = run("one.png", "two.png", "--max-megapixels", 0.0002)
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "error: one.png: it claims 17x13 pixels; the limit is 0.0002 million (raise it"
    )
    assert result.stderr.count("\n") == 1


def test_a_file_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    result = run("one.png", "two.png")
    assert (result.exit_code, result.stderr) == (1, "error: one.png: Permission denied\n")


def test_a_result_too_large_for_its_format_is_refused_before_the_work(folder: Path, model: Model):
    write_tiff(folder / "long.tif", samples(1, 8, height=1, width=8192))
    result = run("long.tif", "long.webp")
    assert result.exit_code == 1
    assert "error: long.tif: the result has 16384x2 pixels and WebP ends at 16383" in result.stderr
    assert model.calls == []


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("mode 'x' is\nnot known"), "mode 'x' is not known"),
        (MemoryError(), "MemoryError"),
        (KeyError("weight"), "KeyError: 'weight'"),
        (RuntimeError("CUDA out of memory"), "CUDA out of memory"),
    ],
)
def test_errors_of_the_model(folder: Path, model: Model, error: Exception, line: str):
    model.errors = {1: error}
    result = run("in", "out")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"error: in/a.png: {line}",
        "finished: 1 done, 0 skipped, 1 failed",
    ]
    assert files_in(folder / "out") == {"b.jpg"}


def test_debug_shows_the_traceback(folder: Path, model: Model):
    model.errors = {1: KeyError("weight")}
    result = CliRunner().invoke(cli.app, ["one.png", "two.png", "--model", "m.pth", "--debug"])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr and "KeyError: 'weight'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["none.png", "out"], "none.png: no such file or folder, and no pattern with * or ?"),
        (["in/*.bmp", "out"], "in/*.bmp: found no PNG, JPEG, WebP, TIFF or GIF file"),
        (["one.png", "two.bmp"], "two.bmp: cannot write '.bmp' files; "),
        (["one.png", "in/a.png", "two.png"], ""),
        (
            ["one.png", "out", "--name", "{x}"],
            "--name '{x}': unknown field {x}; there are {stem}, {ext}, {model}",
        ),
        (["one.png", "out", "--target", "wide"], "--target: the target 'wide' is not understood"),
        (["one.png", "out", "--mask", "none.png"], "--mask none.png: No such file or directory"),
        (["one.png", "out", "--mask", "text.png"], "--mask text.png: the content is neither PNG"),
        (["one.png", "out", "--model-option", "heads"], "--model-option: 'heads' is no option"),
        (
            ["one.png", "out", "--device", "cuda:7"],
            "--device cuda:7 is not available here: no cuda:7 at all",
        ),
        (["one.png", "out", "--device", "toaster"], "--device toaster is not available here: "),
        (
            ["one.png", "out", "--device", "meta"],
            "--device meta is not available here: it holds no values",
        ),
    ],
)
def test_wrong_usage(folder: Path, arguments: list[str], line: str):
    (folder / "text.png").write_text("no picture")
    if not line:
        (folder / "two.png").touch()
        line = "two.png: OUTPUT is a file, and INPUT is more than one file; give a folder"
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {line}")
    assert result.stderr.count("\n") == 1
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["one.png", "out", "--what"],
        ["one.png", "out", "--tile", "0"],
        ["one.png", "out", "--format", "gif"],
        ["one.png", "out", "--quality", "101"],
        ["one.png", "out", "--precision", "fp8"],
        ["one.png", "out", "--mode", "tiles"],
        ["one.png", "out", "--ensemble", "3"],
        ["one.png", "out", "--seamless", "yes"],
    ],
)
def test_wrong_options(folder: Path, arguments: list[str]):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error" in result.stderr
    assert not (folder / "out").exists()


def test_one_path_alone_is_too_little(folder: Path):
    result = run("one.png")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: only one.png is given; give INPUT and OUTPUT")


def test_a_name_of_no_bundled_model(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(source: Path, **options: str):
        raise ValueError(f"{source}: no such file; check the path")

    monkeypatch.setattr(sys.modules["fdat_dense_iso.arch"], "load_model", fail)
    result = run("one.png", "two.png", model="fdat_demo_x3")
    advice = "check the path, or name a bundled model: dense_iso_demo_x4, fdat_demo_x2,"
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: fdat_demo_x3: no such file; {advice}")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("net.safetensors: holds no\ntensors"), "net.safetensors: holds no tensors"),
        (
            FileNotFoundError(2, "No such file or directory"),
            "net.safetensors: No such file or directory",
        ),
    ],
)
def test_a_model_that_cannot_be_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
):
    def fail(source: Path, **options: str):
        raise error

    monkeypatch.setattr(sys.modules["fdat_dense_iso.arch"], "load_model", fail)
    result = run("one.png", "out")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {line}\n")


def test_an_interrupt_leaves_whole_files(folder: Path, model: Model):
    model.errors = {2: KeyboardInterrupt()}
    result = run("in", "out", "--recursive")
    assert result.exit_code == 130
    assert result.stdout.splitlines() == ["in/a.png -> out/a.png (17x13 -> 34x26)"]
    assert result.stderr == "interrupted: the results written so far are complete\n"
    assert files_in(folder / "out") == {"a.png"}


def test_an_interrupt_that_python_drops_in_a_finalizer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def interrupted(model, image, *, progress, **options):
        Finalized()
        progress(1, 1)
        raise AssertionError("the interrupt was lost")

    monkeypatch.setattr(sys.modules["fdat_dense_iso.upscale"], "upscale_image", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = run("one.png", "two.png")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "interrupted: the results written so far are complete\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no such file names")
def test_odd_file_names(folder: Path):
    odd = [b"new\nline.png", b"caf\xe9.png", "日本 [x]{y} %20=.png".encode()]
    for name in odd:
        shutil.copy(b"one.png", name)
    result = run("*n[el][we]*.png", "out")
    assert result.stdout == "new\\nline.png -> out/new\\nline.png (17x13 -> 34x26)\n"
    result = run("caf*", "out")
    assert result.stdout == "caf\\udce9.png -> out/caf\\udce9.png (17x13 -> 34x26)\n"
    result = run("日本 [x]{y} %20=.png", "out", "--name", "{stem}{{}}")
    assert result.exit_code == 0
    assert len(list((folder / "out").iterdir())) == 3
    assert (folder / "out" / "日本 [x]{y} %20={}.png").is_file()


def test_names_that_the_encoding_of_the_output_lacks(folder: Path):
    """Windows writes cp1252 into files and pipes."""
    shutil.copy(folder / "one.png", folder / "in" / "\u0142\u65e5.png")
    result = CliRunner(charset="cp1252").invoke(
        cli.app, ["in", "out", "--suffix", "\u00e9", "--model", "net.safetensors"]
    )
    assert result.exit_code == 0, result.exception
    assert files_in(folder / "out") == {"a\u00e9.png", "b\u00e9.jpg", "\u0142\u65e5\u00e9.png"}
    last = "in/\\u0142\\u65e5.png -> out/\\u0142\\u65e5\u00e9.png (17x13 -> 34x26)"
    assert result.stdout.splitlines()[-1] == last
    again = CliRunner(charset="cp1252").invoke(
        cli.app, ["in", "out", "--suffix", "\u00e9", "--model", "net.safetensors"]
    )
    assert "out/\\u0142\\u65e5\u00e9.png exists" in again.stderr


@pytest.mark.parametrize("output", ["/dev/full", "in/a.png", "in/a.png/below", "in/a.png/x.png"])
def test_an_output_that_is_no_folder(model: Model, folder: Path, output: str):
    result = run("in/a.png" if "below" in output or "x.png" in output else "in", output)
    assert result.exit_code == 2
    assert "File exists" not in result.stderr
    assert "give a folder" in result.stderr or "results go into a folder" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize("arguments", [["--version"], ["--info", str(BUNDLED)]])
def test_an_output_that_nobody_reads_ends_quietly(arguments: list[str]):
    """With the code that shells give for SIGPIPE, as `yes | true` ends."""
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, str(ROOT / "cli.py"), *arguments]
    result = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="the shell's way to close streams")
@pytest.mark.parametrize(
    ("closed", "model", "code"),
    [(">&-", BUNDLED, 0), ("<&- >&- 2>&-", BUNDLED, 0), ("<&- >&- 2>&-", "gone.pth", 2)],
)
def test_streams_that_are_closed(tmp_path: Path, closed: str, model: Path, code: int):
    """As under pythonw, which has none; a result must not get the number of one, either."""
    write_png(tmp_path / "in.png", samples(3, 8, height=16, width=16))
    line = [sys.executable, ROOT / "cli.py", tmp_path / "in.png", tmp_path / "out", "-m", model]
    shell = ["sh", "-c", f'"$@" {closed}', "sh", *line]
    result = subprocess.run(shell, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (code, b"", b"")
    assert (tmp_path / "out" / "in.png").is_file() == (code == 0)


def test_lines_are_folded_where_a_space_allows_it():
    text = "A: b\n  config: one two three\n  long: " + "x" * 30 + " y"
    assert folded(text, 16).splitlines() == [
        "A: b",
        "  config: one",
        "      two three",
        "  long:",
        "      " + "x" * 30,
        "      y",
    ]
    assert folded(text, 80) == text
