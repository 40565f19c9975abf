"""The command on videos, with a real model that repeats every pixel."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("pyvips")
pytest.importorskip("av")
import av
from typer.testing import CliRunner

from fdat_dense_iso.command import main as cli
from fdat_dense_iso.video.resume import partial_path
from fdat_dense_iso.video.write import SEGMENT_FRAMES
from tests.helpers.fake_models import save_nearest
from tests.helpers.paths import ROOT
from tests.helpers.picture_cases import samples, write_png
from tests.helpers.video_cases import Clip, probe, write_clip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the model and a folder of a picture and two videos."""
    save_nearest(tmp_path / "nearest.safetensors")
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "in" / "a.png", samples(3, 8))
    write_clip(tmp_path / "in" / "b.mp4", Clip())
    write_clip(tmp_path / "in" / "c.avi", Clip(frames=5, audio=("mp3",), rate=Fraction(25)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: object):
    result = CliRunner().invoke(cli.app, [*map(str, arguments), "--model", "nearest.safetensors"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def command(*arguments: object) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "cli.py"),
        *map(str, arguments),
        "--model",
        "nearest.safetensors",
    ]


def test_a_video(folder: Path) -> None:
    result = run("in/b.mp4", "out.mp4")
    line = "in/b.mp4 -> out.mp4 (64x48 -> 128x96, 30 frames, h264 yuv420p)\n"
    assert (result.exit_code, result.stdout, result.stderr) == (0, line, "")
    before, after = probe(folder / "in" / "b.mp4"), probe(folder / "out.mp4")
    assert (after.times, after.packets, after.colour) == (
        before.times,
        before.packets,
        before.colour,
    )
    for frame, source in zip(after.luma, before.luma, strict=True):
        assert np.abs(frame - source.repeat(2, 0).repeat(2, 1)).mean() < 3  # encoded at crf 18


def test_pictures_and_videos_in_one_folder(folder: Path) -> None:
    result = run("in", "out", "--suffix", "_x2")
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in (folder / "out").iterdir()} == {
        "a_x2.png",
        "b_x2.mp4",
        "c_x2.mp4",
    }
    assert len(probe(folder / "out" / "c_x2.mp4").times) == 5
    again = run("in", "out", "--suffix", "_x2")
    assert again.stderr.endswith("finished: 0 done, 3 skipped, 0 failed\n")


def test_options_of_videos(folder: Path) -> None:
    options = (
        "--video-format",
        "mkv",
        "--video-codec",
        "hevc",
        "--crf",
        30,
        "--pixel-format",
        "yuv420p10le",
    )
    result = run("in/*.mp4", "out/", *options, "--target", "133x75")
    assert result.exit_code == 0, result.stderr
    assert "becomes 134x76 by repeating" in result.stderr
    after = probe(folder / "out" / "b.mkv")
    assert (after.codec, after.pixel_format, after.size) == ("hevc", "yuv420p10le", (76, 134))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in/b.mp4", "out.png"), "in/b.mp4 and out.png: one is a picture and the other a video"),
        (("in/a.png", "out.mp4"), "in/a.png and out.mp4: one is a picture and the other a video"),
        (
            ("in/b.mp4", "out.avi"),
            "out.avi: cannot write '.avi' files; give a name in .png, .jpg, .webp, .tif, .gif or .dzi, for",
        ),
        (
            ("in/b.mp4", "out.mp4", "--video-format", "mkv"),
            "suffix and --video-format mkv contradict each other",
        ),
        (("in/b.mp4", "in/b.mp4"), "in/b.mp4: would replace the input"),
    ],
)
def test_wrong_usage(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(folder.glob("out*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--video-codec", "vp9", "--pixel-format", "yuv420p10le"),
            "libvpx-vp9 does not encode yuv420p10le",
        ),
        (("--video-codec", "h264", "--crf", 60), "crf is 60; h264 takes 0 (best) to 51"),
    ],
)
def test_encodings_that_cannot_be(folder: Path, options: tuple, message: str) -> None:
    if "vp9" in options:
        av = pytest.importorskip("av")
        if "yuv420p10le" in {one.name for one in av.codec.Codec("libvpx-vp9", "w").video_formats}:
            pytest.skip("this FFmpeg's VP9 encoder has 10 bits")
    result = run("in/b.mp4", "out.mp4", *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert not list(folder.glob("out*"))


def test_a_broken_video_does_not_stop_the_others(folder: Path) -> None:
    (folder / "in" / "broken.mp4").write_bytes(b"not a video")
    result = run("in", "out")
    assert result.exit_code == 1
    assert (
        "error: in/broken.mp4: it is no video that FFmpeg can read (Invalid data found"
        in result.stderr
    )
    assert result.stderr.endswith("finished: 3 done, 0 skipped, 1 failed\n")


def test_without_av(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = cli.importlib.util.find_spec
    monkeypatch.setattr(
        cli.importlib.util, "find_spec", lambda name: None if name == "av" else find(name)
    )
    result = run("in/b.mp4", "out.mp4")
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: videos need the package av; install it with: {cli.INSTALL}\n",
    )
    assert run("in/a.png", "out.png").exit_code == 0


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Programs that are started heed Ctrl-C, also where the tests run in the background and ignore
    it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupted_and_resumed(folder: Path) -> None:
    """Ctrl-C in the middle: what is there is said, can be played, is not lost, and is gone on
    from."""
    write_clip(folder / "long.mp4", Clip(frames=400))
    assert run("long.mp4", "whole.mp4").exit_code == 0
    process = subprocess.Popen(command("long.mp4", "out.mp4"), stderr=subprocess.PIPE, text=True)
    partial = partial_path(folder / "out.mp4")
    while not partial.exists() or partial.stat().st_size < 3_000:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130
    said = re.search(
        r"kept: out.mp4.partial.mp4 holds the first (\d+) frames; --resume goes on from there",
        errors,
    )
    assert said, errors
    frames = int(said.group(1))
    assert SEGMENT_FRAMES <= frames == len(probe(partial).times) < 400

    refused = run("long.mp4", "out.mp4")
    assert refused.exit_code == 1
    assert (
        f"holds the first {frames} frames of an earlier run; resume it, or overwrite it"
        in refused.stderr
    )
    assert "mode" in run("long.mp4", "out.mp4", "--resume", "--mode", "whole").stderr
    resumed = run("long.mp4", "out.mp4", "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert not partial.exists()
    whole, out = probe(folder / "whole.mp4"), probe(folder / "out.mp4")
    assert out.times == whole.times
    assert all(map(np.array_equal, out.luma, whole.luma))


def test_unfinished_videos_are_no_inputs(folder: Path) -> None:
    write_clip(folder / "in" / "b_x2.mp4.partial.mp4", Clip(frames=2))
    assert "partial" not in run("in", "out").stdout


@pytest.mark.slow
def test_ten_seconds_take_the_memory_of_two(folder: Path) -> None:
    """640x360, with sound, beside the memory that the program takes with its model; also killed and
    resumed."""
    peaks = {}
    clips = {"tiny": Clip(frames=1, height=16, width=16)}
    clips |= {
        f"{s} s": Clip(frames=24 * s, rate=Fraction(24), height=360, width=640) for s in (2, 10)
    }
    for name, clip in clips.items():
        write_clip(folder / f"{name}.mp4", clip)
        with subprocess.Popen(
            command(f"{name}.mp4", f"{name} x2.mp4"), stdout=subprocess.DEVNULL
        ) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks[name] = usage.ru_maxrss
    assert peaks["10 s"] - peaks["tiny"] <= 1.15 * (peaks["2 s"] - peaks["tiny"])

    before, after = probe(folder / "10 s.mp4"), probe(folder / "10 s x2.mp4")
    assert after.size == (720, 1280)
    assert (after.times, after.packets, after.end) == (before.times, before.packets, before.end)

    target = folder / "killed.mp4"
    process = subprocess.Popen(command("10 s.mp4", target))
    while not partial_path(target).exists() or partial_path(target).stat().st_size < 500_000:
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    part = probe(partial_path(target))
    assert SEGMENT_FRAMES <= len(part.times) < 240
    assert part.times == before.times[: len(part.times)]
    assert run("10 s.mp4", target, "--resume").exit_code == 0
    assert all(map(np.array_equal, probe(target).luma, after.luma))


def samples_of(path: Path) -> np.ndarray:
    """The sound as FFmpeg decodes it: (channels, samples)."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    joined = np.concatenate(frames, axis=1)
    return joined if len(joined) > 1 else joined.reshape(-1, 2).T


def test_sound_that_mp4_cannot_hold_goes_to_matroska(folder: Path) -> None:
    """In a folder; the result is then found there by the next run, too."""
    (folder / "old").mkdir()
    write_clip(folder / "old" / "a.wmv", Clip(codec="wmv2", audio=("wmav2",), frames=5))
    result = run("old", "out")
    assert result.exit_code == 0
    assert result.stderr == "warning: out/a.mkv: converted: wmav2 sound becomes FLAC\n"
    assert result.stdout == "old/a.wmv -> out/a.mkv (64x48 -> 128x96, 5 frames, h264 yuv420p)\n"
    before, after = (samples_of(folder / name) for name in ("old/a.wmv", "out/a.mkv"))
    assert after.shape == before.shape
    assert np.abs(after / 2**31 - before).max() <= 2**-23  # one of 24 bits
    assert "skipped: out/a.mkv exists" in run("old", "out").stderr
    refused = run("old", "out", "--video-format", "mp4")
    assert refused.exit_code == 1
    assert "mp4 files cannot hold wmav2 sound; write a .mkv file" in refused.stderr


def test_a_damaged_video_ends_with_a_code_of_its_own(folder: Path) -> None:
    """The result holds what there was, and is named so."""
    write_clip(folder / "a.mkv", Clip(frames=100, rate=Fraction(25)))
    data = (folder / "a.mkv").read_bytes()
    (folder / "a.mkv").write_bytes(data[: len(data) // 2])
    result = run("a.mkv", "out.mkv")
    assert result.exit_code == 3
    assert result.stdout.endswith("h264 yuv420p, of a damaged video)\n")
    assert "a part is missing" in result.stderr
    (folder / "both").mkdir()
    shutil.copy(folder / "a.mkv", folder / "both")
    write_clip(folder / "both" / "b.mkv", Clip(frames=5))
    result = run("both", "new")
    assert result.exit_code == 3
    assert "finished: 2 done (1 of damaged videos), 0 skipped, 0 failed" in result.stderr


def test_a_bundled_model_by_its_name(folder: Path) -> None:
    write_clip(folder / "a.mp4", Clip(frames=1, height=16, width=16, audio=()))
    found = CliRunner().invoke(cli.app, ["a.mp4", "b.mp4", "-m", "fdat_demo_x2"])
    assert (found.exit_code, found.stderr) == (0, "")
