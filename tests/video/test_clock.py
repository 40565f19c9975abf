"""Clocks that jump, against the times of the frames that were joined: number / rate.

That `ffmpeg -c copy` gives the same was seen with FFmpeg 9.0: for two clips with sound, both its
first and last times of picture and sound (docs/what-is-kept.md).
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
from fdat_dense_iso.video import VideoFile, VideoJob
from tests.helpers.video_cases import Clip, probe, write_clip
from tests.helpers.video_jobs import FINE, Doubler, upscale

RATE, WRAP = 25, 2**33 / 90000  # frames per second; seconds
SOUND = 1024 / 48000  # seconds of a packet of AAC


def joined(folder: Path, *offsets: float, suffix: str = ".ts", **options) -> Path:
    """Clips of 2 seconds, whose clocks begin at these seconds, one after the other by bytes."""
    whole = folder / f"in{suffix}"
    data = b""
    for number, offset in enumerate(offsets):
        part = folder / f"part {number}{suffix}"
        write_clip(part, Clip(frames=50, rate=Fraction(RATE), offset=offset, **options))
        data += part.read_bytes()
        part.unlink()
    whole.write_bytes(data)
    return whole


def assert_regular(path: Path, seconds: float) -> None:
    """Every frame is there and follows the one before by 1 / 25 s; the sound has no gap, overlaps
    by one packet where parts begin (AAC's priming, as `ffmpeg` leaves it), and goes with the
    picture in every part."""
    after = probe(path)
    assert len(after.times) == seconds * RATE
    assert {b - a for a, b in zip(after.times, after.times[1:])} == {Fraction(1, RATE)}
    for track in after.packets:
        times = np.array([float(time) for time, _ in track])
        steps = np.diff(times)
        assert steps.min() > 0
        assert steps.max() < 1.6 * SOUND
        each = len(times) * 2 // seconds  # packets of a part
        lags = times[::each] - np.array([float(time) for time in after.times[:: 2 * RATE]])
        assert lags == pytest.approx(lags[0], abs=SOUND)


@pytest.mark.parametrize(
    "offsets",
    [(0, 0), (0, 500, 20, 0), (40000, 3), (WRAP - 1, 0), (WRAP - 3, WRAP - 3)],
    ids=["back", "back and forth", "far back", "over the wrap", "before the wrap"],
)
@pytest.mark.parametrize("audio", [(), ("aac",)], ids=["silent", "sound"])
def test_picture_and_sound_go_on_where_the_clock_jumps(
    tmp_path: Path, offsets: tuple[float, ...], audio: tuple[str, ...]
) -> None:
    source = joined(tmp_path, *offsets, audio=audio)
    upscale(source, tmp_path / "out.mp4")
    assert_regular(tmp_path / "out.mp4", 2 * len(offsets))


def test_the_clock_of_a_dvd(tmp_path: Path) -> None:
    source = joined(tmp_path, 0, 0, 0, suffix=".vob", codec="mpeg2video", audio=("ac3",))
    upscale(source, tmp_path / "out.mkv")
    after = probe(tmp_path / "out.mkv")
    (tmp_path / "one").mkdir()
    one = joined(tmp_path / "one", 0, suffix=".vob", codec="mpeg2video", audio=("ac3",))
    steps = np.diff([float(time) for time in probe(one).times])  # the demuxer loses some times
    assert len(after.times) == 150
    expected = [*steps, 1 / RATE, *steps, 1 / RATE, *steps]
    assert np.diff([float(time) for time in after.times]) == pytest.approx(expected, abs=0.0011)
    sound = [float(time) for time, _ in after.packets[0]]
    assert np.diff(sound).max() < 2 * 1536 / 48000
    assert sound[-1] == pytest.approx(float(after.times[-1]), abs=0.1)


def test_a_gap_that_is_no_jump_stays(tmp_path: Path) -> None:
    """As in `ffmpeg`: ten seconds may be missing of a recording."""
    upscale(joined(tmp_path, 0, 8), tmp_path / "out.mp4")
    times = probe(tmp_path / "out.mp4").times
    assert (len(times), times[50] - times[49]) == (100, pytest.approx(6, abs=0.05))


def test_a_part_that_begins_elsewhere_is_cut_by_the_time_that_is_shown(tmp_path: Path) -> None:
    with VideoFile(joined(tmp_path, 0, 0), duration=3) as video:
        VideoJob(video, tmp_path / "out.mp4", size=(96, 128), encoding=FINE).run(Doubler())
    first = probe(tmp_path / "in.ts").times[0]
    assert len(probe(tmp_path / "out.mp4").times) == pytest.approx((3 - first) * RATE, abs=1)


def test_resuming_over_a_jump(tmp_path: Path) -> None:
    source = joined(tmp_path, 0, 0, 700)
    upscale(source, tmp_path / "whole.mp4")
    run = Doubler()
    run.errors = {120: RuntimeError()}
    with pytest.raises(RuntimeError):
        upscale(source, tmp_path / "out.mp4", run=run)
    upscale(source, tmp_path / "out.mp4", resume=True)
    whole, out = probe(tmp_path / "whole.mp4"), probe(tmp_path / "out.mp4")
    assert (out.times, out.packets) == (whole.times, whole.packets)
    assert all(map(np.array_equal, out.luma, whole.luma))


def test_jumps_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At times of the result, in the order of decoding: two of 25 frames a second before 2 s. Both
    clips are whole, although packets are counted anew in the second."""
    job = upscale(joined(tmp_path, 1000, 0), tmp_path / "out.mp4")
    assert "in.ts: its clock jumps at 1.9 s; picture and sound go on there" in caplog.text
    assert job.damage == []


def test_slow_pictures_in_another_order_are_no_jump(tmp_path: Path, caplog) -> None:
    """Matroska tells when pictures are shown alone: here 6 seconds of them out of order."""
    write_clip(tmp_path / "in.mkv", Clip(frames=20, rate=Fraction(1, 2), audio=()))
    upscale(tmp_path / "in.mkv", tmp_path / "out.mkv")
    assert probe(tmp_path / "out.mkv").times == [Fraction(2 * number) for number in range(20)]
    assert not caplog.messages
