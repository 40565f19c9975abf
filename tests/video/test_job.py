"""Videos, upscaled by a stand-in for the model that repeats every pixel."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("av")
import av

from fdat_dense_iso.video import (
    Encoding,
    PictureVideo,
    VideoError,
    VideoFile,
    VideoJob,
)
from fdat_dense_iso.video.write import SEGMENT_FRAMES
from tests.helpers.video_cases import MIRRORED, TURNED, Clip, probe, write_clip
from tests.helpers.video_jobs import FINE, Doubler, assert_same_pictures, upscale


@pytest.mark.parametrize(
    ("suffix", "clip"),
    [
        (".mp4", Clip(frames=100, metadata={"title": "A title"})),
        (".mov", Clip(rate=Fraction(25), colour=(9, 16, 9, 1))),
        (
            ".mkv",
            Clip(
                rate=Fraction(24), codec="libx265", audio=("libopus", "flac"), colour=(5, 6, 5, 1)
            ),
        ),
        (
            ".mp4",
            Clip(pts=[number * 1001 + number % 7 * 131 for number in range(30)]),
        ),  # variable frame rate
        (".mp4", Clip(pixel_format="yuv420p", colour=(1, 1, 1, 2))),  # full range
        (".mp4", Clip(audio=(), offset=0.5)),
        (".mp4", Clip(frames=1)),
        (".mp4", Clip(frames=SEGMENT_FRAMES + 1, matrix=TURNED)),
        (".mp4", Clip(matrix=MIRRORED, pixel_format="yuv444p")),
    ],
    ids=[
        "mp4",
        "mov",
        "mkv",
        "vfr",
        "full range",
        "late without audio",
        "one frame",
        "turned",
        "mirrored",
    ],
)
def test_everything_but_the_size_is_kept(tmp_path: Path, suffix: str, clip: Clip) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    write_clip(source, clip)
    job = upscale(source, target)
    before, after = probe(source), probe(target)
    assert (job.frames, len(after.times)) == (clip.frames, clip.frames)
    assert after.times == before.times
    assert after.packets == before.packets
    assert after.colour == before.colour
    assert (after.rotation, after.matrix) == (before.rotation, before.matrix)
    # the header of the source counts milliseconds, and that of the result the video's own ticks
    assert after.end == pytest.approx(before.end, abs=0.0005 if suffix != ".mkv" else 0.02)
    assert after.metadata.get("title") == clip.metadata.get("title")
    assert (after.codec, after.pixel_format) == ("h264", "yuv420p")
    assert_same_pictures(after.luma, before.luma)
    assert {path.name for path in tmp_path.iterdir()} == {source.name, target.name}


def test_ten_bits_are_kept_as_hevc(tmp_path: Path) -> None:
    write_clip(
        tmp_path / "in.mp4", Clip(codec="libx265", pixel_format="yuv420p10le", colour=(9, 16, 9, 1))
    )
    job = upscale(tmp_path / "in.mp4", tmp_path / "out.mp4", encoding=Encoding())
    before, after = probe(tmp_path / "in.mp4"), probe(tmp_path / "out.mp4")
    assert job.encoding == Encoding(codec="hevc", crf=20, pixel_format="yuv420p10le")
    assert (after.codec, after.pixel_format, after.tag) == ("hevc", "yuv420p10le", "hvc1")
    assert after.colour == before.colour == (9, 16, 9, 1)
    assert_same_pictures(after.luma, before.luma)
    assert any((frame % 1).any() for frame in after.luma)  # levels between those of 8 bits


def test_a_rotated_video_is_upscaled_upright(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", Clip(matrix=TURNED, frames=2))
    run = Doubler()
    with VideoFile(tmp_path / "in.mp4") as video:
        assert video.size == (64, 48)
        stored = Clip().planes(0)[0]
        frame = next(item for item in video if not isinstance(item, av.Packet))
        luma = frame.rgb() @ torch.tensor([0.2126, 0.7152, 0.0722]) * 219 + 16
        assert np.abs(np.rot90(stored, -1) - luma.numpy()).mean() < 2  # clockwise
    assert upscale(tmp_path / "in.mp4", tmp_path / "out.mp4", run=run).size == (128, 96)
    assert run.shapes == [(1, 64, 48, 3)] * 2


def test_a_matrix_left_to_be_guessed_is_named_where_players_would_guess_another(
    tmp_path: Path,
) -> None:
    """BT.601 for 640x360, BT.709 for 1280x720."""
    clip = Clip(frames=1, height=360, width=640, colour=(2, 2, 2, 0), audio=())
    write_clip(tmp_path / "in.mp4", clip)
    upscale(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").colour[:3] == (2, 2, 6)
    upscale(tmp_path / "in.mp4", tmp_path / "same.mp4", factor=1)
    assert probe(tmp_path / "same.mp4").colour[:3] == (2, 2, 2)


def test_a_part_is_cut_out(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", Clip(frames=60, rate=Fraction(30)))
    with VideoFile(tmp_path / "in.mp4", start=0.5, duration=1) as video:
        assert video.frame_count == 30
        VideoJob(video, tmp_path / "out.mp4", size=(96, 128), encoding=FINE).run(Doubler())
    before, after = probe(tmp_path / "in.mp4"), probe(tmp_path / "out.mp4")
    assert after.times == [Fraction(number, 30) for number in range(30)]
    assert_same_pictures(after.luma, before.luma[15:45])
    expected = [
        (time - Fraction(1, 2), data) for time, data in before.packets[0] if 0.5 <= time < 1.5
    ]
    assert [data for _, data in after.packets[0]] == [data for _, data in expected]
    assert all(
        abs(one[0] - other[0]) <= Fraction(1, 48000)
        for one, other in zip(after.packets[0], expected)
    )


def test_a_clock_that_begins_anywhere_is_set_to_zero(tmp_path: Path) -> None:
    """Only there: in other formats a late beginning means something."""
    write_clip(tmp_path / "in.ts", Clip(rate=Fraction(25), offset=5))
    upscale(tmp_path / "in.ts", tmp_path / "out.mp4")
    before, after = probe(tmp_path / "in.ts"), probe(tmp_path / "out.mp4")
    assert before.times[0] >= 5
    shift = before.times[0] - after.times[0]
    assert min(after.times[0], after.packets[0][0][0]) == 0
    assert [time - shift for time in before.times] == after.times
    assert len(after.packets[0]) == len(before.packets[0])


def test_equal_frames_are_computed_once(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mkv", Clip(codec="ffv1", frames=60, still=5, audio=()))
    run = Doubler()
    job = upscale(tmp_path / "in.mkv", tmp_path / "out.mp4", run=run)
    assert (job.frames, job.computed, len(run.shapes)) == (60, 12, 12)
    assert_same_pictures(probe(tmp_path / "out.mp4").luma, probe(tmp_path / "in.mkv").luma)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [48000, 11000])
def test_pictures_and_sound(tmp_path: Path, channels: int, rate: int) -> None:
    images = torch.rand(12, 1, 1, 3, generator=torch.Generator().manual_seed(0)).expand(
        12, 32, 48, 3
    )
    tone = torch.sin(torch.arange(rate) * 2 * torch.pi * 440 / rate).expand(channels, rate) / 2
    with PictureVideo(images, Fraction(24), (tone, rate)) as video:
        VideoJob(video, tmp_path / "out.mp4", size=(64, 96)).run(Doubler())
    after = probe(tmp_path / "out.mp4")
    assert after.times == [Fraction(number, 24) for number in range(12)]
    expected = images[:, 0, 0] @ torch.tensor([0.2126, 0.7152, 0.0722]) * 219 + 16
    assert [float(frame.mean()) for frame in after.luma] == pytest.approx(
        expected.tolist(), abs=1.5
    )
    assert after.end == pytest.approx(0.5, abs=0.11)  # an AAC frame of 11025 Hz is 93 ms long
    with av.open(str(tmp_path / "out.mp4")) as container:
        samples = np.concatenate(
            [frame.to_ndarray() for frame in container.decode(audio=0)], axis=1
        )
        played = container.streams.audio[0].rate
    assert samples.shape[0] == channels
    spectrum = np.abs(np.fft.rfft(samples[0, : played // 2]))
    assert np.fft.rfftfreq(played // 2, 1 / played)[spectrum.argmax()] == pytest.approx(440, abs=3)


@pytest.mark.parametrize(
    ("channels", "fields", "tags", "lost"),
    [
        (1, {"bits": 10}, (1, 1, 1, 1), []),
        (3, {"bits": 10, "primaries": 9, "transfer": 16}, (9, 16, 9, 1), []),
        (4, {"transfer": 13}, (1, 13, 1, 1), ["alpha channel"]),
        (3, {"alpha": torch.zeros(2, 32, 64)}, (1, 1, 1, 1), ["alpha channel"]),
        (3, {"alpha": torch.ones(2, 32, 64, 1)}, (1, 1, 1, 1), []),
    ],
)
def test_depth_and_colours_of_pictures(
    tmp_path: Path,
    channels: int,
    fields: dict[str, object],
    tags: tuple[int, ...],
    lost: list[str],
) -> None:
    """Grey ramps: luma is known whatever the matrix."""
    ramp = torch.linspace(0.4, 0.6, 64).expand(2, 32, 64)[..., None].repeat(1, 1, 1, channels)
    with PictureVideo(ramp, Fraction(24), **fields) as video:
        assert video.lost == lost
        VideoJob(video, tmp_path / "out.mp4", size=(64, 128), encoding=Encoding(crf=0)).run(
            Doubler()
        )
    after = probe(tmp_path / "out.mp4")
    assert after.colour == tags
    assert after.pixel_format == ("yuv420p10le" if fields.get("bits") == 10 else "yuv420p")
    rounding = 0.25 / 4 if fields.get("bits") == 10 else 0.25  # on the mean, in levels of 8 bits
    expected = 16 + 219 * np.linspace(0.4, 0.6, 64).repeat(2)
    assert all(abs(frame - expected).mean() < 1.6 * rounding for frame in after.luma)


def test_pictures_are_not_copied() -> None:
    images = torch.rand(3, 8, 8, 3)
    with PictureVideo(images, Fraction(24)) as video:
        for image, frame in zip(images, video, strict=True):
            assert frame.rgb().data_ptr() == image.data_ptr()


def test_a_result_of_another_size_than_promised(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", Clip(frames=1))
    with pytest.raises(
        VideoError, match=r"a frame became \(144, 192, 3\) where \(96, 128, 3\) was expected"
    ):
        upscale(tmp_path / "in.mp4", tmp_path / "out.mp4", run=Doubler(3))
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_an_existing_target_is_left_alone(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", Clip(frames=1))
    (tmp_path / "out.mp4").write_text("precious")
    with pytest.raises(VideoError, match="exists and is not to be replaced"):
        upscale(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_text() == "precious"
    upscale(tmp_path / "in.mp4", tmp_path / "out.mp4", overwrite=True)
    assert len(probe(tmp_path / "out.mp4").times) == 1


def test_progress_grows_to_its_end(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", Clip(frames=10))
    told: list[float] = []
    with VideoFile(tmp_path / "in.mp4") as video:
        VideoJob(video, tmp_path / "out.mp4", size=(96, 128)).run(
            Doubler(), lambda done, total: told.append(done / total)
        )
    assert told == sorted(told)
    assert (len(told), told[0], told[-1]) == (20, 0.05, 1)
