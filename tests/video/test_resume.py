"""What interrupts leave of a video, and what resuming makes of it: the frames of a run that was
never interrupted."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.paths import ROOT

pytest.importorskip("av")
from fdat_dense_iso.common.lock import InUseError
from fdat_dense_iso.video import Encoding, VideoError, VideoFile, VideoJob
from fdat_dense_iso.video.resume import partial_path
from fdat_dense_iso.video.write import SEGMENT_FRAMES, SegmentEncoder
from tests.helpers.video_cases import Clip, Probe, probe, write_clip
from tests.helpers.video_jobs import Doubler

FRAMES = 200
LOSSLESS = Encoding(crf=0)
CLIP = Clip(frames=FRAMES, pts=[number * 1001 + number % 7 * 131 for number in range(FRAMES)])
KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.video.test_resume import Doubler, job
calls = 0
def progress(done, total):
    global calls
    calls += 1
    if calls == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
with job(Path({source!r}), Path({target!r}), resume={resume}) as work:
    work.run(Doubler(), progress)
"""


class job:
    """A `VideoJob` on a file, as a context manager."""

    def __init__(self, source: Path, target: Path, **options) -> None:
        self.video = VideoFile(source)
        height, width = self.video.size
        self.job = VideoJob(self.video, target, size=(2 * height, 2 * width), **options)

    def __enter__(self) -> VideoJob:
        return self.job

    def __exit__(self, *_: object) -> None:
        self.video.__exit__(None, None, None)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "in.mp4"
    write_clip(path, CLIP)
    return path


@pytest.fixture(scope="session")
def whole(source: Path) -> Probe:
    """The result of a run that was not interrupted."""
    with job(source, source.with_name("whole.mp4")) as work:
        work.run(Doubler())
    return probe(source.with_name("whole.mp4"))


def assert_begins_as(part: Probe, whole: Probe) -> None:
    """Its whole segments are those of ``whole``. Others may lack their end, and were encoded
    without knowing it."""
    count = len(part.times)
    kept = count // SEGMENT_FRAMES * SEGMENT_FRAMES
    assert part.times[:kept] == whole.times[:kept]
    assert all(map(np.array_equal, part.luma[:kept], whole.luma))
    expected = dict(zip(whole.times, whole.luma))
    assert all(
        np.abs(frame - expected[time]).mean() < 2 for time, frame in zip(part.times, part.luma)
    )
    sound = part.packets[0]
    assert sound == whole.packets[0][: len(sound)]
    assert sound[-1][0] == pytest.approx(float(part.times[-1]), abs=1)


def assert_same(result: Probe, whole: Probe) -> None:
    assert result.times == whole.times
    assert result.end == whole.end
    assert len(result.luma) == len(whole.luma)
    assert all(map(np.array_equal, result.luma, whole.luma))
    assert result.packets == whole.packets


def kill(source: Path, target: Path, at: int, *, resume: bool = False) -> None:
    """Run in another process that is killed when it tells its progress for the ``at``-th time:
    twice a frame."""
    names = {"root": str(ROOT), "source": str(source), "target": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(at=at, resume=resume, **names)], capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def test_a_second_run_is_refused_while_one_writes(
    source: Path, whole: Probe, tmp_path: Path
) -> None:
    target, doubler, refused = tmp_path / "out.mp4", Doubler(), []

    def meanwhile(done: int, total: int) -> None:
        if not refused and done > 100 * total // FRAMES:
            for options in ({}, {"resume": True}, {"overwrite": True}):
                with pytest.raises(InUseError, match=r"out\.mp4 is being written by another run"):
                    job(source, target, **options)
            with late as other, pytest.raises(InUseError):
                other.run(Doubler())
            refused.append(True)

    late = job(source, target, overwrite=True)
    with job(source, target) as work:
        work.run(doubler, meanwhile)
    assert refused
    assert_same(probe(target), whole)
    assert list(tmp_path.iterdir()) == [target]


def test_killed_and_resumed(source: Path, whole: Probe, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    kill(source, target, 2 * 170)
    assert list(tmp_path.glob("*.mp4")) == [partial_path(target)]
    part = probe(partial_path(target))
    assert len(part.times) == 3 * SEGMENT_FRAMES
    assert_begins_as(part, whole)

    kept = len(part.times) // SEGMENT_FRAMES * SEGMENT_FRAMES
    kill(source, target, kept // 2, resume=True)  # while the frames that are there are copied
    assert len(list(tmp_path.glob("*.mp4"))) == 2

    with job(source, target, resume=True) as work:
        work.run(Doubler())
    assert (work.frames, work.computed) == (FRAMES, FRAMES - kept)
    assert_same(probe(target), whole)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize(
    "error", [RuntimeError("no more"), KeyboardInterrupt()], ids=["fault", "interrupt"]
)
@pytest.mark.parametrize("frames", [30, 100])
def test_every_finished_frame_is_kept(
    source: Path, whole: Probe, tmp_path: Path, error: BaseException, frames: int
) -> None:
    target, run = tmp_path / "out.mp4", Doubler()
    run.errors = {frames + 1: error}
    with job(source, target) as work:
        with pytest.raises(type(error)):
            work.run(run)
        assert work.frames == frames
    part = probe(partial_path(target))
    assert len(part.times) == frames
    assert part.times == whole.times[:frames]

    with job(source, target, resume=True) as work:
        work.run(Doubler())
    assert work.computed == FRAMES - frames // SEGMENT_FRAMES * SEGMENT_FRAMES
    assert_same(probe(target), whole)


@pytest.mark.parametrize(
    ("encoding", "suffix"),
    [
        pytest.param(Encoding(codec="hevc"), ".mkv", marks=pytest.mark.slow),
        (Encoding(codec="av1"), ".mp4"),
        (Encoding(codec="vp9"), ".mkv"),
        (Encoding(codec="h264", pixel_format="yuv444p10le"), ".mov"),
    ],
    ids=["hevc", "av1", "vp9", "h264"],
)
def test_every_codec_resumes(source: Path, tmp_path: Path, encoding: Encoding, suffix: str) -> None:
    for name in ("whole", "out"):
        run = Doubler()
        run.errors = {60: RuntimeError()} if name == "out" else {}
        with job(source, tmp_path / f"{name}{suffix}", encoding=encoding) as work:
            if name == "whole":
                work.run(run)
                continue
            with pytest.raises(RuntimeError):
                work.run(run)
        assert len(probe(work.partial).times) == 59
        with job(source, work.target, encoding=encoding, resume=True) as work:
            work.run(Doubler())
    assert_same(probe(tmp_path / f"out{suffix}"), probe(tmp_path / f"whole{suffix}"))


def test_an_interrupt_while_resuming_loses_nothing(
    source: Path, whole: Probe, tmp_path: Path
) -> None:
    target, run = tmp_path / "out.mp4", Doubler()
    run.errors = {150: RuntimeError()}
    with job(source, target) as work, pytest.raises(RuntimeError):
        work.run(run)
    for at in (10, SEGMENT_FRAMES + 10):

        def progress(done: int, total: int, at: int = at) -> None:
            if done == at:
                raise KeyboardInterrupt

        with job(source, target, resume=True) as work:
            with pytest.raises(KeyboardInterrupt):
                work.run(Doubler(), progress)
            assert work.frames == 149
        assert [path.name for path in tmp_path.iterdir()] == ["out.mp4.partial.mp4"]
    with job(source, target, resume=True) as work:
        work.run(Doubler())
    assert_same(probe(target), whole)


def test_an_interrupt_before_the_first_frame_leaves_nothing(source: Path, tmp_path: Path) -> None:
    run = Doubler()
    run.errors = {1: RuntimeError()}
    with job(source, tmp_path / "out.mp4") as work, pytest.raises(RuntimeError):
        work.run(run)
    assert list(tmp_path.iterdir()) == []


def test_unfinished_results_are_not_lost_by_mistake(source: Path, tmp_path: Path) -> None:
    target, run = tmp_path / "out.mp4", Doubler()
    run.errors = {61: RuntimeError()}
    with job(source, target, settings={"model": "a"}) as work, pytest.raises(RuntimeError):
        work.run(run)
    before = work.partial.read_bytes()

    message = "holds the first 60 frames of an earlier run; resume it, or overwrite it"
    with pytest.raises(VideoError, match=message):
        job(source, target, settings={"model": "a"})
    encoding = Encoding(crf=20, pixel_format="yuv444p")
    with pytest.raises(VideoError, match=r"made with other settings \(crf, model, pixel_format\)"):
        job(source, target, settings={"model": "b"}, encoding=encoding, resume=True)
    write_clip(tmp_path / "other.mp4", Clip(frames=100))
    with pytest.raises(VideoError, match=r"made with other settings \(source\)"):
        job(tmp_path / "other.mp4", target, settings={"model": "a"}, resume=True)
    assert work.partial.read_bytes() == before

    with job(source, target, settings={"model": "b"}, overwrite=True) as work:
        work.run(Doubler())
    assert work.computed == FRAMES
    assert not work.partial.exists()


def test_another_video_in_the_place_of_the_unfinished_result(source: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "out.mp4.partial.mp4", Clip(frames=2))
    with pytest.raises(
        VideoError, match="is not the unfinished result of an earlier run; rename it"
    ):
        job(source, tmp_path / "out.mp4", resume=True)


def test_nothing_to_resume(source: Path, whole: Probe, tmp_path: Path) -> None:
    (tmp_path / "out.mp4.partial.mp4").write_bytes(b"killed before there was a frame")
    with job(source, tmp_path / "out.mp4", resume=True) as work:
        work.run(Doubler())
    assert_same(probe(tmp_path / "out.mp4"), whole)


def test_full_disk(source: Path, whole: Probe, tmp_path: Path) -> None:
    """A limit of the size of files stands for it."""
    target = tmp_path / "out.mp4"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with job(source, target) as work:
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (source.with_name("whole.mp4").stat().st_size // 2, limits[1])
        )
        try:
            with pytest.raises(
                VideoError,
                match=r"out\.mp4\.partial\.mp4 cannot be written any further \(File too large\)",
            ):
                work.run(Doubler())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert work.frames > 0
    part = probe(partial_path(target))
    assert 10 < len(part.times) < FRAMES
    assert_begins_as(part, whole)
    with job(source, target, resume=True) as work:
        work.run(Doubler())
    assert_same(probe(target), whole)


def test_fault_of_the_encoder(
    source: Path, whole: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, add = 0, SegmentEncoder.add

    def fail(self: SegmentEncoder, frame: object) -> None:
        nonlocal count
        count += 1
        if count > 110:
            raise MemoryError("no room for a frame")
        add(self, frame)  # type: ignore[arg-type]

    with job(source, tmp_path / "out.mp4") as work:
        monkeypatch.setattr(SegmentEncoder, "add", fail)
        with pytest.raises(MemoryError):
            work.run(Doubler())
    part = probe(work.partial)
    assert len(part.times) == work.frames == 110
    assert_begins_as(part, whole)


def test_a_folder_that_cannot_be_written(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with job(source, tmp_path / "file" / "out.mp4") as work, pytest.raises(OSError, match="file"):
        work.run(Doubler())
    if os.geteuid() != 0:  # who may write everywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with (
            job(source, tmp_path / "closed" / "out.mp4") as work,
            pytest.raises(VideoError, match="cannot be written"),
        ):
            work.run(Doubler())


def test_the_longest_name(source: Path, tmp_path: Path) -> None:
    """255 bytes: the unfinished file has a name of its own, of whole characters."""
    targets = [tmp_path / ("\u00e9" * 125 + f"{number}.mp4") for number in range(2)]
    assert len(os.fsencode(targets[0].name)) == 255
    assert len({partial_path(target) for target in targets}) == 2
    run = Doubler()
    run.errors = {61: RuntimeError()}
    with job(source, targets[0]) as work, pytest.raises(RuntimeError):
        work.run(run)
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("\u00e9" * 100)
    assert kept.name.endswith(".partial.mp4")
    with job(source, targets[0], resume=True) as work:
        work.run(Doubler())
    assert work.computed == FRAMES - SEGMENT_FRAMES
    assert list(tmp_path.iterdir()) == targets[:1]


def test_an_unfinished_file_without_frames_is_told(source: Path, tmp_path: Path, caplog) -> None:
    target = tmp_path / "out.mp4"
    partial_path(target).write_bytes(b"garbage" * 100)
    with job(source, target, resume=True) as work:
        work.run(Doubler())
    assert caplog.messages[0] == (
        f"{partial_path(target)} holds no frame that can be read; it is begun anew"
    )
    assert work.frames == FRAMES


def test_networks_of_several_frames_see_the_frames_before_the_place_of_resumption(
    source: Path, tmp_path: Path
) -> None:
    """So that the frames are those of one run."""
    import torch

    from fdat_dense_iso.upscale import neighbours, upscale_frames
    from tests.upscale.test_clip import weighted

    model = weighted(recalls=True)
    context = neighbours(model)[0]

    def upscale(frames, deliver, *, progress, stop: int = FRAMES, lead: int = 0) -> None:
        leads.append(lead)

        def until(picture: torch.Tensor) -> None:
            nonlocal delivered
            delivered += 1
            if delivered > stop:
                raise KeyboardInterrupt
            deliver(picture)

        delivered = 0
        upscale_frames(model, frames, until, progress=progress, lead=lead)

    leads: list[int] = []
    target = tmp_path / "out.mp4"
    with job(source, tmp_path / "whole.mp4", context=context, encoding=LOSSLESS) as work:
        work.run(upscale)
    stop = SEGMENT_FRAMES + 3
    with job(source, target, context=context, encoding=LOSSLESS) as work:
        with pytest.raises(KeyboardInterrupt):
            work.run(partial(upscale, stop=stop))
        assert work.frames == stop
    with job(source, target, context=context, encoding=LOSSLESS, resume=True) as work:
        work.run(upscale)
        assert work.computed == FRAMES - SEGMENT_FRAMES
    assert leads == [0, 0, context]
    once, resumed = probe(tmp_path / "whole.mp4"), probe(target)
    assert resumed.times == once.times
    assert all(map(np.array_equal, resumed.luma, once.luma))
