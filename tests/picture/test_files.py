"""Which files are read and where the results go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("pyvips")
from fdat_dense_iso.picture.files import PlanError, plan_jobs


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of empty files, which is the working directory; the plan never opens them."""
    for name in (
        "one.png",
        "x.gif",
        "in/b.jpg",
        "in/a.PNG",
        "in/c.tiff",
        "in/notes.txt",
        "in/.hidden.png",
        "in/deep/d.webp",
        "in/deep/er/e.png",
        "in/.cache/f.png",
        "odd/x[1].png",
        "odd/noname",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(*inputs: str, to: str, **options) -> dict[str, str]:
    return {
        job.source.as_posix(): job.target.as_posix() for job in plan_jobs(inputs, to, **options)
    }


@pytest.mark.parametrize(
    ("inputs", "output", "options", "expected"),
    [
        pytest.param(["one.png"], "two.jpg", {}, {"one.png": "two.jpg"}, id="file to file"),
        pytest.param(
            ["one.png"], "new/two.PNG", {}, {"one.png": "new/two.PNG"}, id="file in a new folder"
        ),
        pytest.param(["one.png"], "in", {}, {"one.png": "in/one.png"}, id="file to folder"),
        pytest.param(["x.gif"], "x.mp4", {}, {"x.gif": "x.mp4"}, id="GIF to a video"),
        pytest.param(["x.gif"], "new", {}, {"x.gif": "new/x.gif"}, id="GIF to a folder"),
        pytest.param(
            ["one.png"], "new", {}, {"one.png": "new/one.png"}, id="no suffix is a folder"
        ),
        pytest.param(["one.png"], "v1.5/", {}, {"one.png": "v1.5/one.png"}, id="slash is a folder"),
        pytest.param(
            ["odd/noname"], "x.png", {}, {"odd/noname": "x.png"}, id="the input's name is free"
        ),
        pytest.param(
            ["odd/x[1].png"],
            "new",
            {},
            {"odd/x[1].png": "new/x[1].png"},
            id="a file before a pattern",
        ),
        pytest.param(
            ["in"],
            "new",
            {},
            {"in/a.PNG": "new/a.PNG", "in/b.jpg": "new/b.jpg", "in/c.tiff": "new/c.tiff"},
            id="folder",
        ),
        pytest.param(
            ["in"],
            "new",
            {"recursive": True},
            {
                "in/a.PNG": "new/a.PNG",
                "in/b.jpg": "new/b.jpg",
                "in/c.tiff": "new/c.tiff",
                "in/deep/d.webp": "new/deep/d.webp",
                "in/deep/er/e.png": "new/deep/er/e.png",
            },
            id="recursive",
        ),
        pytest.param(
            ["in/*.[jt]*"],
            "new",
            {},
            {"in/b.jpg": "new/b.jpg", "in/c.tiff": "new/c.tiff"},
            id="pattern",
        ),
        pytest.param(
            ["in/**/*.png"],
            "new",
            {},
            {"in/deep/er/e.png": "new/deep/er/e.png"},
            id="pattern of any depth",
        ),
        pytest.param(
            ["*/deep/*"],
            "new",
            {},
            {"in/deep/d.webp": "new/in/deep/d.webp"},
            id="pattern of folders",
        ),
        pytest.param(
            ["one.png", "in/*.jpg", "one.png"],
            "new",
            {},
            {"one.png": "new/one.png", "in/b.jpg": "new/b.jpg"},
            id="several, one twice",
        ),
        pytest.param(
            ["in"],
            "new",
            {"file_format": "png", "suffix": "_x2"},
            {"in/a.PNG": "new/a_x2.png", "in/b.jpg": "new/b_x2.png", "in/c.tiff": "new/c_x2.png"},
            id="format and suffix",
        ),
        pytest.param(
            ["in/a.PNG"],
            "new",
            {"name": "{model}-{stem}-{ext}", "model": "net", "suffix": "!"},
            {"in/a.PNG": "new/net-a-PNG!.PNG"},
            id="name",
        ),
    ],
)
def test_plans(inputs: list[str], output: str, options: dict, expected: dict[str, str]):
    assert planned(*inputs, to=output, **options) == expected


@pytest.mark.parametrize(
    ("inputs", "output", "options", "message"),
    [
        (["none.png"], "new", {}, "none.png: no such file or folder"),
        (
            ["none/*.png"],
            "new",
            {},
            r"none/\*.png: found no PNG, JPEG, WebP, TIFF or GIF file and no video$",
        ),
        (["in/.cache/.."], "in/b.jpg", {}, "OUTPUT is a file, and INPUT is more than one file"),
        (
            ["one.png"],
            "two.bmp",
            {},
            "cannot write '.bmp' files; .*a folder of this name ends in a slash",
        ),
        (["one.png"], "two.png", {"file_format": "jpg"}, "suffix and --format jpg contradict"),
        (["one.png"], "two.png", {"suffix": "_x2"}, "OUTPUT is a file here"),
        (["odd/noname"], "new", {}, "its name does not say which format to write; use --format"),
        (["one.png"], "one.png", {}, "would replace the input one.png"),
        (["one.png"], "./in/../one.png", {}, "would replace the input one.png"),
        (
            ["in"],
            "in",
            {},
            "in/a.PNG: would replace the input in/a.PNG; give another OUTPUT or --suffix",
        ),
        (
            ["in/a.PNG", "in/c.tiff"],
            "new",
            {"name": "x", "file_format": "png"},
            "would both become new/x.png",
        ),
        (["one.png"], "new", {"name": "{steam}"}, r"unknown field \{steam\}; there are \{stem\}"),
        (["one.png"], "new", {"name": "{stem.x}"}, "unknown field"),
        (["one.png"], "new", {"name": "{stem!r}"}, "unknown field"),
        (["one.png"], "new", {"name": "{stem:99}"}, "unknown field"),
        (["one.png"], "new", {"name": "{stem"}, "--name '{stem': "),
        (["one.png"], "new", {"name": "../{stem}"}, "hold no slash"),
        (["one.png"], "new", {"suffix": "/x"}, "hold no slash"),
        (["one.png"], "new", {"name": "."}, "no usable file name"),
        (["one.png"], "new", {"name": ""}, "no usable file name"),
    ],
)
def test_what_does_not_fit_together(inputs: list[str], output: str, options: dict, message: str):
    with pytest.raises(PlanError, match=message):
        planned(*inputs, to=output, **options)


def test_an_empty_folder_says_how_to_go_deeper():
    Path("in/only").mkdir()
    with pytest.raises(
        PlanError, match=r"found no PNG, .*folders below it are read with --recursive"
    ):
        planned("in/only", to="new")
    with pytest.raises(PlanError, match=r"file and no video$"):
        planned("in/only", to="new", recursive=True)


@pytest.mark.skipif(not hasattr(os, "link"), reason="no links")
@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_other_names_of_an_input_are_not_replaced(link, photos: Path):
    link(photos / "one.png", photos / "other.png")
    with pytest.raises(PlanError, match=r"would replace the input one.png"):
        planned("one.png", to="other.png")


def test_no_input_is_replaced_by_the_result_of_another():
    Path("in/b.png").touch()
    with pytest.raises(
        PlanError, match=r"in/b.png: would replace the input in/b.png|in/a.PNG: would replace"
    ):
        planned("in/b.jpg", "in/b.png", to="in", file_format="png")


def test_results_of_earlier_runs_are_no_inputs():
    first = planned("in", to="in", suffix="_x2")
    for target in first.values():
        Path(target).touch()
    assert planned("in", to="in", suffix="_x2") == first
    assert planned("in", to="in", name="{stem}_x2") == first
    assert "in/a_x2.PNG" in planned("in", to="new", suffix="_x2")

    Path("in/results").mkdir()
    Path("in/results/a.PNG").touch()
    below = planned("in", to="in/results", recursive=True)
    assert "in/deep/d.webp" in below
    assert "in/results/a.PNG" not in below
    assert list(planned("in/**/*.PNG", to="in/results")) == ["in/a.PNG", "in/a_x2.PNG"]


def test_an_explicit_file_is_always_an_input():
    Path("in/b_x2.jpg").touch()
    assert planned("in/b_x2.jpg", to="in", suffix="_x2") == {"in/b_x2.jpg": "in/b_x2_x2.jpg"}


def test_links_to_folders_are_not_followed(photos: Path):
    (photos / "in" / "loop").symlink_to(photos / "in", target_is_directory=True)
    assert not any("loop" in source for source in planned("in", to="new", recursive=True))


@pytest.mark.parametrize("pattern", ["dir [v2]/*.png", "*r [v2]/*.png", "dir [v2]/a [[]x].png"])
def test_brackets_in_the_names_of_folders(pattern: str):
    """What exists is no pattern; and where a pattern finds nothing, brackets are brackets."""
    Path("dir [v2]").mkdir()
    Path("dir [v2]/a [x].png").touch()
    base = "dir [v2]/" if pattern.startswith("*") else ""
    assert planned(pattern, to="new") == {"dir [v2]/a [x].png": f"new/{base}a [x].png"}


def test_what_is_passed_over_is_named_and_counted(caplog: pytest.LogCaptureFixture):
    for name in ("a.psd", "b.psd", "c.raw", "noname"):
        Path("in", name).touch()
    planned("in", to="new")
    line, below = caplog.messages
    assert below == "in: folders below it are left out without --recursive: deep"
    assert line == (
        "in: passed over 5 files of kinds that are not read (2 .psd, 1 .raw, "
        "1 no suffix, 1 .txt): a.psd, b.psd, c.raw, noname, notes.txt"
    )


def test_the_second_choice_of_a_video_is_no_place_of_another():
    """Matroska, where MP4 cannot hold the sound; nothing is chosen where a format was asked for."""
    Path("videos").mkdir()
    for name in ("a.wmv", "a.mkv", "b.vob", "c.mov"):
        Path("videos", name).touch()
    jobs = plan_jobs(["videos"], "new")
    assert {job.target.name: job.instead and job.instead.name for job in jobs} == {
        "a.mkv": None,
        "a.mp4": "a.wmv.mkv",
        "b.mp4": "b.mkv",
        "c.mov": None,
    }
    jobs = plan_jobs(["videos/a.wmv", "videos/b.vob"], "new", video_format="mp4")
    assert [job.instead for job in jobs] == [None, None]
