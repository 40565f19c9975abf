"""Damaged videos: what is left is kept, at its times, and what is missing is told."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fdat_dense_iso.video.cut import stops_early
from fdat_dense_iso.video.joined import Joined
from tests.helpers.video_cases import Clip, probe, write_clip
from tests.helpers.video_jobs import upscale

RATE = Fraction(25)


def holed(path: Path, *, codec: str = "libx264", audio=("aac",), frames: int = 150) -> list[float]:
    """A video without the bytes in its middle; the times at which it was whole."""
    write_clip(path, Clip(frames=frames, rate=RATE, codec=codec, audio=audio))
    data = path.read_bytes()
    times = [float(time) for time in probe(path).times]
    begin = len(data) // 3 // 188 * 188
    path.write_bytes(data[:begin] + data[begin + len(data) // 4 :])
    return times


@pytest.mark.parametrize(
    ("name", "codec", "audio"),
    [
        ("in.ts", "libx264", ("aac",)),
        ("in.mkv", "libx264", ("aac",)),
        ("in.mkv", "libx264", ()),
        ("in.webm", "libvpx-vp9", ("libopus",)),
        ("in.mpg", "mpeg2video", ("mp2",)),
    ],
)
def test_a_hole_is_told_and_times_stay(tmp_path: Path, name: str, codec: str, audio, caplog):
    times = holed(tmp_path / name, codec=codec, audio=audio)
    job = upscale(tmp_path / name, tmp_path / "out.mkv", factor=1)
    assert any("there is no picture from" in text for text in job.damage)
    assert all(text in caplog.text for text in job.damage)
    result = [float(time) for time in probe(tmp_path / "out.mkv").times]
    assert 40 < len(result) < 150
    # of those that are left hardly one has moved, but for rounding and the beginning of all
    moved = np.subtract.outer(result, np.array(times) - times[0] + result[0])
    assert np.mean(np.abs(moved).min(axis=1) < 0.002) > 0.95


def test_variable_frame_rates_have_no_holes(tmp_path: Path, caplog) -> None:
    pts = np.cumsum([1 + 20 * (number % 3 == 0) for number in range(40)]).tolist()
    write_clip(tmp_path / "in.mkv", Clip(frames=40, rate=RATE, audio=(), pts=pts))
    assert upscale(tmp_path / "in.mkv", tmp_path / "out.mkv").damage == []
    assert not caplog.messages


def test_an_avi_that_lacks_frames(tmp_path: Path, caplog) -> None:
    """Its frames are counted, and have no times."""
    holed(tmp_path / "in.avi", codec="mpeg4", audio=("mp3",))
    job = upscale(tmp_path / "in.avi", tmp_path / "out.mkv", factor=1)
    assert [text.partition(" after")[0] for text in job.damage] == ["it ends"]
    caplog.clear()
    write_clip(tmp_path / "whole.avi", Clip(codec="mpeg4", audio=("mp3",), rate=RATE))
    assert upscale(tmp_path / "whole.avi", tmp_path / "out2.mkv", factor=1).damage == []


def test_flipped_bits(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mkv", Clip(frames=60, rate=RATE))
    data = bytearray((tmp_path / "in.mkv").read_bytes())
    for at in range(len(data) // 4, len(data) // 2, 97):
        data[at] ^= 255
    (tmp_path / "in.mkv").write_bytes(data)
    assert upscale(tmp_path / "in.mkv", tmp_path / "out.mkv", factor=1).damage


def flv(path: Path, level: int) -> bytes:
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        tone = container.add_stream("aac", rate=44100, layout="mono")
        for number in range(50):
            picture = np.full((48, 64, 3), level + 2 * number, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            sound = av.AudioFrame.from_ndarray(
                np.full((1, 1764), 0.1, np.float32), format="fltp", layout="mono"
            )
            sound.sample_rate, sound.pts = 44100, number * 1764
            container.mux(tone.encode(sound))
        container.mux(video.encode(None))
        container.mux(tone.encode(None))
    return path.read_bytes()


def test_flv_files_joined_by_bytes(tmp_path: Path, caplog) -> None:
    """FFmpeg reads the first of them only; here the second follows where the first one ends."""
    parts = [flv(tmp_path / f"{level}.flv", level) for level in (20, 120)]
    (tmp_path / "in.flv").write_bytes(b"".join(parts))
    upscale(tmp_path / "in.flv", tmp_path / "out.mkv", factor=1)
    assert len(caplog.messages) == 1 and "its clock jumps at" in caplog.text
    alone = [probe(tmp_path / f"{level}.flv") for level in (20, 120)]
    joined = probe(tmp_path / "out.mkv")
    begin = alone[0].times[0]
    expected = [begin + number / RATE for number in range(100)]
    np.testing.assert_allclose(
        np.array(joined.times, float), np.array(expected, float), atol=0.0015
    )
    levels = [np.mean(luma) for part in alone for luma in part.luma]
    np.testing.assert_allclose([np.mean(luma) for luma in joined.luma], levels, atol=1)
    sound = [time for time, _ in joined.packets[0]]
    assert len(sound) == sum(len(part.packets[0]) for part in alone)


@pytest.mark.parametrize(
    ("name", "codec"), [("in.mp4", "libx264"), ("in.mov", "libx264"), ("in.wmv", "wmv2")]
)
def test_joined_files_of_which_one_is_read_are_told(tmp_path: Path, name: str, codec: str, caplog):
    write_clip(tmp_path / name, Clip(frames=5, codec=codec, audio=(), rate=RATE))
    upscale(tmp_path / name, tmp_path / "one.mkv")
    assert not caplog.messages
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes() * 2)
    upscale(tmp_path / name, tmp_path / "two.mkv")
    assert "another file follows the first, of which nothing is read" in caplog.text


def test_a_file_without_some_parts(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(100)))
    left = bytes(one for one in range(100) if not (20 <= one < 33 or 60 <= one < 61))
    file = Joined(tmp_path / "file", [(20, 13), (60, 1)])
    for at, size in ((0, 5), (10, 30), (45, 50), (19, 1), (20, 1), (85, 9), (90, 3)):
        file.seek(at)
        data = b""
        while len(data) < size and (more := file.read(size - len(data))):
            data += more
        assert data == left[at : at + size]
        assert file.tell() == at + len(data)
    assert file.seek(0, 2) == 86
    file.close()


@pytest.mark.parametrize(
    ("name", "codec", "audio"),
    [
        ("in.ts", "libx264", ("aac",)),
        ("in.m2ts", "libx264", ("ac3",)),
        ("in.ogv", "libtheora", ("libopus",)),
        ("in.mp4", "libx264", ("aac",)),
        ("in.mkv", "libx264", ("aac",)),
    ],
)
def test_an_end_that_is_cut_off(tmp_path: Path, name: str, codec: str, audio) -> None:
    """Wherever bytes end: a whole file stops early only where the end of it is missing."""
    if codec not in av.codecs_available:
        codec, audio = "libvpx", ("libopus",)
    write_clip(tmp_path / name, Clip(frames=40, rate=RATE, codec=codec, audio=audio))
    with av.open(str(tmp_path / name)) as container:
        kind = container.format.name
    data = (tmp_path / name).read_bytes()
    assert not stops_early(tmp_path / name, kind)
    for part in (0.4, 0.6, 0.9):
        cut = io.BytesIO(data[: int(len(data) * part) // 188 * 188 + 60])
        cut.seek(5)
        assert stops_early(cut, kind) and cut.tell() == 5
    (tmp_path / name).write_bytes(cut.getvalue())
    if kind == "mpegts":
        job = upscale(tmp_path / name, tmp_path / "out.mkv", factor=1)
        assert "it stops in the middle of a packet: its end is missing" in job.damage


def test_a_transport_stream_cut_between_its_packets(tmp_path: Path) -> None:
    """Told where a stream that says how long its packets are, as sound does, lacks some of one."""
    write_clip(tmp_path / "in.ts", Clip(frames=40, rate=RATE, audio=("aac",)))
    data = (tmp_path / "in.ts").read_bytes()
    with av.open(str(tmp_path / "in.ts")) as container:
        sound = container.streams.audio[0].id
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    of_sound = [
        n
        for n, one in enumerate(packets)
        if one[1:3][0] & 31 == sound >> 8 and one[2] == sound & 255
    ]
    starts = [n for n in of_sound if packets[n][1] & 0x40]
    begun = starts[len(starts) // 2]
    following = of_sound[of_sound.index(begun) + 1]
    assert following not in starts
    assert stops_early(io.BytesIO(data[: following * 188]), "mpegts")
    last = of_sound[of_sound.index(starts[len(starts) // 2 + 1]) - 1]
    assert not stops_early(io.BytesIO(data[: (last + 1) * 188]), "mpegts")
