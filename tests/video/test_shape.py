"""The shape of pixels, against closed forms: shown width / height = stored width x aspect / height.

That a container's word comes before the codec's is what `av_guess_sample_aspect_ratio` of FFmpeg
says; that a picture keeps its shape at other sides, what its filter `scale` does.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from fdat_dense_iso.upscale import parse_target
from fdat_dense_iso.video import Encoding, VideoFile, VideoJob, result_size
from fdat_dense_iso.video.shape import result_aspect
from tests.helpers.video_cases import TURNED, Clip, write_clip
from tests.helpers.video_jobs import FINE, Doubler, FrameByFrame, upscale

ANAMORPHIC = Fraction(32, 27)  # of 72x48 it makes 16:9
CLIP = Clip(frames=3, height=48, width=72, audio=())


def in_mp4(path: Path, aspect: Fraction = ANAMORPHIC, clip: Clip = CLIP) -> None:
    """As `ffmpeg -c copy -aspect`: the box `pasp` tells the aspect, and the codec nothing."""
    write_clip(path.with_name("plain.mp4"), clip)
    with av.open(str(path.with_name("plain.mp4"))) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0], opaque=True)
        stream.codec_context.sample_aspect_ratio = aspect
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    if clip.matrix:  # has to be written by hand again
        data, plain = bytearray(path.read_bytes()), path.with_name("plain.mp4").read_bytes()
        at, there = data.index(b"tkhd") + 44, plain.index(b"tkhd") + 44
        data[at : at + 36] = plain[there : there + 36]
        path.write_bytes(data)


def in_mkv(path: Path) -> None:
    """The display size, in the place of the colours."""
    write_clip(path, CLIP)
    data = bytearray(path.read_bytes().replace(b"\x54\xb2\x81\x04", b"\x54\xb2\x81\0"))  # in pixels
    at = data.index(b"\x55\xb0")
    length = 3 + (data[at + 2] & 0x7F)
    display = bytes((0x54, 0xB0, 0x81, 128, 0x54, 0xBA, 0x81, 72))
    void = bytes((0xEC, 0x80 | (length - len(display) - 2)))
    data[at : at + length] = (display + void).ljust(length, b"\0")
    path.write_bytes(data)


def shown(path: Path) -> tuple[tuple[int, int], Fraction]:
    """Width and height as stored, and their ratio as shown."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        return (width, height), (stream.sample_aspect_ratio or 1) * Fraction(width, height)


@pytest.mark.parametrize("make", [in_mp4, in_mkv])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_an_aspect_of_the_container_alone(tmp_path: Path, make, suffix: str) -> None:
    source = tmp_path / ("in.mp4" if make is in_mp4 else "in.mkv")
    make(source)
    assert shown(source) == ((72, 48), Fraction(16, 9))
    upscale(source, tmp_path / f"out{suffix}")
    assert shown(tmp_path / f"out{suffix}") == ((144, 96), Fraction(16, 9))


@pytest.mark.parametrize("codec", ["h264", "vp9", "av1"])
def test_an_aspect_in_a_codec_that_has_none(tmp_path: Path, caplog, codec: str) -> None:
    in_mp4(tmp_path / "in.mp4")
    encoding = Encoding(codec=codec, crf=30)
    upscale(tmp_path / "in.mp4", tmp_path / "out.mp4", encoding=encoding)
    assert shown(tmp_path / "out.mp4") == ((144, 96), Fraction(16, 9))
    assert not caplog.messages
    upscale(tmp_path / "in.mp4", tmp_path / "out.mkv", encoding=encoding)
    kept = shown(tmp_path / "out.mkv") == ((144, 96), Fraction(16, 9))
    assert kept == (codec == "h264")
    assert ("does not keep the shape of pixels (32/27) in .mkv" in caplog.text) != kept


@pytest.mark.parametrize(
    ("target", "stored", "aspect"),
    [
        ("192x108", (192, 108), Fraction(1)),  # 16:9 with square pixels
        ("144x96", (144, 96), ANAMORPHIC),
        ("fit 320x240", (320, 180), Fraction(1)),
        ("fit 1000x90", (160, 90), Fraction(1)),
        ("160x", (160, 90), Fraction(1)),
        ("x90", (160, 90), Fraction(1)),
        ("1.5x", (108, 72), ANAMORPHIC),
        ("100x100", (100, 100), Fraction(16, 9)),
        ("", (144, 96), ANAMORPHIC),
    ],
)
def test_targets_keep_the_shape(
    tmp_path: Path, target: str, stored, aspect: Fraction, caplog: pytest.LogCaptureFixture
) -> None:
    in_mp4(tmp_path / "in.mp4")
    with VideoFile(tmp_path / "in.mp4") as video:
        size, frames = result_size(video, parse_target(target), 2)
        assert size == stored[::-1]
        assert frames is None or frames.size(*video.size) == size  # what frames are made into
        assert result_aspect(video.size, video.pixel_aspect, size) == aspect
    assert not caplog.messages


def test_a_turned_video_is_measured_as_it_is_shown(tmp_path: Path) -> None:
    """48x72 with pixels of 27:32 is shown as 9:16."""
    in_mp4(tmp_path / "in.mp4", clip=Clip(frames=3, height=48, width=72, audio=(), matrix=TURNED))
    with VideoFile(tmp_path / "in.mp4") as video:
        size, _ = result_size(video, parse_target("fit 1000x160"), 2)
        assert size == (160, 90)
        job = VideoJob(video, tmp_path / "out.mp4", size=size, encoding=FINE)
        job.run(FrameByFrame(lambda frames, progress: frames.new_zeros(1, *size, 3)))
    assert shown(tmp_path / "out.mp4") == ((160, 90), Fraction(16, 9))


def test_square_pixels_stay_square(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Both sides named stretch a picture, and a video."""
    write_clip(tmp_path / "in.mp4", CLIP)
    with VideoFile(tmp_path / "in.mp4") as video:
        size, _ = result_size(video, parse_target("216x96"), 2)
        VideoJob(video, tmp_path / "out.mp4", size=size, encoding=FINE).run(Stretcher())
    assert shown(tmp_path / "out.mp4") == ((216, 96), Fraction(216, 96))
    said = "stretched from 72x48 to 216x96; the target 'fit 216x96' keeps the shape"
    assert caplog.messages == [f"{tmp_path / 'in.mp4'}: {said}"]


class Stretcher(Doubler):
    """Also repeats columns once more."""

    def upscaled(self, frames, progress):
        return super().upscaled(frames, progress)[:, :, :72].repeat_interleave(3, 2)
