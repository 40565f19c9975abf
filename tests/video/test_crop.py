"""Pictures that a file wants to be shown in part: MKV (RFC 9559) and MP4 (ISO/IEC 14496-12), against
the same videos without that, and closed forms. mkvmerge's `--cropping` gives the same."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
from fdat_dense_iso.video import VideoFile
from fdat_dense_iso.video.crop import Crop, crop_of
from fdat_dense_iso.video.source import SourceFrame
from tests.helpers.video_cases import Clip, write_clip
from tests.helpers.video_jobs import upscale


def element(name: str, content: bytes) -> bytes:
    return bytes.fromhex(name) + bytes([0x80 | len(content)]) + content


def matroska(**sides: int) -> bytes:
    """The beginning of a file, whose first track is sound."""
    names = {"top": "54bb", "bottom": "54aa", "left": "54cc", "right": "54dd"}
    video = b"".join(element(names[side], bytes([count])) for side, count in sides.items())
    tracks = element("ae", element("83", b"\2") + element("e1", b""))
    tracks += element("ae", element("83", b"\1") + element("e0", element("b0", b"\x40") + video))
    return element("1a45dfa3", b"") + bytes.fromhex("18538067ff") + element("1654ae6b", tracks)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def with_aperture(data: bytes, aperture: bytes) -> bytes:
    """An MP4 file whose index stands at its end, with one box more in its video's description."""
    data = bytearray(data)
    at = data.index(b"avc1", data.index(b"stsd")) - 4
    end = at + int.from_bytes(data[at : at + 4], "big")
    data[end:end] = aperture
    for kind in (b"avc1", b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        at = data.rindex(kind, 0, at + 8) - 4
        length = int.from_bytes(data[at : at + 4], "big") + len(aperture)
        data[at : at + 4] = struct.pack(">I", length)
    return bytes(data)


def pictures(path: Path) -> list[np.ndarray]:
    with VideoFile(path) as video:
        return [item.rgb().numpy() for item in video if isinstance(item, SourceFrame)]


def test_matroska() -> None:
    whole = matroska(left=4, top=6, right=8, bottom=10)
    assert crop_of(io.BytesIO(whole), "matroska,webm", 48, 64) == (6, 10, 4, 8)
    assert crop_of(io.BytesIO(matroska()), "matroska,webm", 48, 64) == Crop()
    assert crop_of(io.BytesIO(matroska(left=200)), "matroska,webm", 48, 64) == Crop()
    for length in range(len(whole)):  # of a file that is cut off
        crop_of(io.BytesIO(whole[:length]), "matroska,webm", 48, 64)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((50, 1, 32, 1, 0, 1, 0, 1), (8, 8, 7, 7)),
        ((50, 1, 32, 1, -3, 1, 5, 1), (13, 3, 4, 10)),
        ((101, 2, 32, 1, 1, 4, 0, 1), (8, 8, 7, 7)),  # 50.5 wide, from 7 to 57.5
        ((64, 1, 48, 1, 0, 1, 0, 1), (0, 0, 0, 0)),
        ((80, 1, 48, 1, 0, 1, 0, 1), (0, 0, 0, 0)),  # more than there is
        ((50, 0, 32, 1, 0, 1, 0, 1), (0, 0, 0, 0)),
    ],
)
def test_clean_aperture(tmp_path: Path, numbers, expected) -> None:
    """Its middle lies so far from that of the picture."""
    write_clip(tmp_path / "plain.mp4", Clip(frames=3))
    data = with_aperture(
        (tmp_path / "plain.mp4").read_bytes(), box(b"clap", struct.pack(">8i", *numbers))
    )
    (tmp_path / "in.mp4").write_bytes(data)
    assert crop_of(tmp_path / "in.mp4", "mov,mp4,m4a,3gp,3g2,mj2", 48, 64) == expected
    top, bottom, left, right = expected
    plain, found = pictures(tmp_path / "plain.mp4"), pictures(tmp_path / "in.mp4")
    assert all(
        np.array_equal(one, other[top : 48 - bottom, left : 64 - right])
        for one, other in zip(found, plain, strict=True)
    )


def test_a_turned_picture(tmp_path: Path) -> None:
    """By 90 degrees: what is cut off is that of the stored picture."""
    turned = (0, 65536, 0, -65536, 0, 0, 64 * 65536, 0, 1 << 30)
    write_clip(tmp_path / "plain.mp4", Clip(frames=3, matrix=turned, rate=Fraction(25)))
    aperture = box(b"clap", struct.pack(">8i", 50, 1, 32, 1, -3, 1, 5, 1))
    (tmp_path / "in.mp4").write_bytes(
        with_aperture((tmp_path / "plain.mp4").read_bytes(), aperture)
    )
    (plain, *_), (found, *_) = pictures(tmp_path / "plain.mp4"), pictures(tmp_path / "in.mp4")
    assert plain.shape == (64, 48, 3)
    assert np.array_equal(found, plain[4:54, 3:35])
    assert upscale(tmp_path / "in.mp4", tmp_path / "out.mp4").size == (100, 64)
