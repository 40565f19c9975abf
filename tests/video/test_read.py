"""Videos that are broken, cut off, or none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
import av

from fdat_dense_iso.video import (
    VideoError,
    VideoFile,
)
from tests.helpers.video_cases import Clip, probe, write_clip
from tests.helpers.video_jobs import upscale


def probe_times(path: Path) -> list[Fraction]:
    """Of the frames that can be decoded."""
    times = []
    with av.open(str(path)) as container:
        for packet in container.demux():
            try:
                times += [frame.time for frame in packet.decode()]
            except av.FFmpegError:
                continue
    return times


def test_a_text_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "in.mp4").write_text("not a video")
    with pytest.raises(VideoError, match="it is no video that FFmpeg can read"):
        VideoFile(tmp_path / "in.mp4")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        VideoFile(tmp_path / "in.mp4")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="it has no video stream"):
        VideoFile(tmp_path / "in.mp4")


def test_a_video_that_is_cut_off_before_its_index(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", Clip())
    (tmp_path / "in.mp4").write_bytes((tmp_path / "in.mp4").read_bytes()[:3000])
    with pytest.raises(VideoError, match="it is no video that FFmpeg can read"):
        VideoFile(tmp_path / "in.mp4")


@pytest.mark.parametrize("share", [1, 3])
def test_a_video_that_is_cut_off_in_the_middle_is_told(tmp_path: Path, caplog, share: int) -> None:
    write_clip(tmp_path / "in.mkv", Clip(codec="ffv1", audio=()))
    data = (tmp_path / "in.mkv").read_bytes()
    (tmp_path / "in.mkv").write_bytes(data[: len(data) // share])
    upscale(tmp_path / "in.mkv", tmp_path / "out.mp4")
    assert ("where its header says" in caplog.text) == (share > 1)


def test_broken_packets_cost_their_frames_alone(tmp_path: Path, caplog) -> None:
    write_clip(tmp_path / "in.mkv", Clip(codec="ffv1", audio=()))
    data = bytearray((tmp_path / "in.mkv").read_bytes())
    with av.open(str(tmp_path / "in.mkv")) as container:
        places = [(packet.pos, packet.size) for packet in container.demux() if packet.size]
    for position, size in places[10:13]:
        data[position + 20 : position + size] = b"\0" * (size - 20)
    (tmp_path / "in.mkv").write_bytes(data)
    before = probe_times(tmp_path / "in.mkv")
    job = upscale(tmp_path / "in.mkv", tmp_path / "out.mp4")
    after = probe(tmp_path / "out.mp4")
    assert job.frames == len(after.times) == len(before)
    assert "packets could not be decoded" in caplog.text or len(before) == 30


def test_nothing_that_can_be_decoded(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", Clip(frames=3, audio=()))
    data = bytearray((tmp_path / "in.mp4").read_bytes())
    at = data.index(b"mdat") + 4
    size = int.from_bytes(data[at - 8 : at - 4], "big") - 8
    data[at : at + size] = b"\xff" * size
    (tmp_path / "in.mp4").write_bytes(data)
    with pytest.raises(VideoError, match="none of its frames can be decoded"):
        VideoFile(tmp_path / "in.mp4")


def test_a_size_that_changes_in_mid_video(tmp_path: Path) -> None:
    for number, width in enumerate((64, 96)):
        write_clip(
            tmp_path / f"{number}.ts", Clip(frames=10, width=width, audio=(), rate=Fraction(25))
        )
    joined = tmp_path / "in.ts"
    joined.write_bytes(b"".join((tmp_path / f"{number}.ts").read_bytes() for number in range(2)))
    with pytest.raises(
        VideoError, match="frame 11 has 96x48 pixels where the video began with 64x48"
    ):
        upscale(joined, tmp_path / "out.mp4")
    assert len(probe(tmp_path / "out.mp4.partial.mp4").times) == 10


def test_too_many_pixels(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", Clip(frames=1))
    with pytest.raises(VideoError, match=r"it claims 64x48 pixels; the limit is 0\.003 million"):
        VideoFile(tmp_path / "in.mp4", max_pixels=3000)
