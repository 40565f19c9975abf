"""Colours of video frames, against the code values of the standards' colour bars, and closed
forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("av")
import av

from fdat_dense_iso.video import VideoFile
from fdat_dense_iso.video.colour import (
    FULL,
    LIMITED,
    Colour,
    FrameMaker,
    PixelFormatConverter,
    SampleReader,
    VideoError,
    plane_arrays,
)
from fdat_dense_iso.video.source import SourceFrame
from tests.helpers.video_cases import Clip, write_clip
from tests.helpers.video_jobs import upscale

RGB_BARS = [(1, 1, 1), (1, 1, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (1, 0, 0), (0, 0, 1), (0, 0, 0)]
BARS = {  # (matrix, range, bits): Y', Cb, Cr of white, yellow, cyan, green, magenta, red, blue, black
    (1, LIMITED, 8): [
        *((235, 128, 128), (219, 16, 138), (188, 154, 16), (173, 42, 26)),
        *((78, 214, 230), (63, 102, 240), (32, 240, 118), (16, 128, 128)),
    ],
    (6, LIMITED, 8): [
        *((235, 128, 128), (210, 16, 146), (170, 166, 16), (145, 54, 34)),
        *((106, 202, 222), (81, 90, 240), (41, 240, 110), (16, 128, 128)),
    ],
    (5, FULL, 8): [  # JFIF
        *((255, 128, 128), (226, 0, 149), (179, 171, 0), (150, 44, 21)),
        *((105, 212, 235), (76, 85, 255), (29, 255, 107), (0, 128, 128)),
    ],
    (1, LIMITED, 10): [
        *((940, 512, 512), (877, 64, 553), (754, 615, 64), (690, 167, 105)),
        *((314, 857, 919), (250, 409, 960), (127, 960, 471), (64, 512, 512)),
    ],
}


def name_of(bits: int, chroma: str = "444") -> str:
    return f"yuv{chroma}p" if bits == 8 else f"yuv{chroma}p{bits}le"


def frame_of(name: str, height: int, width: int, planes: list) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, name)
    for target, values in zip(plane_arrays(frame), planes):
        target[:, : np.shape(values)[-1] if np.ndim(values) else None] = values
    return frame


@pytest.mark.parametrize("bars", BARS, ids=str)
@pytest.mark.parametrize("chroma", ["444", "420"])
def test_colour_bars(bars: tuple[int, int, int], chroma: str) -> None:
    matrix, levels, bits = bars
    colour = Colour(matrix=matrix, range=levels)
    for rgb, codes in zip(RGB_BARS, BARS[bars], strict=True):
        made = FrameMaker(name_of(bits, chroma), colour, 16, 24)(
            torch.tensor(rgb).float().expand(16, 24, 3)
        )
        assert [int(plane[3, 3]) for plane in plane_arrays(made)] == pytest.approx(codes, abs=1)
        assert made.color_range == levels
        frame = frame_of(name_of(bits, chroma), 16, 24, codes)
        frame.color_range, frame.colorspace = levels, matrix  # as decoders give them
        reader = SampleReader(frame.format, colour, 16, 24)
        read = reader.rgb(reader.samples(frame))
        assert read.shape == (16, 24, 3)
        assert (read - torch.tensor(rgb)).abs().max() < 1.3 / 2 ** (
            bits - 1
        )  # a code value is rounded


@pytest.mark.parametrize("matrix", [1, 4, 5, 6, 7, 9])
@pytest.mark.parametrize("levels", [LIMITED, FULL])
@pytest.mark.parametrize("bits", [8, 10])
def test_pictures_come_back(matrix: int, levels: int, bits: int) -> None:
    rgb = torch.rand(37, 45, 3, generator=torch.Generator().manual_seed(0))
    colour = Colour(matrix=matrix, range=levels)
    made = FrameMaker(name_of(bits), colour, 37, 45)(rgb)
    reader = SampleReader(made.format, colour, 37, 45)
    assert (reader.rgb(reader.samples(made)) - rgb).abs().max() < 2 / 2**bits


@pytest.mark.parametrize(
    "name", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuvj420p", "nv12"]
)
def test_luma_is_not_touched(name: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (34, 46))
    frame = frame_of(name, 34, 46, [values])
    for plane in plane_arrays(frame)[1:]:
        plane[:] = 128
    expected = plane_arrays(frame)[0][:, :46].astype(int)
    frame.color_range, frame.colorspace = FULL, 1
    bits = frame.format.components[0].bits
    samples = SampleReader(frame.format, Colour(), 34, 46).samples(frame)
    np.testing.assert_array_equal(samples[0], expected * 2 ** (16 - bits))


def test_chroma_is_sited_left_and_between_rows() -> None:
    """A sample of 4:2:0 chroma lies on every other column, and in the middle of two rows."""
    height, width = 32, 64
    columns, rows = np.arange(width // 2), np.arange(height // 2)[:, None]
    frame = frame_of(
        "yuv420p", height, width, [128, 40 + 4 * columns, np.broadcast_to(40 + 4 * rows, (16, 32))]
    )
    samples = SampleReader(frame.format, Colour(), height, width).samples(frame) / 256
    inside = np.s_[8:-8]
    np.testing.assert_allclose(samples[1, 8][inside], (40 + 2 * np.arange(width))[inside], atol=0.2)
    np.testing.assert_allclose(
        samples[2, :, 8][inside], (39 + 2 * np.arange(height))[inside], atol=0.2
    )
    back = frame_of("yuv444p", height, width, [np.rint(plane) for plane in samples])
    planes = [
        plane[:, : width // 2] for plane in plane_arrays(PixelFormatConverter("yuv420p")(back))
    ]
    np.testing.assert_allclose(planes[1][8, 6:-6], (40 + 4 * columns)[6:-6], atol=1)
    np.testing.assert_allclose(planes[2][6:-6, 8], (40 + 4 * rows[:, 0])[6:-6], atol=1)


@pytest.mark.parametrize(
    ("name", "top"), [("rgb24", 255), ("gbrp", 255), ("gbrp10le", 1023), ("rgb48le", 65535)]
)
def test_rgb_is_taken_as_it_is(name: str, top: int) -> None:
    values = np.random.default_rng(0).integers(0, top + 1, (9, 7, 3))
    frame = av.VideoFrame(7, 9, name)
    if name.startswith("gbrp"):
        for plane, channel in zip(plane_arrays(frame), (1, 2, 0)):
            plane[:, :7] = values[..., channel]
    else:
        plane_arrays(frame)[0][:, :21] = values.reshape(9, 21)
    reader = SampleReader(frame.format, Colour(matrix=0), 9, 7)
    np.testing.assert_allclose(
        reader.rgb(reader.samples(frame)).numpy(), values / top, atol=1.1 / top
    )


@pytest.mark.parametrize(("name", "black", "white"), [("gray", 16, 235), ("gray10le", 64, 940)])
def test_grey(name: str, black: int, white: int) -> None:
    frame = frame_of(name, 4, 16, [np.linspace(black, white, 16).round()])
    reader = SampleReader(frame.format, Colour(range=LIMITED), 4, 16)
    read = reader.rgb(reader.samples(frame))
    expected = torch.linspace(0, 1, 16)[None, :, None].expand(4, 16, 3)
    torch.testing.assert_close(read, expected, atol=1.01 / (white - black), rtol=0)


def test_matrices_that_are_not_linear() -> None:
    with pytest.raises(VideoError, match=r"colour matrix \(number 10 in H\.273\) is not supported"):
        SampleReader(av.VideoFormat("yuv420p"), Colour(matrix=10), 48, 64)


@pytest.mark.parametrize("width", range(33, 66, 3))
@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10le"])
def test_widths_that_are_no_multiple_of_anything(name: str, width: int) -> None:
    """No pixel depends on memory beyond the picture."""
    rng = np.random.default_rng(width)
    results = []
    for _ in range(2):
        frame = av.VideoFrame(width, 20, name)
        for plane, shown in zip(plane_arrays(frame), (width, -(-width // 2), -(-width // 2))):
            plane[:] = rng.integers(0, 255, plane.shape)
            plane[:, :shown] = np.arange(shown) * 3 + 20
        results.append(SampleReader(frame.format, Colour(), 20, width).samples(frame))
    np.testing.assert_array_equal(results[0], results[1])


@pytest.mark.parametrize(
    "kind", ["gbrp12le", "gbrap", "gbrap10le", "gbrap12le", "gbrap16le", "gbrap12be", "rgba64le"]
)
def test_rgb_beside_alpha_is_taken_as_it_is(kind: str) -> None:
    """Against the planes (or words of pixels) that the frame was made of."""
    random = np.random.default_rng(0)
    frame = av.VideoFrame(64, 48, kind)
    bits = frame.format.components[0].bits
    dtype = np.dtype("u1" if bits == 8 else ">u2" if kind.endswith("be") else "<u2")
    given = []
    for plane in frame.planes:
        values = np.frombuffer(plane, dtype).reshape(48, -1)
        values[:] = random.integers(0, 2**bits, values.shape)
        given.append(values)
    if kind == "rgba64le":
        pixels = given[0][:, : 4 * 64].reshape(48, 64, 4)
        green, blue, red = (pixels[..., channel] for channel in (1, 2, 0))
    else:
        green, blue, red = (plane[:, :64] for plane in given[:3])
    reader = SampleReader(frame.format, Colour(matrix=0), 48, 64)
    found = reader.rgb(reader.samples(frame)).numpy()
    expected = np.stack([red, green, blue], axis=2).astype(float) / (2**bits - 1)
    assert np.abs(found - expected).max() < 1e-6


def test_grey_beside_alpha() -> None:
    frame = av.VideoFrame(256, 4, "ya8")
    np.frombuffer(frame.planes[0], np.uint8).reshape(4, -1)[:, :512:2] = np.arange(256)
    reader = SampleReader(frame.format, Colour(range=2), 4, 256)
    found = reader.rgb(reader.samples(frame)).numpy()
    assert np.abs(found - np.arange(256)[None, :, None] / 255).max() < 1e-6


@pytest.mark.parametrize(("codec", "white"), [("rawvideo", 255), ("ffv1", 255), ("libx264", 235)])
def test_grey_of_unknown_range(tmp_path: Path, codec: str, white: int) -> None:
    """FFmpeg's `ffmpeg -pix_fmt rgb24` gives the same for raw files; H.264 names the range (its
    annex E: limited where nothing is told)."""
    with av.open(str(tmp_path / "in.avi"), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        frame = av.VideoFrame(64, 48, "gray")
        np.frombuffer(frame.planes[0], np.uint8)[:] = white
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with VideoFile(tmp_path / "in.avi") as video:
        first = next(item for item in video if isinstance(item, SourceFrame))
    assert float((first.rgb() - 1).abs().max()) < 0.01


def test_floating_point_is_refused() -> None:
    with pytest.raises(VideoError, match=r"samples are floating point \(gbrpf32le\)"):
        SampleReader(av.VideoFormat("gbrpf32le"), Colour(matrix=0), 48, 64)


def test_bits_that_are_lost_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_clip(tmp_path / "in.mkv", Clip(frames=2, codec="ffv1", pixel_format="yuv444p12le"))
    upscale(tmp_path / "in.mkv", tmp_path / "out.mkv")
    assert "in.mkv: 12 bits a sample become 10" in caplog.text
