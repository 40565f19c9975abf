"""What lies beside the picture, read back by FFmpeg's demuxers."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from fdat_dense_iso.video import VideoFile
from tests.helpers.video_cases import Clip, probe, write_clip
from tests.helpers.video_jobs import upscale

DEFAULT, COMMENT = Disposition.default.value, Disposition.comment.value
TITLES = av.library_versions["libavformat"] >= (62, 12)  # whether those of MP4's tracks are read
FONT = bytes(range(256)) * 8
SECOND = Clip(frames=12, height=32, width=48, audio=(), rate=Fraction(25))


def picture() -> bytes:
    """A small PNG."""
    frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 200, np.uint8), format="rgb24")
    file = io.BytesIO()
    with av.open(file, "w", format="image2pipe") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "rgb24"
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def rich(path: Path, *, timecode: str = "") -> Path:
    """Two videos, two tracks of sound, tags and dispositions; in MKV a font and a cover, too."""
    clip = Clip(frames=12, rate=Fraction(25), audio=("aac", "aac"))
    write_clip(path.with_name("first.mp4"), clip)
    write_clip(path.with_name("second.mp4"), SECOND)
    sources = [av.open(str(path.with_name(name))) for name in ("first.mp4", "second.mp4")]
    with av.open(str(path), "w") as container:
        tracks = [stream for source in sources for stream in source.streams]
        copies = {track: container.add_stream_from_template(track, opaque=True) for track in tracks}
        video, first, second, other = copies.values()
        video.metadata.update({"language": "jpn", "title": "Main"})
        if timecode:
            video.metadata["timecode"] = timecode
            video.codec_context.framerate = Fraction(25)
        first.metadata["language"] = "deu"
        second.metadata["title"] = "Commentary"
        video.disposition = DEFAULT
        first.disposition = 0
        second.disposition = DEFAULT | COMMENT
        other.disposition = 0
        if path.suffix == ".mkv":
            container.add_attachment("a font.ttf", "application/x-truetype-font", FONT)
            container.add_attachment("cover.png", "image/png", picture())
        container.start_encoding()
        for source in sources:
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = copies[packet.stream]
                    container.mux(packet)
    for source in sources:
        source.close()
    return path


def streams(path: Path) -> list[tuple]:
    """Of each stream its type, disposition, language, title and number of packets."""
    with av.open(str(path)) as container:
        count = dict.fromkeys(range(len(container.streams)), 0)
        for packet in container.demux():
            count[packet.stream.index] += bool(packet.size)
        found = []
        for stream in container.streams:
            tags = stream.metadata
            title = tags.get("title", tags.get("name")) if TITLES else "not read"
            language = tags.get("language", "und").replace("eng", "und")
            kind = stream.type, stream.disposition.value
            found.append((*kind, language, title, count[stream.index]))
        return found


@pytest.mark.parametrize("into", [".mkv", ".mp4", ".mov"])
@pytest.mark.parametrize("of", [".mkv", ".mp4"])
def test_streams_tags_and_dispositions(tmp_path: Path, of: str, into: str) -> None:
    source, target = rich(tmp_path / f"in{of}"), tmp_path / f"out{into}"
    upscale(source, target)
    comment = DEFAULT | (0 if into == ".mov" else COMMENT)
    video, first, second, other = streams(target)[:4]
    assert video == ("video", 1, "jpn", "Main" if TITLES else "not read", 12)
    assert first[:3] == ("audio", 0, "ger" if into == ".mov" else "deu")  # of ISO 639-2 two codes
    assert second == ("audio", comment, "und", "Commentary" if TITLES else "not read", first[4])
    assert other == ("video", 0, "und", None if TITLES else "not read", 12)
    with av.open(str(target)) as container, av.open(str(tmp_path / "second.mp4")) as plain:
        frames = [
            list(one.decode(video=-1 + len(one.streams.video[:2]))) for one in (container, plain)
        ]
    planes = [[frame.to_ndarray(format="gray") for frame in one] for one in frames]
    np.testing.assert_array_equal(*planes)


@pytest.mark.parametrize("into", [".mkv", ".mp4", ".mov"])
def test_attachments_and_covers(tmp_path: Path, into: str, caplog) -> None:
    source, target = rich(tmp_path / "in.mkv"), tmp_path / f"out{into}"
    upscale(source, target)
    told = [text.partition("leaves out: ")[2] for text in caplog.messages]
    assert (
        told
        == {
            ".mkv": [],
            ".mp4": ["attachment (a font.ttf)"],
            ".mov": ["attachment (a font.ttf), cover (cover.png)"],
        }[into]
    )
    with VideoFile(target) as video:
        assert video.size == (96, 128)  # and is not the cover's
        assert [cover.data for cover in video.beside.covers] == [picture()] * (into != ".mov")
        fonts = [stream.metadata["filename"] for stream in video.beside.attachments]
        assert fonts == ["a font.ttf"] * (into == ".mkv")
    assert into != ".mkv" or FONT in target.read_bytes()


def test_a_cover_comes_first(tmp_path: Path) -> None:
    """The video is upscaled, and not the picture before it."""
    source = rich(tmp_path / "in.mkv")
    upscale(source, tmp_path / "out.mp4")
    with VideoFile(tmp_path / "out.mp4") as video:
        (cover,) = video.beside.covers
        assert (cover.name, cover.kind, cover.data) == ("cover.png", "image/png", picture())


@pytest.mark.parametrize("into", [".mp4", ".mov", ".mkv"])
def test_the_track_of_timecodes(tmp_path: Path, into: str, caplog) -> None:
    source = rich(tmp_path / "in.mov", timecode="01:02:03:04")
    if "data" not in [stream[0] for stream in streams(source)]:
        pytest.skip("this PyAV tells the muxer no frame rate, which timecodes need")
    upscale(source, tmp_path / f"out{into}")
    assert not caplog.messages
    with av.open(str(tmp_path / f"out{into}")) as container:
        tags = {key.lower(): value for key, value in container.streams.video[0].metadata.items()}
        assert tags["timecode"] == "01:02:03:04"
        assert len([s for s in container.streams if s.type == "data"]) == (into != ".mkv")


def test_tags_of_old_packets_are_not_claimed(tmp_path: Path) -> None:
    write_clip(tmp_path / "plain.mp4", SECOND)
    with (
        av.open(str(tmp_path / "plain.mp4")) as source,
        av.open(str(tmp_path / "in.mkv"), "w") as to,
    ):
        stream = to.add_stream_from_template(source.streams.video[0], opaque=True)
        stream.metadata.update({"BPS": "1", "NUMBER_OF_FRAMES": "7", "encoder": "x", "title": "T"})
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = stream
                to.mux(packet)
    upscale(tmp_path / "in.mkv", tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        tags = container.streams.video[0].metadata
    assert {name.upper() for name in tags} <= {"TITLE", "DURATION", "LANGUAGE", "HANDLER_NAME"}
    assert tags["title"] == "T"
    assert len(probe(tmp_path / "out.mkv").times) == 12


@pytest.mark.skipif(int(av.__version__.partition(".")[0]) < 18, reason="PyAV does not tell")
def test_titles_of_chapters_are_no_stream(tmp_path: Path, caplog) -> None:
    """FFmpeg writes them to MP4 as a track of text, too."""
    write_clip(tmp_path / "plain.mp4", Clip(frames=50, audio=()))
    chapters = [
        {"id": n, "start": n * 500, "end": n * 500 + 500, "time_base": Fraction(1, 1000), "metadata": {"title": name}}
        for n, name in enumerate(("One", "Two"))
    ]  # fmt: skip
    with (
        av.open(str(tmp_path / "plain.mp4")) as source,
        av.open(str(tmp_path / "in.mp4"), "w") as into,
    ):
        into.set_chapters(chapters)
        stream = into.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                into.mux(packet)
    with av.open(str(tmp_path / "in.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video", "data"]
    upscale(tmp_path / "in.mp4", tmp_path / "out.mkv")
    assert not caplog.messages
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [one["metadata"]["title"] for one in container.chapters()] == ["One", "Two"]


@pytest.mark.parametrize("into", [".mp4", ".mkv"])
def test_sound_that_an_edit_list_hides(tmp_path: Path, into: str) -> None:
    """As in what phones cut without encoding again: of the hidden packets at most one stays, before
    what is heard, as decoders need it; sound and picture go together."""
    write_clip(tmp_path / "plain.mp4", Clip(frames=50, rate=Fraction(25)))
    with (
        av.open(str(tmp_path / "plain.mp4")) as source,
        av.open(str(tmp_path / "in.mp4"), "w", options={"avoid_negative_ts": "disabled"}) as cut,
    ):
        streams = {one.index: cut.add_stream_from_template(one) for one in source.streams}
        for packet in source.demux():
            if packet.size:
                moved = round(Fraction(2, 5) / packet.time_base)
                packet.pts, packet.dts = packet.pts - moved, packet.dts - moved
                packet.stream = streams[packet.stream.index]
                cut.mux(packet)
    upscale(tmp_path / "in.mp4", tmp_path / f"out{into}")
    before, after = probe(tmp_path / "in.mp4"), probe(tmp_path / f"out{into}")
    assert len(after.times) == len(before.times) == 40
    heard = [(time, data) for time, data in before.packets[0] if time + Fraction(1024, 48000) > 0]
    assert len(before.packets[0]) > len(heard) + 10
    assert len(heard) <= len(after.packets[0]) <= len(heard) + 1
    assert [data for _, data in after.packets[0]][-len(heard) :] == [data for _, data in heard]
    lag = after.packets[0][-1][0] - after.times[0] - heard[-1][0] + before.times[0]
    assert abs(lag) < Fraction(1, 500)
