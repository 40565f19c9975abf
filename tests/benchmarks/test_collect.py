"""The page of the benchmarks, from figures whose numbers are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from PIL import Image

from benchmarks.collect import collect, markdown
from benchmarks.measure import interleaved, spread, write_figures

ABOUT = {"date": "2026-11-20", "machine": "two cores"}
SPEED = {
    "command": "python -m benchmarks.fdat speed",
    "what": "speed",
    "rows": [
        {"preset": "tiny", "size": "64x64", "engine s": 0.5, "spread": {"engine": [0.4, 0.5, 0.75]}}
    ],
}
GROWTH = {
    "command": "python -m benchmarks.fdat growth --sizes 8x8 8x16",
    "what": "growth",
    "rows": [
        {
            "preset": "tiny",
            "size": size,
            "s/Mpx": 12.0,
            "to the first": 1.0,
            "spread": {"engine": [11.0, 12.0, 13.5]},
        }
        for size in ("8x8", "8x16")
    ],
}
MEMORY = {
    "command": "python -m benchmarks.fdat memory",
    "what": "memory",
    "rows": [
        {"preset": "tiny", "size": "8x8", "contestant": name, "peak MiB": 3.5}
        for name in ("engine", "tiles")
    ],
}
TRAIN = {
    "command": "python -m benchmarks.dense_iso train samples",
    "what": "train",
    "curve": [{"step": 0, "mse": 0.001, "psnr": 30.0}, {"step": 25, "mse": 0.0001, "psnr": 40.0}],
    "bilinear": 30.0,
    "bicubic": 31.5,
    "cpu_seconds": 12.3,
    "without_gradient": [],
    "not_finite": [],
    "not_moved": ["head.0.bias"],
}


def test_page(tmp_path: Path) -> None:
    figures, docs = tmp_path / "figures", tmp_path / "docs"
    figures.mkdir()
    for name, content in {
        "a-speed": SPEED,
        "b-growth": GROWTH,
        "c-memory": MEMORY,
        "d-train": TRAIN,
    }.items():
        (figures / f"{name}.json").write_text(json.dumps({**ABOUT, **content}))
    collect(figures, docs)
    page = (docs / "benchmarks.md").read_text(encoding="utf-8")
    assert "| tiny | 64x64 | 0.5 | engine 0.4-0.75 s |" in page
    assert "| tiny | 8x16 | 12.0 | 1.0 | engine 11-13.5 s/Mpx |" in page
    assert "| tiny | 8x8 | tiles | 3.5 |" in page
    assert page.count("2026-11-20, two cores.") == 4
    assert all(content["command"] in page for content in (SPEED, GROWTH, MEMORY, TRAIN))
    assert "bicubic 31.50 dB; 12 s" in page and "| 25 | 40.00 dB |" in page
    assert "that never moved: head.0.bias" in page and "without a gradient: none" in page
    assert "Not yet measured" in page
    for name in ("a-speed", "b-growth", "c-memory"):
        assert f"(images/{name}.png)" in page
        with Image.open(docs / "images" / f"{name}.png") as picture:
            assert picture.width > 400
        assert (docs / "images" / f"{name}.png").stat().st_size < 100_000


def test_columns_that_only_some_rows_have() -> None:
    assert markdown([{"a": 1}, {"a": 2, "b": 3}]).splitlines()[2:] == ["| 1 |  |", "| 2 | 3 |"]


def test_other_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match=r"holds no \*\.json"):
        collect(tmp_path, tmp_path)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(
        typer.BadParameter, match=r"x\.json holds no figures of a benchmark known here"
    ):
        collect(tmp_path, tmp_path / "docs")
    assert not (tmp_path / "docs" / "benchmarks.md").exists()


def test_works_take_turns_and_the_first_round_does_not_count() -> None:
    now, order = [0.0], []

    def work(name: str, seconds: float) -> None:
        order.append(name)
        now[0] += seconds

    times = interleaved({"a": lambda: work("a", 1), "b": lambda: work("b", 2)}, 3, lambda: now[0])
    assert order == ["a", "b"] * 4
    assert times == {"a": [1, 1, 1], "b": [2, 2, 2]}
    assert spread([3.0, 1.0, 2.0]) == [1.0, 2.0, 3.0]


def test_figures_say_where_they_are_from(tmp_path: Path) -> None:
    write_figures(tmp_path / "new" / "x.json", "benchmarks.fdat", {"what": "speed"})
    written = json.loads((tmp_path / "new" / "x.json").read_text())
    assert written["command"].startswith("python -m benchmarks.fdat") and written["what"] == "speed"
    assert set(written) == {"command", "date", "machine", "what"}
    write_figures(None, "benchmarks.fdat", {})
