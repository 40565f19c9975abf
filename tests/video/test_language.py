"""Languages in MOV and MP4, read back by FFmpeg's demuxers."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from fdat_dense_iso.video.language import language_in
from tests.helpers.video_cases import Clip, write_clip
from tests.helpers.video_jobs import upscale


@pytest.mark.parametrize(
    ("language", "in_mov"),
    [
        ("fra", "fra"),
        ("fre", "fra"),
        ("deu", "ger"),
        ("ron", "ron"),
        ("chi", "chi"),
        ("jpn", "jpn"),
    ],
)
def test_of_two_codes_that_which_is_held(language: str, in_mov: str) -> None:
    """ISO 639-2 has two for twenty languages; MOV's numbers (QuickTime File Format, language
    codes) stand in FFmpeg's table under one of them."""
    assert language_in("mov", language) == in_mov
    assert language_in("mp4", language) == language_in("matroska", language) == language


@pytest.mark.parametrize(
    ("language", "into", "held"),
    [
        ("swe", ".mov", None),  # FFmpeg's table lacks Swedish
        ("swe", ".mp4", "swe"),
        ("en-GB", ".mp4", None),
        ("en-GB", ".mkv", "en-GB"),
        ("cze", ".mov", "ces"),
    ],
)
def test_a_language_is_kept_or_told(
    tmp_path: Path, language: str, into: str, held: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    write_clip(tmp_path / "plain.mp4", Clip(frames=4))
    source, target = tmp_path / "in.mkv", tmp_path / f"out{into}"
    with av.open(str(tmp_path / "plain.mp4")) as plain, av.open(str(source), "w") as to:
        copies = [to.add_stream_from_template(one, opaque=True) for one in plain.streams]
        copies[1].metadata["language"] = language
        for packet in plain.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                to.mux(packet)
    upscale(source, target)
    told = [] if held else [f"{target} cannot hold and leaves out: the language {language}"]
    assert caplog.messages == told
    with av.open(str(target)) as container:
        found = container.streams.audio[0].metadata.get("language", "und")
    assert found == (held or "und")
