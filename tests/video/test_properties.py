"""How samples are meant, told where each format keeps it: against H.273 and closed forms.

The files are made by FFmpeg's own encoders, muxers and bitstream filters, through PyAV.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from fdat_dense_iso.video import Encoding, VideoFile
from fdat_dense_iso.video.colour import Colour, PixelFormatConverter, SampleReader, plane_arrays
from fdat_dense_iso.video.hdr import static_hdr
from fdat_dense_iso.video.properties import Properties
from tests.helpers.video_cases import Clip, probe, write_clip
from tests.helpers.video_jobs import assert_same_pictures, upscale

CLIP = Clip(frames=4, audio=(), rate=Fraction(25))


def rewritten(path: Path, source: Path, *, bsf: str | None = None, colour=None, **tags) -> Path:
    """The same packets through a bitstream filter, with tags and colours in the file's header."""
    with av.open(str(source)) as file, av.open(str(path), "w") as container:
        track = file.streams.video[0]
        stream = container.add_stream_from_template(track, opaque=True)
        stream.metadata.update(tags)
        if colour:
            context = stream.codec_context
            context.color_primaries, context.color_trc, context.colorspace = colour[:3]
            context.color_range = colour[3]
        filtered = BitStreamFilterContext(bsf, in_stream=track, out_stream=stream) if bsf else None
        for packet in [*file.demux(track), None]:
            for one in filtered.filter(packet) if filtered else [packet]:
                if one is not None and one.dts is not None:
                    one.stream = stream
                    container.mux(one)
    return path


@pytest.mark.parametrize("name", ["left", "center", "topleft", "top", "bottomleft", "bottom"])
def test_the_siting_of_chroma_in_h264(tmp_path: Path, name: str) -> None:
    """ITU-T H.264, figure E-1: types 0 to 5."""
    names = ["left", "center", "topleft", "top", "bottomleft", "bottom"]
    write_clip(tmp_path / "plain.mp4", CLIP)
    bsf = f"h264_metadata=chroma_sample_loc_type={names.index(name)}"
    source = rewritten(tmp_path / "in.mp4", tmp_path / "plain.mp4", bsf=bsf)
    across, down = 128 * (name in ("center", "top", "bottom")), 128
    down = 0 if name.startswith("top") else 256 if name.startswith("bottom") else down
    with VideoFile(source) as video:
        assert video._properties.siting == (across, down)


@pytest.mark.parametrize(
    ("codec", "suffix", "siting"),
    [
        ("mjpeg", ".avi", (128, 128)),  # JFIF
        ("mpeg1video", ".mpg", (128, 128)),  # ISO/IEC 11172-2
        ("mpeg2video", ".mpg", (0, 128)),  # ISO/IEC 13818-2
        ("ffv1", ".mkv", (0, 128)),  # says nothing
    ],
)
def test_the_siting_of_chroma_by_codec(tmp_path: Path, codec: str, suffix: str, siting) -> None:
    full = {"pixel_format": "yuvj420p", "colour": (2, 2, 5, 2)} if codec == "mjpeg" else {}
    write_clip(
        tmp_path / f"in{suffix}",
        Clip(frames=4, audio=(), rate=Fraction(25), codec=codec, **full),
    )
    with VideoFile(tmp_path / f"in{suffix}") as video:
        assert video._properties.siting == siting


@pytest.mark.parametrize(
    ("pixel_format", "siting", "across", "down"),
    [
        ("yuv420p", (0, 128), 0, 0.5),
        ("yuv420p", (128, 128), 0.5, 0.5),
        ("yuv420p", (0, 0), 0, 0),
        ("yuv420p", (0, 256), 0, 1),
        ("yuv422p", (0, 128), 0, 0),  # only columns are halved
        ("yuv422p", (128, 128), 0.5, 0),
    ],
)
def test_chroma_is_read_where_it_lies(pixel_format: str, siting, across: float, down: float):
    """Ramps of chroma: their value at a pixel is that of the line through the samples."""
    frame = av.VideoFrame(64, 32, pixel_format)
    halved = pixel_format == "yuv420p"
    planes = plane_arrays(frame)
    rows = np.arange(planes[1].shape[0])[:, None]
    planes[0][:], planes[1][:, :32] = 128, 40 + 4 * np.arange(32)
    planes[2][:] = 40 + (4 if halved else 2) * rows
    samples = SampleReader(frame.format, Colour(), 32, 64, siting=siting).samples(frame) / 256
    inside = slice(8, -8)
    expected = 40 + 2 * (np.arange(64) - across)
    np.testing.assert_allclose(samples[1, 8][inside], expected[inside], atol=0.2)
    expected = 40 + 2 * (np.arange(32) - down)
    np.testing.assert_allclose(samples[2, :, 8][inside], expected[inside], atol=0.2)
    # what is written lies left, in the middle of halved rows
    back = PixelFormatConverter(pixel_format)
    full = av.VideoFrame(64, 32, "yuv444p")
    for plane, values in zip(plane_arrays(full), np.rint(samples)):
        plane[:, :64] = values
    ramp = plane_arrays(back(full))[1][8, 6:26].astype(float)
    np.testing.assert_allclose(ramp, 40 + 4 * np.arange(6, 26) - 2 * across, atol=1)


def test_hidden_alpha_is_told(tmp_path: Path, caplog) -> None:
    """Of VP8 and VP9, whose decoders hide it; the tag of the track tells."""
    write_clip(tmp_path / "plain.webm", Clip(frames=2, audio=(), codec="libvpx-vp9"))
    rewritten(tmp_path / "in.webm", tmp_path / "plain.webm", alpha_mode="1")
    upscale(tmp_path / "in.webm", tmp_path / "out.mkv")
    assert "in.webm: left out: alpha channel" in caplog.text
    with av.open(str(tmp_path / "out.mkv")) as container:  # the new file claims none
        assert "alpha_mode" not in {key.lower() for key in container.streams.video[0].metadata}
    caplog.clear()
    upscale(tmp_path / "plain.webm", tmp_path / "opaque.mkv")
    assert not caplog.messages


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_colours_that_the_container_alone_tells(tmp_path: Path, suffix: str) -> None:
    """The codec tells nothing, the box `colr` or Matroska's element Colour does."""
    write_clip(tmp_path / "plain.mp4", Clip(frames=2, audio=(), colour=(2, 2, 2, 0)))
    source = rewritten(tmp_path / f"in{suffix}", tmp_path / "plain.mp4", colour=(9, 16, 9, 2))
    with VideoFile(source) as video:
        assert video.colour == Colour(primaries=9, transfer=16, matrix=9, range=2)
    upscale(source, tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").colour == (9, 16, 9, 2)


P3 = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"  # SMPTE ST 2086
# of red, green, blue and white, in 1/50,000; least and greatest luminance
NUMBERS = (34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450, 1, 10_000_000)


def mastered(path: Path, *, codec: str = "libx265", bits: str = "10le") -> Path:
    """A video that tells of its screen (P3 within 0.0001 and 1000 nits) and its brightness."""
    key = "x265-params" if codec == "libx265" else "x264-params"
    screen, light = ("master-display", "max-cll") if "5" in codec else ("mastering-display", "cll")
    params = f"{'log-level=error:' if '5' in codec else ''}{light}=1000,400:{screen}={P3}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={key: params})
        stream.width, stream.height, stream.pix_fmt = 64, 64, f"yuv420p{bits}"
        for _ in range(50):  # more than a segment
            container.mux(stream.encode(av.VideoFrame(64, 64, stream.pix_fmt)))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("codec", "suffix", "steps"),
    [
        # in units of these the codec keeps chromaticities and luminances
        ("hevc", ".mp4", (50_000, 10_000)),
        ("hevc", ".mkv", (50_000, 10_000)),
        ("h264", ".mov", (50_000, 10_000)),
        ("av1", ".mp4", (65_536, 2**14)),
    ],
)
def test_mastering_data_are_kept(tmp_path: Path, caplog, codec: str, suffix: str, steps) -> None:
    source, target = mastered(tmp_path / "in.mp4"), tmp_path / f"out{suffix}"
    upscale(source, target, encoding=Encoding(codec=codec, preset="12" if codec == "av1" else None))
    assert not caplog.messages
    frames = _frames(target)
    assert len(frames) == 50
    keys = [frame for frame in frames if frame.key_frame]
    assert len(keys) >= 2
    for frame in keys:
        found = static_hdr(frame)
        assert found.light == (1000, 400)
        for number, (got, of) in enumerate(zip(found.screen, NUMBERS, strict=True)):
            expected = Fraction(of, 50_000 if number < 8 else 10_000)
            assert abs(got - expected) <= Fraction(1, steps[number >= 8])


def test_mastering_data_are_told_where_the_encoder_has_no_place(tmp_path: Path, caplog) -> None:
    source = mastered(tmp_path / "in.mp4", codec="libx264", bits="")
    upscale(source, tmp_path / "out.webm")
    assert "in.mp4: left out: mastering display, content light level" in caplog.text
    caplog.clear()
    upscale(source, tmp_path / "out.mp4", factor=1)
    assert not caplog.messages


def test_stereo_is_told(tmp_path: Path, caplog) -> None:
    write_clip(tmp_path / "plain.mp4", CLIP)
    source = rewritten(tmp_path / "in.mkv", tmp_path / "plain.mp4", stereo_mode="left_right")
    upscale(source, tmp_path / "out.mp4")
    assert "in.mkv: left out: stereo 3D" in caplog.text


def test_a_matrix_and_a_range_that_change(tmp_path: Path) -> None:
    """Each part is read by its own, and written by the first's."""
    data = b""
    for number, colour in enumerate([(1, 1, 1, 1), (5, 6, 5, 2)]):
        part = tmp_path / f"{number}.ts"
        write_clip(part, Clip(frames=10, audio=(), rate=Fraction(25), colour=colour))
        data += part.read_bytes()
    (tmp_path / "in.ts").write_bytes(data)
    upscale(tmp_path / "in.ts", tmp_path / "out.mp4")
    before, after = probe(tmp_path / "in.ts"), probe(tmp_path / "out.mp4")
    assert after.colour == (1, 1, 1, 1)
    assert_same_pictures(after.luma[:10], before.luma[:10])
    upscale(tmp_path / "1.ts", tmp_path / "one.mp4")
    alone = [_rgb(frame) for frame in _frames(tmp_path / "one.mp4")]
    joined = [_rgb(frame) for frame in _frames(tmp_path / "out.mp4")][10:]
    assert max(np.abs(a - b).mean() for a, b in zip(joined, alone, strict=True)) < 0.01


def _frames(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    colour = Colour(matrix=int(frame.colorspace), range=int(frame.color_range))
    reader = SampleReader(frame.format, colour, frame.height, frame.width)
    return reader.rgb(reader.samples(frame)).numpy()


@pytest.mark.parametrize(("number", "alpha"), [(1, True), (4, False)])
def test_alpha_beside_packets(tmp_path: Path, number: int, alpha: bool) -> None:
    """As in files of mkvmerge, which drops the tag; additions of number 4 are HDR10+ (WebM)."""
    write_clip(tmp_path / "in.webm", Clip(frames=1, codec="libvpx-vp9", audio=()))
    with av.open(str(tmp_path / "in.webm")) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))

        class Addition(bytes):
            data_type = "matroska_block_additional"

        class Packet:
            def iter_sidedata(self) -> list[Addition]:
                return [Addition(number.to_bytes(8, "big") + b"\x82\x49\x83\x42")]

        assert ("alpha channel" in Properties(stream, frame, Packet()).lost) == alpha
