"""The command: what it reads and writes, what it says, and its exit codes.

It runs in this process, on a stand-in for the model that repeats every pixel.
More than 400 lines, because every option and message is one case of the same stand-in.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.picture_cases import (
    ICC,
    claiming,
    encoded,
    exif_block,
    read_picture_file,
    samples,
    write_picture_file,
    write_png,
    write_tiff,
)

pytest.importorskip("typer")
pytest.importorskip("pyvips")
from typer.testing import CliRunner

from fdat_dense_iso.command import main as cli
from tests.helpers.paths import ROOT


class Model:
    """Stand-in for arch and upscale: a model of scale 2 that repeats every pixel, in four tiles."""

    scale = 2
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.calls: list[dict] = []
        self.loaded: list[Path] = []
        self.errors: dict[int, BaseException] = {}

    def load_model(self, source: Path, **options: str) -> Model:
        self.loaded.append(source)
        self.options = options
        return self

    def to(self, device: torch.device) -> None:
        if device.type != "cpu":
            raise RuntimeError(f"no {device}\nat all")

    def upscale_image(self, model, image, *, target=None, progress=None, **options):
        assert model is self and image.dtype == torch.float32 and image.ndim == 4
        self.calls.append(options | {"target": target, "shape": tuple(image.shape)})
        for done in range(1, 5):
            progress(done, 4)
            if done == 2 and len(self.calls) in self.errors:
                raise self.errors[len(self.calls)]
        factor = 2 if target is None else target.factor
        return image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)

    @staticmethod
    def parse_options(texts: list[str]) -> dict[str, str]:
        if not all("=" in text for text in texts):
            raise ValueError(f"{texts[0]!r} is no option")
        return dict(text.split("=") for text in texts)  # type: ignore[misc]

    @staticmethod
    def parse_target(text: str):
        if text != "3x":
            raise ValueError(f"the target {text!r} is not understood")
        return SimpleNamespace(factor=3, size=lambda height, width: (height * 3, width * 3))


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    model = Model()
    arch, upscale = ModuleType("arch"), ModuleType("upscale")
    arch.load_model, arch.parse_options = model.load_model, model.parse_options  # type: ignore[attr-defined]
    upscale.upscale_image = model.upscale_image  # type: ignore[attr-defined]
    upscale.parse_target = model.parse_target  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fdat_dense_iso.arch", arch)
    monkeypatch.setitem(sys.modules, "fdat_dense_iso.upscale", upscale)
    return model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a.png (grey with alpha, 16 bit), b.jpg, deep/c.webp in `in`, and
    one.png."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write_png(tmp_path / "one.png", samples(3, 8))
    write_png(tmp_path / "in" / "a.png", samples(2, 16))
    write_picture_file(tmp_path / "in" / "b.jpg", samples(3, 8))
    write_picture_file(tmp_path / "in" / "deep" / "c.webp", samples(4, 8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: object, model: str = "net.safetensors"):
    result = CliRunner().invoke(cli.app, [*map(str, arguments), "--model", model])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def doubled(values: np.ndarray) -> np.ndarray:
    return values.repeat(2, axis=0).repeat(2, axis=1)


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# what is done


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


# what exists


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


# what goes wrong


def whole_png() -> bytes:
    return encoded(Image.fromarray(samples(3, 8, height=64, width=64)), "PNG")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(b"no picture", "the content is neither PNG, JPEG, WebP nor TIFF", id="text"),
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
        (["in/*.gif", "out"], "in/*.gif: found no PNG, JPEG, WebP or TIFF file"),
        (["one.png", "two.gif"], "two.gif: cannot write '.gif' files; "),
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
            "--device cuda:7 is not to be had here: no cuda:7 at all",
        ),
        (["one.png", "out", "--device", "toaster"], "--device toaster is not to be had here: "),
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
        ["one.png"],
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


# help, versions, packages


def test_help_says_the_rules():
    result = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    for part in (
        "Exit codes: 0 all done",
        "130 interrupted",
        "an input is never replaced",
        "--overwrite",
        "--tile",
    ):
        assert part in text


def test_version():
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("no pyproject.toml yet")
    result = CliRunner().invoke(cli.app, ["--version"])
    assert re.fullmatch(
        r"fdat-dense-iso \d+\.\d+\.\d+, torch .+, spandrel .+, pyvips .+\n", result.output
    )


def python(code: str, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


def test_help_and_usage_errors_do_not_import_torch():
    code = (
        "import sys\nfrom fdat_dense_iso.command import main as cli\n"
        "for arguments in (['--help'], ['none.png', 'x', '-m', 'x'], ['--version']):\n"
        "    sys.argv = ['cli.py', *arguments]\n"
        "    try: cli.app()\n"
        "    except (SystemExit, FileNotFoundError): pass\n"
        "engine = {'torch', 'spandrel', 'fdat_dense_iso.arch', 'fdat_dense_iso.upscale'}\n"
        "print('imported:', engine & set(sys.modules))"
    )
    result = python(code)
    assert result.stdout.splitlines()[-1] == "imported: set()", result.stderr


@pytest.mark.parametrize("package", ["typer", "rich", "pyvips"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(package: str):
    code = f"import sys; sys.modules[{package!r}] = None; from fdat_dense_iso.command import main; main.app()"
    result = python(code, "a.png", "b.png", "--model", "m.pth")
    assert result.returncode == 2
    assert (
        package in result.stderr
        and "pip install -r requirements.txt -r requirements-cli.txt" in result.stderr
    )
    assert result.stderr.count("\n") == 1


def test_as_a_module_from_the_root():
    line = [sys.executable, "-m", "cli", "none.png", "out", "--model", "net.pth"]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: none.png: no such file or folder")
