"""How videos are encoded: codecs, quality, sizes, sound."""

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
    UnsupportedStreamError,
    VideoError,
    VideoFile,
    VideoJob,
)
from fdat_dense_iso.video.colour import Colour, FrameMaker
from fdat_dense_iso.video.write import CONTAINERS, SEGMENT_FRAMES, SegmentEncoder
from tests.helpers.video_cases import Clip, probe, write_clip
from tests.helpers.video_jobs import Doubler, upscale


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


@pytest.mark.parametrize(("kind", "codec"), [("mov", "flac"), ("mov", "opus"), ("mp4", "wavpack")])
def test_sound_that_the_format_cannot_hold(kind: str, codec: str, tmp_path: Path) -> None:
    """Also where only the muxer's header says so."""
    encoder = "libopus" if codec == "opus" else codec
    write_clip(tmp_path / "in.mkv", Clip(frames=2, audio=(encoder,)))
    with pytest.raises(
        UnsupportedStreamError, match=rf"{kind} files cannot hold {codec} sound; write a \.mkv file"
    ):
        upscale(tmp_path / "in.mkv", tmp_path / f"out.{kind}")
    upscale(tmp_path / "in.mkv", tmp_path / "out.mkv")


@pytest.mark.parametrize("audio", ["aac", "flac"])
def test_sound_becomes_opus_in_webm(
    audio: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Against the tones that `write_clip` makes, whose times are closed forms."""
    write_clip(tmp_path / "in.mkv", Clip(frames=30, audio=(audio,)))
    upscale(tmp_path / "in.mkv", tmp_path / "out.webm")
    assert f"{audio} sound becomes Opus, with loss" in caplog.text
    with av.open(str(tmp_path / "out.webm")) as container:
        assert container.streams.audio[0].codec_context.name.endswith("opus")
        frames = list(container.decode(audio=0))
    # tone and picture begin together
    first = frames[0].pts * frames[0].time_base - probe(tmp_path / "out.webm").times[0]
    first = round(first * 48000)
    found = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    shift = round(0.001 * 48000)  # WebM's times are milliseconds
    errors = []
    for move in range(-shift, shift + 1):
        expected = np.sin((np.arange(4800, 38400) + first + move) / np.array([[17], [23]])) / 2
        errors.append(np.abs(found[:, 4800:38400] - expected).mean())
    assert min(errors) < 0.01


def test_written_suffixes_are_planned() -> None:
    assert set(VIDEO_SUFFIXES) == set(CONTAINERS)


def test_thousands_of_frames_per_second(tmp_path: Path) -> None:
    """As a time base taken for the rate claims; the frames keep the times that they have."""
    rate = Fraction(30000)
    pts = [number * 1200 for number in range(20)]  # 25 per second
    write_clip(tmp_path / "in.mp4", Clip(frames=20, rate=rate, audio=(), pts=pts))
    colour = Colour(primaries=1, transfer=1, matrix=1, range=1)
    encoder = SegmentEncoder(Encoding().resolved(8, ".mp4"), (48, 64), rate, colour, Fraction(1))
    assert encoder.delay == 2  # of x264's three frames in a row that refer to one another
    upscale(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").times == [Fraction(number, 25) for number in range(20)]


def test_equal_frames_are_encoded_equally() -> None:
    """x264's AVX-512 code does not, for this size."""
    size, found = (72, 104), set()
    colour = Colour(matrix=1, range=1, primaries=1, transfer=1)
    noise = torch.rand(SEGMENT_FRAMES, *size, 3, generator=torch.Generator().manual_seed(0))
    frames = 0.3 * noise + torch.linspace(0, 0.7, size[1])[:, None]
    for _ in range(4):
        maker = FrameMaker("yuv420p", colour, *size)
        encoder = SegmentEncoder(
            Encoding().resolved(8, ".mp4"), size, Fraction(25), colour, Fraction(1)
        )
        for frame in frames:
            encoder.add(maker(frame))
        found.add(encoder.close())
    assert len(found) == 1
