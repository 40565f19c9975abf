"""The command line with workers, which are in this process: the files, lines and exit codes of one
process."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("typer")
pytest.importorskip("pyvips")
from typer.testing import CliRunner

from fdat_dense_iso.cluster.checkpoint import files_of
from fdat_dense_iso.cluster.parts import UNSEEN
from fdat_dense_iso.command import main as cli
from fdat_dense_iso.command import many
from fdat_dense_iso.command.worker import FileWorker
from tests.helpers.crews import InlineCrew
from tests.helpers.paths import ROOT


class Remote(FileWorker):
    """A worker on a machine that sees no file of the command's."""

    def picture(self, job, token, stamp, content):
        if content is None:
            return UNSEEN, None
        return super().picture(job, None, stamp, content)


@pytest.fixture(params=[FileWorker, Remote])
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request) -> Path:
    @contextlib.contextmanager
    def crew_for(upscaler, files, *, options, **_):
        arguments = {"model_options": [], "device": "cpu", "threads": 1, "folder": os.getcwd()}
        models = [files_of(one.model) for one in upscaler.choices]
        yield InlineCrew([request.param(models, options=options, files=files, **arguments)] * 2)

    monkeypatch.setattr(many, "crew_for", crew_for)
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    coffee = Image.open(ROOT / "samples" / "coffee.png").convert("RGB").resize((48, 40))
    coffee.save("in/clean.png")
    coffee.save("in/web.jpg", quality=30)
    coffee.putalpha(Image.fromarray(np.arange(48 * 40, dtype=np.uint8).reshape(40, 48)))
    coffee.save("in/alpha [1].png")
    coffee.save(os.fsdecode(b"in/bad\xff.png"))
    Path("in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    Path("in/empty.png").touch()
    return tmp_path


def run(output: str, *options: str) -> tuple[int, list[str], dict[str, bytes]]:
    """The exit code, the lines that are said, and the files."""
    result = CliRunner().invoke(cli.app, ["in", output, *options])
    # what workers log is shown here, too, because they are in this process
    said = {line for line in result.output.splitlines() if "upscale-" not in line}
    lines = sorted(line.replace(output, "OUT") for line in said)
    files = {str(one.relative_to(output)): one for one in Path(output).rglob("*.*")}
    # which says when it was made
    kept = {name: path.read_bytes() for name, path in files.items() if path.suffix != ".xml"}
    return result.exit_code, lines, kept


def test_models_are_chosen_and_losses_told_as_in_one_process(folder: Path) -> None:
    alone = run("alone", "--format", "jpg", "--device", "cpu", "--threads", "1")
    assert run("together", "--format", "jpg", "--devices", "cpu:2", "--threads", "1") == alone
    assert alone[0] == 1 and len(alone[2]) == 4
    said = "\n".join(alone[1])
    assert "clean.png: fdat_demo_x2, because" in said and "web.jpg: fdat_real_x2, because" in said
    assert "laid on white" in said


def test_pictures_that_are_streamed(folder: Path, request: pytest.FixtureRequest) -> None:
    options = ("-m", "fdat_demo_x2", "--threads", "1", "--format")
    alone = run("alone", *options, "pyramid", "--device", "cpu")
    assert run("together", *options, "pyramid", "--devices", "cpu:2") == alone
    assert len(alone[2]) == 4
    alone = run("alone2", *options, "dzi", "--device", "cpu")
    together = run("together2", *options, "dzi", "--devices", "cpu:2")
    if "FileWorker" in request.node.name:
        assert together == alone
    else:
        assert "many files, which a machine writes that sees their folder" in str(together[1])
