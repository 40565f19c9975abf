"""Subtitles that become those of another codec, read back by FFmpeg's demuxers and decoders."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from fdat_dense_iso.video.subtitles import CAN_CONVERT
from tests.helpers.video_cases import Clip, write_clip
from tests.helpers.video_jobs import upscale

pytestmark = pytest.mark.skipif(not CAN_CONVERT, reason="this PyAV does not encode subtitles")

SRT = """1
00:00:00,100 --> 00:00:00,300
Hello <i>w\u00f6rld</i>

2
00:00:00,400 --> 00:00:00,700
two
lines
"""
ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, Alignment
Style: Default,Arial,16,&Hffffff,2

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:00.10,0:00:00.30,Default,,0,0,0,,Hello {\\i1}w\u00f6rld{\\i0}
Dialogue: 0,0:00:00.40,0:00:00.70,Default,,0,0,0,,two\\Nlines
"""
TEXTS = {"srt": SRT, "ass": ASS, "vtt": "WEBVTT\n\n" + SRT.replace(",", ".")}


def with_subtitles(path: Path, kind: str) -> Path:
    """A video of 24 frames with subtitles as FFmpeg muxes them; in MP4 its own encoder's."""
    write_clip(path.with_name("plain.mp4"), Clip(frames=24, audio=()))
    text = path.with_name(f"text.{kind}")
    text.write_text(TEXTS[kind], encoding="utf-8")
    with (
        av.open(str(path.with_name("plain.mp4"))) as video,
        av.open(str(text)) as texts,
        av.open(str(path), "w") as to,
    ):
        copies = [to.add_stream_from_template(video.streams.video[0], opaque=True)]
        copies.append(to.add_stream_from_template(texts.streams.subtitles[0], opaque=True))
        copies[1].metadata["language"] = "fra"
        for source, stream in zip((video, texts), copies, strict=True):
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = stream
                    to.mux(packet)
    return path


def read(path: Path) -> tuple[str, str, list[tuple[float, float, str]]]:
    """Codec, language, and of each subtitle begin and end in seconds, and its text as ASS."""
    found = []
    with av.open(str(path)) as container:
        (stream,) = container.streams.subtitles
        for packet in container.demux(stream):
            text = packet.size and stream.codec_context.decode2(packet)
            if text and len(text):
                begin, base = packet.pts, packet.time_base
                times = float(begin * base), float((begin + packet.duration) * base)
                words = text[0].ass.decode().split(",", 8)[8].strip()
                found.append((*times, words.replace("\\n", "\\N")))
        return stream.codec_context.codec.canonical_name, stream.metadata["language"], found


@pytest.mark.parametrize("kind", ["srt", "ass", "vtt"])
@pytest.mark.parametrize(
    ("into", "codec"), [(".mp4", "mov_text"), (".mov", "mov_text"), (".webm", "webvtt")]
)
def test_text_keeps_its_times_and_words(tmp_path: Path, kind: str, into: str, codec: str, caplog):
    source, target = with_subtitles(tmp_path / "in.mkv", kind), tmp_path / f"out{into}"
    upscale(source, target)
    name, language, texts = read(target)
    assert (name, language) == (codec, "fra")
    shown = [(round(begin, 3), round(end, 3)) for begin, end, _ in texts]
    assert shown == [(0.1, 0.3), (0.4, 0.7)]
    first, second = (text for _, _, text in texts)
    assert first.startswith("Hello {\\i1}w\u00f6rld")
    assert second == "two\\Nlines"
    told = {"srt": "subrip", "ass": "ass", "vtt": "webvtt"}[kind]
    message = f"{target}: converted: {told} subtitles become {codec}"
    assert caplog.messages == ([] if told == codec else [message])


def test_there_and_back(tmp_path: Path, caplog) -> None:
    """From MP4 to Matroska, and on to WebM."""
    upscale(with_subtitles(tmp_path / "in.mkv", "srt"), tmp_path / "a.mp4")
    upscale(tmp_path / "a.mp4", tmp_path / "b.mkv", factor=1)
    assert caplog.messages[1:] == [
        f"{tmp_path / 'b.mkv'}: converted: mov_text subtitles become subrip"
    ]
    name, language, texts = read(tmp_path / "b.mkv")
    assert (name, language) == ("subrip", "fra")
    assert texts == [
        (0.1, 0.3, "Hello {\\i1}w\u00f6rld{\\i0}"),
        (0.4, 0.7, "two\\Nlines"),
    ]
