"""Help, versions, and packages that are missing."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytest.importorskip("typer")
pytest.importorskip("pyvips")
from typer.testing import CliRunner

from fdat_dense_iso.command import main as cli
from tests.helpers.paths import ROOT


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
