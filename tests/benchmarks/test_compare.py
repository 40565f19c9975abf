"""The comparison runs every way and writes its table."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from typer import Typer
from typer.testing import CliRunner

from benchmarks.compare import compare
from tests.helpers.paths import MODELS, ROOT


def test_a_table_of_every_way(tmp_path: Path) -> None:
    with Image.open(ROOT / "samples" / "coffee.png") as sample:
        sample.convert("RGB").crop((200, 100, 264, 148)).save(tmp_path / "part.png")
    page = tmp_path / "page.md"
    page.write_text("<!-- compared -->\n<!-- end of compared -->\n")
    app = Typer()
    app.command()(compare)
    arguments = [tmp_path / "part.png", "--model", MODELS / "fdat_demo_x2.safetensors"]
    done = CliRunner().invoke(app, [*map(str, arguments), "--rounds", "1", "--page", str(page)])
    assert done.exit_code == 0, done.output
    rows = [line.split(" | ") for line in page.read_text().splitlines() if "part, 32x24" in line]
    scores = {row[1]: float(row[2].split(" / ")[0]) for row in rows}
    assert scores["fdat_demo_x2, this pack"] > scores["bicubic"] + 1


def test_models_of_one_scale_are_asked_for(tmp_path: Path) -> None:
    app = Typer()
    app.command()(compare)
    models = [f"--model={MODELS / name}.safetensors" for name in ("fdat_demo_x2", "fdat_demo_x4")]
    done = CliRunner().invoke(app, [str(tmp_path / "x.png"), *models])
    assert done.exit_code == 2 and "[2, 4]" in done.output
