"""Pictures that are read and not written, made by Pillow and libvips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

pytest.importorskip("av")
import av

from fdat_dense_iso.picture.container import png_chunks
from fdat_dense_iso.picture.files import plan_jobs
from fdat_dense_iso.picture.formats import PictureError
from fdat_dense_iso.picture.others import left_out
from fdat_dense_iso.picture.read import read_picture
from fdat_dense_iso.picture.write import write_picture
from tests.helpers.picture_cases import ICC, samples, write_tiff


@pytest.mark.parametrize("name", ["a.bmp", "a.ppm", "a.pgm", "palette.bmp"])
def test_exact_pixels(tmp_path: Path, name: str) -> None:
    grey = name.endswith(".pgm")
    values = samples(1 if grey else 3, 8)
    picture = Image.fromarray(values.squeeze())
    if name == "palette.bmp":
        picture = picture.quantize(16)
        values = np.asarray(picture.convert("RGB"))
    picture.save(tmp_path / name)
    read = read_picture(tmp_path / name)
    assert (read.bits, read.grey) == (8, grey)
    np.testing.assert_array_equal(np.rint(read.pixels * 255), values.reshape(*values.shape[:2], -1))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *(("TGA", {}), ("TGA", {"compression": "tga_rle"}), ("SGI", {}), ("PCX", {}), ("DDS", {})),
        ("JPEG2000", {"irreversible": False}),
    ],
)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_kinds_without_a_container(tmp_path: Path, kind: str, options: dict, mode: str) -> None:
    if (kind, mode) == ("DDS", "L"):
        pytest.skip("FFmpeg reads no grey DDS; it is refused")
    values = samples({"L": 1, "RGB": 3, "RGBA": 4}[mode], 8, height=16, width=20)
    try:
        Image.fromarray(values.squeeze()).save(tmp_path / "a", kind, **options)
    except (OSError, ValueError):
        pytest.skip("Pillow writes no such file")
    expected = np.asarray(Image.open(tmp_path / "a"))
    read = read_picture(tmp_path / "a")
    codes = np.rint(read.pixels * 255).astype(int)
    if mode == "L" and codes.shape[2] > 1:  # PCX has grey in a palette
        codes = codes[..., :1]
    np.testing.assert_array_equal(codes, expected.reshape(codes.shape))
    for part in (18, 40):
        (tmp_path / "cut").write_bytes((tmp_path / "a").read_bytes()[:part])
        with pytest.raises(PictureError):
            read_picture(tmp_path / "cut")
    with pytest.raises(PictureError, match=r"limit of 0\.0003 million pixels"):
        read_picture(tmp_path / "a", max_pixels=300)


def test_profile_of_jpeg_2000(tmp_path: Path) -> None:
    Image.fromarray(samples(3, 8)).save(tmp_path / "a.jp2", irreversible=False)
    jp2 = bytearray((tmp_path / "a.jp2").read_bytes())
    at = jp2.find(b"colr\1") - 4  # the box for sRGB, of 15 bytes, becomes one with a profile
    body = b"colr\2\0\0" + ICC
    jp2[at : at + 15] = (len(body) + 4).to_bytes(4, "big") + body
    around = jp2.find(b"jp2h") - 4
    length = int.from_bytes(jp2[around : around + 4], "big") + len(body) + 4 - 15
    jp2[around : around + 4] = length.to_bytes(4, "big")
    (tmp_path / "b.jp2").write_bytes(jp2)
    assert read_picture(tmp_path / "b.jp2").metadata.profile == ICC


def test_grey_with_alpha(tmp_path: Path) -> None:
    values = samples(2, 8)
    head = b"P7\nWIDTH 17\nHEIGHT 13\nDEPTH 2\nMAXVAL 255\nTUPLTYPE GRAYSCALE_ALPHA\nENDHDR\n"
    (tmp_path / "a.pam").write_bytes(head + values.tobytes())
    codes = np.rint(read_picture(tmp_path / "a.pam").pixels * 255)
    np.testing.assert_array_equal(codes, values[:, :, [0, 0, 0, 1]])


@pytest.mark.skipif(not pyvips.type_find("VipsForeignSave", "heifsave_buffer"), reason="no AVIF")
def test_avif(tmp_path: Path) -> None:
    """With its profile; its pixels are those that Pillow decodes."""
    values = samples(3, 8).repeat(8, 0).repeat(8, 1)
    image = pyvips.Image.new_from_array(values)
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", ICC)
    try:
        image.heifsave(str(tmp_path / "a.avif"), compression="av1", Q=90, keep="icc")
    except pyvips.Error:
        pytest.skip("this libvips has no encoder of AV1")
    read = read_picture(tmp_path / "a.avif")
    assert read.pixels.shape == values.shape
    assert read.metadata.profile == ICC
    expected = np.asarray(Image.open(tmp_path / "a.avif").convert("RGB"))
    assert np.abs(read.pixels * 255 - expected).max() <= 2


def test_too_many_pixels_and_broken_ones(tmp_path: Path) -> None:
    Image.fromarray(samples(3, 8)).save(tmp_path / "a.bmp")
    with pytest.raises(PictureError, match="it claims 17x13 pixels; the limit is"):
        read_picture(tmp_path / "a.bmp", max_pixels=100)
    (tmp_path / "b.bmp").write_bytes(b"BM" + bytes(60))
    (tmp_path / "c.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(60))
    for name in ("b.bmp", "c.heic"):
        with pytest.raises(PictureError):
            read_picture(tmp_path / name)


def test_results_in_a_folder_are_png(tmp_path: Path) -> None:
    for name in ("a.bmp", "b.avif", "c.heic"):
        (tmp_path / name).touch()
    jobs = plan_jobs([str(tmp_path)], "new")
    assert [job.target.as_posix() for job in jobs] == ["new/a.png", "new/b.png", "new/c.png"]


def avif_of_video(path: Path, colour: tuple[int, int, int]) -> bytes:
    """A picture that FFmpeg wrote, with code points of H.273 in place of an ICC profile."""
    frame = av.VideoFrame(64, 64, "yuv420p10le")
    for plane in frame.planes:
        plane.update(np.full(plane.buffer_size // 2, 512, np.uint16).tobytes())
    with av.open(str(path), "w", format="avif") as container:
        stream = container.add_stream("libsvtav1", rate=1)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = colour
        context.color_range = 2
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize(
    ("colour", "chunk"),
    [((9, 16, 9), (9, 16, 0, 1)), ((12, 13, 6), (12, 13, 0, 1)), ((1, 1, 1), None)],
)
def test_colours_of_avif_that_are_in_no_profile(tmp_path: Path, colour, chunk) -> None:
    """PQ of BT.2020 and P3, in the box `colr`, go on as PNG's cICP (H.273, RGB of full range)."""
    avif_of_video(tmp_path / "a.avif", colour)
    read = read_picture(tmp_path / "a.avif")
    expected = {} if chunk is None else {b"cICP": bytes(chunk)}
    assert read.metadata.colour.chunks == expected
    write_picture(read, tmp_path / "a.png")
    assert dict(png_chunks((tmp_path / "a.png").read_bytes())).get(b"cICP") == (
        chunk and bytes(chunk)
    )


def test_what_a_heif_file_holds_beside_is_told(tmp_path: Path, caplog) -> None:
    data = avif_of_video(tmp_path / "a.avif", (1, 1, 1))
    assert left_out(data) == []
    pictures = [Image.fromarray(samples(3, 8) // part) for part in (1, 2)]
    pictures[0].save(tmp_path / "b.avif", save_all=True, append_images=pictures[1:])
    read_picture(tmp_path / "b.avif")
    assert "b.avif: left out: its animation but for one picture" in caplog.text
    with_map = data.replace(b"mdat", b"urn:com:apple:photo:2020:aux:hdrgainmap\0mdat", 1)
    assert left_out(with_map) == ["a gain map"]


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_deep_avif_has_its_white(tmp_path: Path, bits: int) -> None:
    """Codes of 10 and 12 bits by the highest one of as many, and not by that of 16."""
    codes = np.linspace(0, 2**bits - 1, 64).round().astype(np.uint16)
    stored = codes << (16 - bits) if bits > 8 else codes.astype(np.uint8)
    values = np.ascontiguousarray(np.broadcast_to(stored[None, :, None], (64, 64, 3)))
    image = pyvips.Image.new_from_array(values)
    image = image.copy(interpretation="rgb16" if bits > 8 else "srgb")
    try:
        data = image.heifsave_buffer(compression="av1", bitdepth=bits, lossless=True)
    except pyvips.Error:
        pytest.skip("this libvips has no encoder of AV1")
    (tmp_path / "a.avif").write_bytes(data)
    pixels = read_picture(tmp_path / "a.avif").pixels
    np.testing.assert_allclose(pixels[0, :, 0], codes / (2**bits - 1), atol=1e-5)


def test_names_that_are_no_text_in_damaged_files(tmp_path: Path) -> None:
    """libvips repeats them in its messages, which pyvips then can't decode."""
    exif = Image.Exif()
    exif[0x0112] = 6  # which Pillow writes as a property that must be understood
    try:
        Image.fromarray(samples(3, 8)).save(tmp_path / "a.avif", exif=exif)
    except (KeyError, OSError):
        pytest.skip("Pillow writes no AVIF")
    avif = (tmp_path / "a.avif").read_bytes()
    (tmp_path / "b.avif").write_bytes(avif.replace(b"irot", b"\xffrot"))
    with pytest.raises(PictureError, match=r"cannot be decoded .*could not parse item property"):
        read_picture(tmp_path / "b.avif")
    # and the pictures that follow are read as if nothing had been
    write_tiff(tmp_path / "c.tif", samples(3, 8))
    assert read_picture(tmp_path / "c.tif").pixels.shape == (13, 17, 3)
