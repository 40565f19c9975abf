"""What stands in picture files beside the pixels, from every format to every format; read by Pillow
and tifffile."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from tests.helpers.picture_cases import (
    ICC,
    XMP,
    encoded,
    exif_block,
    expected_pixels,
    read_picture_file,
    samples,
    write_tiff,
)

pytest.importorskip("pyvips")
from fdat_dense_iso.picture import exif as picture_exif
from fdat_dense_iso.picture.read import read_picture
from fdat_dense_iso.picture.write import write_picture


def tiff_header_on(exif: Image.Exif) -> bytes:
    return exif.tobytes().removeprefix(b"Exif\0\0")


def save_with_metadata(path: Path, exif: Image.Exif) -> None:
    image = Image.fromarray(samples(3, 8))
    if path.suffix == ".tif":
        # Pillow leaves sub-directories out of TIFF files, so what it makes is put in by hand.
        image.save(path, icc_profile=ICC, dpi=(300, 300), tiffinfo={700: XMP})
        with_exif = picture_exif.tiff_with_exif(path.read_bytes(), tiff_header_on(exif))
        path.write_bytes(with_exif)
        with tifffile.TiffFile(path) as file:
            assert file.pages[0].tags["ExifTag"].value["DateTimeOriginal"] == "2020:02:03 04:05:06"
    elif path.suffix == ".png":
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        image.save(path, icc_profile=ICC, exif=exif.tobytes(), pnginfo=text)
    else:
        image.save(path, icc_profile=ICC, exif=exif.tobytes(), xmp=XMP)


def metadata_of(path: Path) -> dict[str, object]:
    """ICC, XMP and some of EXIF, by tifffile for TIFF and by Pillow for the others."""
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            tags = file.pages[0].tags
            photo, place = tags["ExifTag"].value, tags["GPSTag"].value
            return {
                "icc": tags["InterColorProfile"].value,
                "xmp": tags["XMP"].value,
                "make": tags["Make"].value,
                "copyright": tags["Copyright"].value,
                "taken": photo["DateTimeOriginal"],
                "exposure": photo["ExposureTime"],
                "size": (photo["PixelXDimension"], photo["PixelYDimension"]),
                "latitude": tuple(
                    np.array(place["GPSLatitude"]).reshape(3, 2).T.astype(float).tolist()
                ),
                "orientation": tags["Orientation"].value,
                "dpi": tags["XResolution"].value[0] / tags["XResolution"].value[1],
            }
    image = Image.open(path)
    exif = image.getexif()
    photo, place = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
    xmp = image.info.get("xmp") or image.info["XML:com.adobe.xmp"]
    latitude = [(float(part.numerator), float(part.denominator)) for part in place[2]]
    return {
        "icc": image.info["icc_profile"],
        "xmp": xmp if isinstance(xmp, bytes) else xmp.encode(),
        "make": exif[0x010F],
        "copyright": exif[0x8298],
        "taken": photo[0x9003],
        "exposure": float(photo[0x829A]),
        "size": (photo[0xA002], photo[0xA003]),
        "latitude": tuple(map(list, zip(*latitude, strict=True))),
        "orientation": exif[0x0112],
        "dpi": float(exif[0x011A]),
    }


@pytest.mark.parametrize("target", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("source", [".png", ".jpg", ".webp", ".tif"])
def test_metadata_goes_from_every_format_to_every_format(tmp_path: Path, source: str, target: str):
    save_with_metadata(tmp_path / f"source{source}", exif_block(orientation=6))
    picture = read_picture(tmp_path / f"source{source}")
    if source != ".tif":  # the orientation of a TIFF is a tag of its own, 1 here
        assert picture.pixels.shape == (17, 13, 3)
    larger = replace(picture, pixels=np.repeat(np.repeat(picture.pixels, 2, axis=0), 2, axis=1))
    write_picture(larger, tmp_path / f"target{target}")
    found = metadata_of(tmp_path / f"target{target}")
    degrees = np.divide(*np.array(found.pop("latitude")))
    np.testing.assert_allclose(degrees, [52, 30, 1.5])
    assert found == {
        "make": "Söhne",
        "icc": ICC,
        "xmp": XMP.replace(b'Orientation="6"', b'Orientation="1"'),
        "copyright": "(c) somebody",
        "taken": "2020:02:03 04:05:06",
        "exposure": 0.004,
        "size": (2 * picture.pixels.shape[1], 2 * picture.pixels.shape[0]),
        "orientation": 1,
        "dpi": pytest.approx(300),
    }


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_orientation_is_applied_and_reset(tmp_path: Path, suffix: str, orientation: int):
    image = Image.fromarray(samples(3, 8))
    exif = exif_block(orientation)
    options = {"lossless": True} if suffix == ".webp" else {}
    image.save(
        tmp_path / f"x{suffix}", exif=exif if suffix == ".tif" else exif.tobytes(), **options
    )
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / f"x{suffix}")))
    picture = read_picture(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(picture.pixels, expected_pixels(upright))
    write_picture(picture, tmp_path / f"y{suffix}")
    assert Image.open(tmp_path / f"y{suffix}").getexif()[0x0112] == 1


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_no_exif_is_made_up(tmp_path: Path, suffix: str):
    """But for the resolution, for which WebP has no other place."""
    write_tiff(tmp_path / "x.tif", samples(3, 8), software=False, resolution=(300, 300))
    write_picture(read_picture(tmp_path / "x.tif"), tmp_path / f"x{suffix}")
    made = dict(Image.open(tmp_path / f"x{suffix}").getexif())
    assert made == ({0x0112: 1, 0x011A: 300, 0x011B: 300, 0x0128: 2} if suffix == ".webp" else {})


def test_no_thumbnail_of_the_old_picture(tmp_path: Path):
    thumbnail = encoded(Image.fromarray(samples(3, 8)), "JPEG")
    block = bytearray(tiff_header_on(exif_block()))  # big-endian; a directory 1 is added behind it
    (entries,) = struct.unpack_from(">H", block, 8)
    struct.pack_into(">L", block, 10 + 12 * entries, len(block))
    rows = [
        (0x0103, 3, 1, 6 << 16),
        (0x0201, 4, 1, len(block) + 42),
        (0x0202, 4, 1, len(thumbnail)),
    ]
    block += (
        struct.pack(">H", 3)
        + b"".join(struct.pack(">HHLL", *row) for row in rows)
        + bytes(4)
        + thumbnail
    )
    data = encoded(Image.fromarray(samples(3, 8)), "JPEG", exif=b"Exif\0\0" + block)
    assert Image.open(io.BytesIO(data)).getexif().get_ifd(ExifTags.IFD.IFD1)[0x0202] == len(
        thumbnail
    )
    (tmp_path / "old.jpg").write_bytes(data)
    write_picture(read_picture(tmp_path / "old.jpg"), tmp_path / "x.jpg")
    assert thumbnail not in (tmp_path / "x.jpg").read_bytes()
    assert Image.open(tmp_path / "x.jpg").getexif().get_ifd(ExifTags.IFD.IFD1) == {}


def test_png_text_is_kept(tmp_path: Path):
    text = PngInfo()
    text.add_text("parameters", "ein Schloß, 20 steps")
    text.add_text("long", "word " * 1000, zip=True)
    text.add_itxt("workflow", '{"あ": 1}')
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    Image.fromarray(samples(3, 8)).save(tmp_path / "old.png", pnginfo=text)
    write_picture(read_picture(tmp_path / "old.png"), tmp_path / "x.png")
    info = Image.open(tmp_path / "x.png").info
    assert (info["parameters"], info["workflow"]) == ("ein Schloß, 20 steps", '{"あ": 1}')
    assert info["long"] == "word " * 1000
    assert info["XML:com.adobe.xmp"].encode() == XMP
    assert (tmp_path / "x.png").read_bytes().count(b"XML:com.adobe.xmp") == 1


def test_16_bit_tiff_with_alpha_keeps_exif(tmp_path: Path):
    write_tiff(tmp_path / "x.tif", samples(4, 16), byteorder=">", bigtiff=True)
    exif = tiff_header_on(exif_block())
    whole = picture_exif.tiff_with_exif((tmp_path / "x.tif").read_bytes(), exif)
    (tmp_path / "x.tif").write_bytes(whole)
    np.testing.assert_array_equal(read_picture_file(tmp_path / "x.tif"), samples(4, 16))
    write_picture(read_picture(tmp_path / "x.tif"), tmp_path / "y.png")
    found = Image.open(tmp_path / "y.png").getexif()
    assert found.get_ifd(0x8769)[0x9003] == "2020:02:03 04:05:06"
    assert [float(part) for part in found.get_ifd(0x8825)[2]] == [52, 30, 1.5]


def test_layout_descriptions_of_scientific_tiff_are_not_kept(tmp_path: Path):
    tifffile.imwrite(tmp_path / "x.tif", samples(3, 8), photometric="rgb")  # with '{"shape": ...}'
    write_picture(read_picture(tmp_path / "x.tif"), tmp_path / "y.tif")
    with tifffile.TiffFile(tmp_path / "y.tif") as file:
        assert file.pages[0].description == ""
        assert file.pages[0].tags["Software"].value == "tifffile.py"


# EXIF in TIFF


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("exif_order", ["<", ">"])
def test_exif_of_tiff_is_what_was_put_in(
    tmp_path: Path, byteorder: str, big: bool, exif_order: str
):
    write_tiff(tmp_path / "x.tif", samples(3, 8), byteorder=byteorder, bigtiff=big)
    exif = exif_block()
    exif.endian = exif_order
    tiff = bytes(
        picture_exif.tiff_with_exif((tmp_path / "x.tif").read_bytes(), tiff_header_on(exif))
    )
    (tmp_path / "y.tif").write_bytes(tiff)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "y.tif"), samples(3, 8))
    block = picture_exif.exif_of_tiff(tiff)
    assert block is not None
    found = Image.Exif()
    found.load(block)
    assert found[0x8298] == "(c) somebody"
    photo, place = found.get_ifd(0x8769), found.get_ifd(0x8825)
    assert (photo[0x9003], float(photo[0x829A]), photo[0xA002], photo[0xA003]) == (
        "2020:02:03 04:05:06",
        0.004,
        17,
        13,
    )
    assert [float(part) for part in place[2]] == [52, 30, 1.5]


def test_exif_errors():
    with pytest.raises(picture_exif.ExifError, match="where a TIFF header was expected"):
        picture_exif.exif_of_tiff(b"nothing at all")
    with pytest.raises(picture_exif.ExifError, match="outside of the file"):
        picture_exif.exif_of_tiff(struct.pack("<2sHL", b"II", 42, 2**31))
    with pytest.raises(picture_exif.ExifError, match="65535 entries"):
        picture_exif.exif_of_tiff(struct.pack("<2sHLH", b"II", 42, 8, 65535))


def test_damaged_directories_raise_nothing_else(tmp_path: Path):
    write_tiff(tmp_path / "x.tif", samples(1, 8, height=2, width=2))
    data = picture_exif.tiff_with_exif(
        (tmp_path / "x.tif").read_bytes(), tiff_header_on(exif_block())
    )
    random = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(data[: random.integers(9, len(data) + 1)])
        for at in random.integers(0, len(damaged), 3):
            damaged[at] = random.integers(256)
        try:
            block = picture_exif.exif_of_tiff(bytes(damaged))
        except picture_exif.ExifError:
            continue
        assert block is None or block[:4] == b"II*\0"


def test_broken_exif_of_tiff_costs_only_the_exif(
    tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture
):
    def broken(tiff: bytes) -> bytes:
        raise picture_exif.ExifError("a directory lies outside of the file")

    monkeypatch.setattr("fdat_dense_iso.picture.beside.exif_of_tiff", broken)
    write_tiff(tmp_path / "x.tif", samples(3, 8))
    np.testing.assert_array_equal(
        read_picture(tmp_path / "x.tif").pixels, expected_pixels(samples(3, 8))
    )
    assert "left out: EXIF (a directory lies outside" in caplog.text
