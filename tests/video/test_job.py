"""Videos, upscaled by a stand-in for the model that repeats every pixel.

More than 400 lines, because reading, timing, encoding and resuming are shown on the same few clips.
"""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("av")
import av

from fdat_dense_iso.picture.files import VIDEO_SUFFIXES
from fdat_dense_iso.video import (
    Encoding,
    PictureVideo,
    UnsupportedStreamError,
    VideoError,
    VideoFile,
    VideoJob,
)
from fdat_dense_iso.video.colour import Colour, FrameMaker
from fdat_dense_iso.video.write import CONTAINERS, SEGMENT_FRAMES, SegmentEncoder
from tests.helpers.video_cases import MIRRORED, TURNED, Clip, probe, write_clip

FINE = Encoding(crf=4)  # so that what is seen is not the encoder's doing


class Doubler:
    """Repeats every pixel; remembers how often it was called, and may misbehave on demand."""

    def __init__(self, factor: int = 2) -> None:
        self.factor = factor
        self.shapes: list[tuple[int, ...]] = []
        self.errors: dict[int, BaseException] = {}

    def __call__(self, frames: torch.Tensor, progress) -> torch.Tensor:
        self.shapes.append(tuple(frames.shape))
        progress(1, 2)
        if len(self.shapes) in self.errors:
            raise self.errors[len(self.shapes)]
        progress(2, 2)
        return frames.repeat_interleave(self.factor, 1).repeat_interleave(self.factor, 2)


def upscale(
    source: Path, target: Path, *, factor: int = 2, run=None, encoding: Encoding = FINE, **options
) -> VideoJob:
    with VideoFile(source) as video:
        height, width = video.size
        job = VideoJob(
            video, target, size=(height * factor, width * factor), encoding=encoding, **options
        )
        job.run(run or Doubler(factor))
    return job


def assert_same_pictures(
    result: list[np.ndarray], source: list[np.ndarray], *, factor: int = 2
) -> None:
    """Up to what encoding finely and resampling the chroma twice cost."""
    assert len(result) == len(source)
    for got, frame in zip(result, source, strict=True):
        expected = frame.repeat(factor, 0).repeat(factor, 1)
        assert got.shape == expected.shape
        assert np.abs(got - expected).mean() < 0.7


# What is kept
# -----------------------------------------------------------------------------------------------


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
    assert after.end == pytest.approx(before.end, abs=1e-6 if suffix != ".mkv" else 0.02)
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


# How it is encoded
# ------------------------------------------------------------------------------------------


class TimelessStream:
    """A stream whose encoder says nothing sensible about when to decode.

    FFmpeg's x265 does so for segments shorter than its delay: the times come from memory never
    written.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def encode(self, frame: av.VideoFrame | None) -> list[av.Packet]:
        packets = self._stream.encode(frame)
        for packet in packets:
            packet.dts -= 712964571283
        return packets


@pytest.mark.parametrize("frames", [1, 2, 3, SEGMENT_FRAMES])
@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9"])
def test_decoding_times_do_not_depend_on_the_encoder(
    codec: str, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = Encoding(codec=codec, crf=30).resolved(8, ".mkv")
    colour = Colour(matrix=1, range=1, primaries=1, transfer=1)
    frame = FrameMaker(encoding.pixel_format, colour, 64, 72)
    encoder = SegmentEncoder(encoding, (64, 72), Fraction(30000, 1001), colour, Fraction(1))
    begin = SegmentEncoder._open

    def begin_timeless(self: SegmentEncoder) -> None:
        begin(self)
        self._stream = TimelessStream(self._stream)

    monkeypatch.setattr(SegmentEncoder, "_open", begin_timeless)
    for shade in range(frames):
        encoder.add(frame(torch.full((64, 72, 3), shade / 50)))
    packets = encoder.finish()
    assert encoder.delay == {"h264": 2, "hevc": 2, "av1": 0, "vp9": 0}[codec]
    assert sorted(shown for _, shown, _ in packets) == list(range(frames))
    assert [decoded for _, _, decoded in packets] == [
        place - encoder.delay for place in range(frames)
    ]


@pytest.mark.parametrize(
    ("encoding", "suffix", "expected"),
    [
        (Encoding(crf=30), ".mp4", ("h264", "yuv420p")),
        (Encoding(codec="hevc"), ".mkv", ("hevc", "yuv420p")),
        (Encoding(codec="av1", pixel_format="yuv420p10le"), ".mp4", ("av1", "yuv420p10le")),
        (Encoding(codec="vp9", pixel_format="yuv444p"), ".webm", ("vp9", "yuv444p")),
        (Encoding(), ".webm", ("vp9", "yuv420p")),
        (Encoding(pixel_format="yuv422p10le"), ".mov", ("hevc", "yuv422p10le")),
        (Encoding(codec="h264", pixel_format="yuv444p"), ".m4v", ("h264", "yuv444p")),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else None,
)
def test_encoding_can_be_chosen(
    tmp_path: Path, encoding: Encoding, suffix: str, expected: tuple[str, str]
) -> None:
    write_clip(tmp_path / "in.mp4", Clip(frames=50, audio=(), width=72))
    upscale(tmp_path / "in.mp4", tmp_path / f"out{suffix}", encoding=encoding)
    before, after = probe(tmp_path / "in.mp4"), probe(tmp_path / f"out{suffix}")
    assert (after.codec, after.pixel_format) == expected
    assert after.times == pytest.approx(before.times, abs=0.0005)  # Matroska counts milliseconds
    assert all(
        np.abs(a - b.repeat(2, 0).repeat(2, 1)).mean() < 2 for a, b in zip(after.luma, before.luma)
    )


def test_quality_can_be_chosen(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", Clip(audio=()))
    sizes = []
    for crf in (5, 18, 40):
        upscale(tmp_path / "in.mp4", tmp_path / f"{crf}.mp4", encoding=Encoding(crf=crf))
        sizes.append((tmp_path / f"{crf}.mp4").stat().st_size)
    assert sizes[0] > 1.5 * sizes[1] > 2 * sizes[2]


@pytest.mark.parametrize(
    ("size", "pixel_format", "stored"),
    [
        ((33, 45), "yuv420p", (34, 46)),
        ((33, 45), "yuv422p", (33, 46)),
        ((33, 45), "yuv444p", (33, 45)),
        ((32, 46), "yuv420p", (32, 46)),
    ],
)
def test_odd_sizes(tmp_path: Path, caplog, size, pixel_format: str, stored) -> None:
    """A pixel format with halved chroma needs an even size: the last row or column is repeated, and
    that is said."""
    write_clip(
        tmp_path / "in.mkv",
        Clip(codec="ffv1", pixel_format="yuv444p", height=size[0], width=size[1], frames=2),
    )
    caplog.set_level(logging.WARNING)
    job = upscale(
        tmp_path / "in.mkv",
        tmp_path / "out.mp4",
        factor=1,
        encoding=Encoding(pixel_format=pixel_format, crf=1),
    )
    before, after = probe(tmp_path / "in.mkv"), probe(tmp_path / "out.mp4")
    assert job.size == after.size == stored
    assert ("45x33 becomes" in caplog.text) == (stored != size)
    padding = [(0, large - small) for large, small in zip(stored, size)]
    assert np.abs(after.luma[0] - np.pad(before.luma[0], padding, "edge")).mean() < 0.7


@pytest.mark.parametrize(
    ("encoding", "suffix", "message"),
    [
        (Encoding(codec="mpeg2"), ".mp4", "codec 'mpeg2' is not known; use one of auto, h264"),
        (Encoding(pixel_format="rgb24"), ".mp4", "pixel_format 'rgb24' is not known"),
        (Encoding(codec="h264"), ".webm", r"\.webm files hold av1, vp9, not h264"),
        (
            Encoding(codec="av1", pixel_format="yuv444p"),
            ".mp4",
            "libsvtav1 does not encode yuv444p; it encodes yuv420p",
        ),
        (Encoding(codec="h264", crf=60), ".mp4", "crf is 60; h264 takes 0 .* to 51"),
        (Encoding(), ".avi", r"cannot write '\.avi' videos; give a name in \.mp4"),
    ],
)
def test_bad_encodings_are_refused_before_any_work(
    tmp_path: Path, encoding: Encoding, suffix: str, message: str
) -> None:
    write_clip(tmp_path / "in.mp4", Clip(frames=2))
    run = Doubler()
    with pytest.raises(VideoError, match=message):
        upscale(tmp_path / "in.mp4", tmp_path / f"out{suffix}", encoding=encoding, run=run)
    assert run.shapes == []
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_a_size_that_the_encoder_refuses(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", Clip(frames=2))
    with (
        VideoFile(tmp_path / "in.mp4") as video,
        pytest.raises(VideoError, match="libx264 refuses 20000x64"),
    ):
        VideoJob(video, tmp_path / "out.mp4", size=(64, 20000))


def test_a_size_in_which_the_encoder_goes_wrong(tmp_path: Path) -> None:
    """libx265 overwrites memory in pictures this small."""
    write_clip(tmp_path / "in.mp4", Clip(frames=2))
    with (
        VideoFile(tmp_path / "in.mp4") as video,
        pytest.raises(VideoError, match="libx265 needs 64 pixels a side"),
    ):
        VideoJob(video, tmp_path / "out.mp4", size=(48, 64), encoding=Encoding(codec="hevc"))


def test_sound_that_the_format_cannot_hold(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", Clip(frames=2))
    with pytest.raises(
        UnsupportedStreamError, match=r"webm files cannot hold aac audio; write a \.mkv file"
    ):
        upscale(tmp_path / "in.mp4", tmp_path / "out.webm")
    upscale(tmp_path / "in.mp4", tmp_path / "out.mkv")


def test_written_suffixes_are_planned() -> None:
    assert set(VIDEO_SUFFIXES) == set(CONTAINERS)


# Videos of pictures in memory
# -------------------------------------------------------------------------------


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


def test_pictures_are_not_copied() -> None:
    images = torch.rand(3, 8, 8, 3)
    with PictureVideo(images, Fraction(24)) as video:
        for image, frame in zip(images, video, strict=True):
            assert frame.rgb().data_ptr() == image.data_ptr()


# Errors
# -----------------------------------------------------------------------------------------------------


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


def test_a_result_of_another_size_than_promised(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", Clip(frames=1))
    with pytest.raises(
        VideoError, match=r"a frame became \(1, 144, 192, 3\) where \(1, 96, 128, 3\) was expected"
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
    assert (len(told), told[0], told[-1]) == (30, 0.05, 1)
