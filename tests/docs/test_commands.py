"""The commands in README and docs: each can be typed as it stands, and these are run.

Names in capitals (PICTURES, MODEL) stand for files of the reader's own.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image

from tests.helpers.paths import ROOT

PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
PYTHON = re.compile(r"^(?:\.venv/bin/)?python3? (.*)")
WITHOUT_TYPER = {
    *("tools.setup", "tools.structure", "tools.texts", "tools.compare_commits"),
    *("benchmarks.fdat.__main__", "benchmarks.large"),
}


def commands(page: str) -> Iterator[list[str]]:
    """The words behind "python" of every command on a page, in fenced blocks and in lines."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fenced = re.findall(r"^```(?:sh|console)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in fenced for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for line in [*lines, *re.findall(r"`([^`\n]+)`", prose)]:
        if match := PYTHON.match(line.strip()):
            yield shlex.split(match[1], comments=True)


def source_of(module: str) -> tuple[str, str]:
    """The module that ``python -m module`` runs, and its text."""
    spec = importlib.util.find_spec(module)
    assert spec and spec.origin, module
    if spec.submodule_search_locations:
        return source_of(f"{module}.__main__")
    return module, Path(spec.origin).read_text(encoding="utf-8")


def command_of(module: str, source: str) -> object:
    """What a module runs by its last line, ``typer.run(main)`` or ``app()``."""
    call, loaded = ast.parse(source).body[-1].body[0].value, importlib.import_module(module)
    if isinstance(call.func, ast.Name):
        return typer.main.get_command(getattr(loaded, call.func.id))
    app = typer.Typer()
    app.command()(getattr(loaded, call.args[0].id))
    return typer.main.get_command(app)


def assert_known(command: object, words: list[str]) -> None:
    """The options among ``words`` are the command's, or its subcommand's."""
    if words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= known | {"--help"}


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page: str) -> None:
    for words in commands(page):
        if words[0] == "cli.py":
            from fdat_dense_iso.command.main import app

            assert_known(typer.main.get_command(app), words[1:])
        elif words[0] == "-m" and words[1].partition(".")[0] in ("benchmarks", "tools"):
            module, source = source_of(words[1])
            if module in WITHOUT_TYPER:
                assert all(f'"{w}"' in source for w in words if w.startswith("--")), words
            else:
                assert_known(command_of(module, source), words[2:])
        elif words[0].endswith(".py"):
            assert (ROOT / words[0]).exists(), words


def test_there_are_commands() -> None:
    assert len(list(commands("README.md"))) >= 8
    assert sum(len(list(commands(page))) for page in PAGES) >= 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a clone, with the files that the pages name."""
    for name in ("cli.py", "fdat_dense_iso.py", "models"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "samples").mkdir()
    shutil.copy(ROOT / "samples" / "coffee.png", tmp_path / "samples")
    sample = Image.open(ROOT / "samples" / "coffee.png").convert("RGB").resize((64, 48))
    pictures = ["photo.jpg", "photos/one.png", "photos/sub/two.jpg", "scans/a/b.tif", "brick.png"]
    for name in [*pictures, "portraits/one.png", "face.png", "scan.tif"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (sample.convert("L") if name == "face.png" else sample).save(tmp_path / name)
    from fdat_dense_iso.video import PictureVideo, VideoJob

    with PictureVideo(torch.rand(3, 48, 64, 3), 24, None) as video:
        job = VideoJob(video, tmp_path / "clip.mp4", size=(48, 64))
        job.run(lambda frames, deliver, progress: [deliver(frame) for frame in frames])
    return tmp_path


def run_all(page: str, folder: Path) -> int:
    """Run the page's commands of ``cli.py`` that need no cluster; how many there were."""
    written = [words for words in commands(page) if words[0] == "cli.py" and words[1:]]
    written = [words for words in written if "--cluster" not in words]
    runnable = [words for words in written if not any(re.fullmatch("[A-Z.]{2,}", w) for w in words)]
    for words in runnable:
        if "--devices" in words:
            pytest.importorskip("ray")
        done = subprocess.run(
            [sys.executable, *words],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (words, done.stderr[-2000:])
    return len(runnable)


def test_readme_runs_as_written(folder: Path) -> None:
    assert run_all("README.md", folder) >= 4
    with Image.open(folder / "coffee_x2.png") as result:
        assert result.size == tuple(
            2 * side for side in Image.open(ROOT / "samples/coffee.png").size
        )
    assert (folder / "upscaled" / "coffee.png").exists() and (folder / "clip_x2.mp4").exists()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_docs_run_as_written(page: str, folder: Path) -> None:
    run_all(page, folder)
