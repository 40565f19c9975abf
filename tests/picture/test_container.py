"""What libvips does not read, takes for something else or makes up: read, refused, or told. Judged by
Pillow and tifffile."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from tests.helpers.picture_cases import (
    ICC,
    XMP,
    encoded,
    exif_block,
    samples,
    write_png,
    write_tiff,
)

pytest.importorskip("pyvips")
import pyvips

from fdat_dense_iso.picture.animation import read_animation, write_animation
from fdat_dense_iso.picture.exif import exif_of_tiff
from fdat_dense_iso.picture.formats import Picture, PictureError, unreadable
from fdat_dense_iso.picture.large.spool import Spool, read_header
from fdat_dense_iso.picture.read import read_picture
from fdat_dense_iso.picture.tiff import ExifError
from fdat_dense_iso.picture.write import write_picture

VALUES = samples(3, 8)
EXIF = exif_block(orientation=6).tobytes().removeprefix(b"Exif\0\0")
IPTC = b"\x1c\x02\x78\0\5hello"  # Caption-Abstract
RESOURCE = b"8BIM\4\4\0\0" + struct.pack(">I", len(IPTC)) + IPTC + b"\0"


def read_both(path: Path, caplog: pytest.LogCaptureFixture) -> tuple[Picture, str]:
    """The picture as it is read in memory, after comparing it with what is read in bands, and what
    is told."""
    picture = read_picture(path)
    told = caplog.text
    header = read_header(path)
    assert header is not None
    spool = Spool(path, path.with_suffix(".spool"), header)
    streamed = spool.read(0, spool.height, 0, spool.width)
    spool.close()
    np.testing.assert_array_equal(streamed, picture.pixels)
    assert (spool.metadata.exif, spool.metadata.xmp) == (
        picture.metadata.exif,
        picture.metadata.xmp,
    )
    return picture, told


def png(path: Path, chunks: dict[bytes, bytes], behind: dict[bytes, bytes] | None = None) -> Path:
    """With chunks before and behind the pixels."""
    write_png(path, VALUES, chunks)
    data = path.read_bytes()
    late = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in (behind or {}).items()
    )
    path.write_bytes(data[:-12] + late + data[-12:])
    return path


def raw_profile(name: str, data: bytes) -> dict[bytes, bytes]:
    """As ImageMagick writes it."""
    digits = data.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    text = f"\n{name}\n{len(data):8}\n{lines}\n".encode()
    return {b"zTXt": b"Raw profile type " + name.encode() + b"\0\0" + zlib.compress(text)}


# PNG


def test_exif_and_xmp_behind_the_pixels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """PNG allows it, and ExifTool writes XMP there."""
    behind = {b"iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + XMP, b"eXIf": EXIF}
    source = png(tmp_path / "a.png", {}, behind)
    picture, told = read_both(source, caplog)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(source)))
    np.testing.assert_array_equal(np.rint(picture.pixels * 255), upright)
    write_picture(picture, tmp_path / "b.jpg")
    result = Image.open(tmp_path / "b.jpg")
    assert result.getexif()[0x0112] == 1 and result.getexif()[0x8298] == "(c) somebody"
    assert result.info["xmp"] == XMP.replace(b'Orientation="6"', b'Orientation="1"')
    assert not told


@pytest.mark.parametrize(
    ("name", "data", "field", "expected"),
    [
        ("exif", b"Exif\0\0" + EXIF, "exif", EXIF),
        ("APP1", b"Exif\0\0" + EXIF, "exif", EXIF),
        ("APP1", b"http://ns.adobe.com/xap/1.0/\0" + XMP, "xmp", XMP),
        ("xmp", XMP, "xmp", XMP),
        ("iptc", RESOURCE, "iptc", IPTC),
        ("iptc", IPTC, "iptc", IPTC),
        ("icc", ICC, "profile", ICC),
    ],
)
def test_raw_profiles_are_what_they_hold(
    tmp_path: Path, name: str, data: bytes, field: str, expected: bytes
) -> None:
    picture = read_picture(png(tmp_path / "a.png", raw_profile(name, data)))
    assert getattr(picture.metadata, field) == expected
    assert not picture.metadata.png_text  # which would be copied as it is
    write_picture(picture, tmp_path / "b.png")
    again = read_picture(tmp_path / "b.png")
    if field != "exif":  # which says other things of the result
        assert getattr(again.metadata, field) == expected


@pytest.mark.parametrize(
    ("chunks", "named"),
    [
        ({b"iCCP": b"x\0\0no profile"}, "its ICC profile (broken)"),
        ({b"iCCP": b"x\0\0" + zlib.compress(ICC[:100])}, "its ICC profile (broken)"),
        ({b"eXIf": b"garbage"}, "EXIF (broken)"),
        ({b"iTXt": b"XML:com.adobe.xmp\0\1\0\0\0no XMP"}, "XMP (broken)"),
    ],
)
def test_broken_parts_are_told(
    tmp_path: Path, chunks: dict, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    read_both(png(tmp_path / "a.png", chunks), caplog)
    assert f"left out: {named}" in caplog.text


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_what_is_behind_a_picture_is_told(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a"
    path.write_bytes(encoded(Image.fromarray(VALUES), kind) + b"hello, a video\x1b[31m" * 9)
    _, told = read_both(path, caplog)
    assert "behind the picture" in told and "chunk" not in told


def test_the_first_of_two_chunks_counts(tmp_path: Path) -> None:
    source = png(tmp_path / "a.png", {b"gAMA": struct.pack(">I", 45455)}, {b"gAMA": bytes(4)})
    assert read_picture(source).metadata.colour.chunks[b"gAMA"] == struct.pack(">I", 45455)


def test_primaries_of_srgb_need_no_profile(tmp_path: Path) -> None:
    """As ImageMagick writes them into TIFF, without a curve."""
    numbers = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    source = png(tmp_path / "a.png", {b"cHRM": struct.pack(">8I", *numbers)})
    write_picture(read_picture(source), tmp_path / "b.webp")
    assert "icc_profile" not in Image.open(tmp_path / "b.webp").info


def test_a_gamma_that_no_profile_holds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = png(tmp_path / "a.png", {b"gAMA": struct.pack(">I", 1)})
    write_picture(read_picture(source), tmp_path / "b.jpg")
    assert "not kept: what it says of its colours (an exponent of 100000)" in caplog.text


def test_workflows_of_webp_are_text_in_png(tmp_path: Path, caplog) -> None:
    """ComfyUI looks for them there; and they go back without a word of loss."""
    exif = Image.Exif()
    exif[0x0110], exif[0x010F] = 'prompt:{"1": {}}', 'workflow:{"nodes": []}'
    Image.fromarray(VALUES).save(tmp_path / "a.webp", lossless=True, exif=exif)
    write_picture(read_picture(tmp_path / "a.webp"), tmp_path / "b.png")
    info = Image.open(tmp_path / "b.png").info
    assert (info["prompt"], info["workflow"]) == ('{"1": {}}', '{"nodes": []}')
    write_picture(read_picture(tmp_path / "b.png"), tmp_path / "c.jpg")
    assert Image.open(tmp_path / "c.jpg").getexif()[0x0110] == 'prompt:{"1": {}}'
    assert not caplog.text


def test_workflows_of_comfyui_s_animations(tmp_path: Path, caplog) -> None:
    """They are in chunks of its own, behind the frames."""
    frames = [Image.fromarray(VALUES), Image.fromarray(VALUES[::-1])]
    info = PngInfo()
    info.add(b"comf", b'workflow\0{"nodes": []}', after_idat=True)
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], pnginfo=info)
    write_animation(read_animation(tmp_path / "a.png"), tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").info["workflow"] == '{"nodes": []}'
    write_animation(read_animation(tmp_path / "b.png"), tmp_path / "c.webp")
    assert Image.open(tmp_path / "c.webp").getexif()[0x010F] == 'workflow:{"nodes": []}'
    assert not caplog.text


# JPEG and GIF


@pytest.mark.parametrize(
    ("marker", "body", "named"),
    [
        (0xE1, b"FLIR\0\1\0\0", "APP1 FLIR"),
        (0xE3, b"_JPSJPS_\0\x10", "how its two pictures are seen in stereo (JPS)"),
        (0xE4, b"ssuniqueid\0", "APP4 ssuniqueid"),
        (0xE8, b"SPIFF\0", "APP8 SPIFF"),
        (0xED, b"Photoshop 3.0\0" + b"8BIM\4\x0a\0\0\0\0\0\1\1\0", "Photoshop's mark of copyright"),
        (0xEC, b"Ducky\0\1\0\4\0\0\0\x3c\0\0", ""),  # the quality of the old file
        (0xEE, b"Adobe\0\x64\0\0\0\0\1", ""),
    ],
)
def test_segments_of_jpeg(tmp_path: Path, marker: int, body: bytes, named: str, caplog) -> None:
    jpeg = encoded(Image.fromarray(VALUES), "JPEG")
    segment = struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    read_both(tmp_path / "a.jpg", caplog)
    assert (f"left out: {named}\n" in caplog.text) if named else not caplog.text


def parts_of_profile(*parts: tuple[int, bytes]) -> bytes:
    """A JPEG with these of two parts of a profile."""
    jpeg = encoded(Image.fromarray(VALUES), "JPEG")
    segments = b""
    for number, part in parts:
        body = b"ICC_PROFILE\0" + bytes([number, 2]) + part
        segments += struct.pack(">BBH", 0xFF, 0xE2, len(body) + 2) + body
    return jpeg[:2] + segments + jpeg[2:]


def test_profiles_in_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In any order; not without a part."""
    first, second = (1, ICC[:300]), (2, ICC[300:])
    (tmp_path / "a.jpg").write_bytes(parts_of_profile(second, first))
    assert read_picture(tmp_path / "a.jpg").metadata.profile == ICC
    assert not caplog.text
    for part in (first, second):
        (tmp_path / "b.jpg").write_bytes(parts_of_profile(part))
        caplog.clear()
        assert read_picture(tmp_path / "b.jpg").metadata.profile is None
        assert "left out: its ICC profile (broken)" in caplog.text


@pytest.mark.parametrize("profile", [b"garbage" * 99, ICC])
def test_cmyk_with_a_profile_that_does_not_fit(tmp_path: Path, profile: bytes, caplog) -> None:
    Image.fromarray(VALUES).convert("CMYK").save(tmp_path / "a.jpg", icc_profile=profile)
    read_picture(tmp_path / "a.jpg")
    assert "by a general profile, since its own is broken or for other colours" in caplog.text


def test_comments_that_are_no_utf_8(tmp_path: Path) -> None:
    Image.fromarray(VALUES).save(tmp_path / "a.jpg", comment="Söhne".encode("latin-1"))
    write_picture(read_picture(tmp_path / "a.jpg"), tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").info["Comment"] == "Söhne"


def test_what_gif_says_beside_its_pixels(tmp_path: Path, caplog) -> None:
    gif = bytearray(encoded(Image.fromarray(VALUES[..., 0]), "GIF"))
    gif[12] = 113  # pixels are (113 + 15) / 64 = 2 times as wide as high
    xmp = b"!\xff\x0bXMP DataXMP" + bytes([len(XMP)]) + XMP + b"\0"
    text = b"!\x01\x0c" + bytes(12) + b"\1a\0"
    (tmp_path / "a.gif").write_bytes(gif[:-1] + xmp + text + b";")
    write_picture(read_picture(tmp_path / "a.gif"), tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").info["aspect"] == (64, 128)
    assert "left out: XMP, text that is drawn over it" in caplog.text


# What libvips makes up


@pytest.mark.parametrize("suffix", [".bmp", ".ppm", ".avif", ".png", ".webp", ".gif"])
def test_nothing_is_made_up(tmp_path: Path, suffix: str) -> None:
    try:
        Image.fromarray(VALUES).save(
            tmp_path / f"a{suffix}", **({"dpi": (0, 0)} if suffix == ".bmp" else {})
        )
        picture = read_picture(tmp_path / f"a{suffix}")
    except (KeyError, OSError, PictureError):
        pytest.skip("no AVIF")
    write_picture(picture, tmp_path / "b.png")
    result = Image.open(tmp_path / "b.png")
    assert not result.info and not dict(result.getexif())


def test_resolution_and_profile_of_bmp(tmp_path: Path) -> None:
    """In a header of version 5, which Pillow does not write."""
    pixels = encoded(Image.fromarray(VALUES), "BMP")[54:]
    head = struct.pack("<IiiHHIIiiII", 124, 17, 13, 1, 24, 0, len(pixels), 11811, 5906, 0, 0)
    head += bytes(16) + b"DEBM" + bytes(48) + struct.pack("<4I", 4, 124 + len(pixels), len(ICC), 0)
    size = 138 + len(pixels) + len(ICC)
    start = struct.pack("<2sIII", b"BM", size, 0, 138)
    (tmp_path / "a.bmp").write_bytes(start + head + pixels + ICC)
    write_picture(read_picture(tmp_path / "a.bmp"), tmp_path / "b.png")
    result = Image.open(tmp_path / "b.png")
    np.testing.assert_array_equal(np.asarray(result), VALUES)
    assert result.info["icc_profile"] == ICC
    assert result.info["dpi"] == pytest.approx(Image.open(tmp_path / "a.bmp").info["dpi"], abs=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_of_pnm(tmp_path: Path, channels: int) -> None:
    pytest.importorskip("av")
    values = samples(channels, 16)
    head = f"P{5 if channels == 1 else 6}\n17 13\n65535\n".encode()
    (tmp_path / "a.ppm").write_bytes(head + values.astype(">u2").tobytes())
    picture = read_picture(tmp_path / "a.ppm")
    assert picture.bits == 16
    np.testing.assert_array_equal(np.rint(picture.pixels * 65535), values)


def test_boxes_of_avif(tmp_path: Path) -> None:
    """Boxes that Pillow does not write, put in front of the pixels by hand."""
    from fdat_dense_iso.picture.others import _stated

    numbers = struct.pack(">8H2I", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    boxes = b"pasp" + struct.pack(">2I", 4, 3) + b"irot\1" + b"clli" + struct.pack(">2H", 1000, 400)
    found = dict(_stated(boxes + b"mdcv" + numbers + b"mdat"))
    assert found[b"pHYs"] == struct.pack(">2IB", 4, 3, 0)  # of the picture turned by a quarter
    assert found[b"cLLI"] == struct.pack(">2I", 10_000_000, 4_000_000)
    assert found[b"mDCV"] == struct.pack(">8H2I", 5, 6, 1, 2, 3, 4, 7, 8, 9, 10)  # red first


# TIFF


def tiff(**options) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(
        path, VALUES, **{"photometric": "rgb", "metadata": None} | options
    )


def thumbnail_first(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(VALUES[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        file.write(VALUES, photometric="rgb", metadata=None)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (tiff(photometric="cielab"), "it holds Lab colours"),
        (tiff(extratags=[(50706, "B", 4, b"\1\4\0\0", True)]), r"a raw photograph \(DNG\)"),
        (thumbnail_first, "a small copy of another one"),
    ],
)
def test_refused(tmp_path: Path, write: Callable[[Path], None], reason: str) -> None:
    write(tmp_path / "a.tif")
    for read in (read_picture, read_header):
        with pytest.raises(PictureError, match=reason):
            read(tmp_path / "a.tif")


def test_what_libvips_was_built_without_is_not_broken() -> None:
    error = pyvips.Error("unable", "tiff2vips: ZSTD compression support is not configured\n")
    assert "of a kind that libvips can't read (tiff2vips: ZSTD" in str(unreadable("TIFF", error))
    error = pyvips.Error("unable", "VipsJpeg: premature end of JPEG image\n")
    assert "is broken or cut off (VipsJpeg: prem" in str(unreadable("JPEG", error))


@pytest.mark.parametrize(
    ("kinds", "kept", "told"),
    [
        (["unspecified"], 3, True),
        (["unassalpha", "unspecified"], 4, True),
        (["unassalpha"], 4, False),
    ],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_selection_is_no_transparency(
    tmp_path: Path, kinds: list[str], kept: int, told: bool, bits: int, caplog
) -> None:
    values = samples(3 + len(kinds), bits)
    write_tiff(tmp_path / "a.tif", values, extrasamples=kinds)
    picture, said = read_both(tmp_path / "a.tif", caplog)
    np.testing.assert_array_equal(np.rint(picture.pixels * (2**bits - 1)), values[..., :kept])
    assert ("a channel that is neither colour nor transparency" in said) == told


def test_pictures_below_a_picture_are_told(tmp_path: Path, caplog) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(VALUES, photometric="rgb", subifds=1, metadata=None)
        file.write(VALUES[::2], photometric="rgb", subfiletype=1, metadata=None)
    read_both(tmp_path / "a.tif", caplog)
    assert "left out: further pictures in it (SubIFDs)" in caplog.text


def test_entries_that_share_what_they_hold_fill_no_memory() -> None:
    count, length = 4000, 60_000
    rows = b"".join(struct.pack("<HHLL", 40000 + i, 1, length, 8) for i in range(count))
    block = b"II*\0" + struct.pack("<LH", 8, count) + rows + bytes(4) + bytes(length)
    with pytest.raises(ExifError, match="more than the file"):
        exif_of_tiff(block)
