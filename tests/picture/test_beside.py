"""Resolution, text and comments from format to format, and what described the old file; read by
Pillow and tifffile, and by ExifTool where it is installed."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational

from tests.helpers.picture_cases import (
    encoded,
    exif_block,
    png_of_chunks,
    read_png,
    samples,
    write_png,
    write_tiff,
)

pytest.importorskip("pyvips")
from fdat_dense_iso.picture.container import png_chunks
from fdat_dense_iso.picture.exif import exif_of_tiff
from fdat_dense_iso.picture.formats import Metadata, Picture
from fdat_dense_iso.picture.read import read_picture
from fdat_dense_iso.picture.write import write_picture

EXIFTOOL = shutil.which("exiftool")
SUFFIXES = (".png", ".jpg", ".webp", ".tif")


def larger(picture: Picture, factor: int = 2) -> Picture:
    pixels = picture.pixels.repeat(factor, 0).repeat(factor, 1)
    return Picture(pixels=pixels, bits=picture.bits, grey=picture.grey, metadata=picture.metadata)


def through(source: Path, target: Path) -> None:
    write_picture(larger(read_picture(source)), target)


# Resolution


def stated(path: Path) -> tuple[float, float, str] | None:
    """Resolution and unit as a file states them, in its container and in EXIF alike."""
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            tags = file.pages[0].tags
            if "XResolution" not in tags:
                return None
            sides = [
                tags[name].value[0] / tags[name].value[1] for name in ("XResolution", "YResolution")
            ]
            return (*sides, {1: "ratio", 2: "inch", 3: "cm"}[tags["ResolutionUnit"].value])
    image = Image.open(path)
    exif = image.getexif()
    if path.suffix == ".webp":
        return (float(exif[282]), float(exif[283]), "inch") if 282 in exif else None
    if path.suffix == ".png":
        chunk = dict(png_chunks(path.read_bytes())).get(b"pHYs")
        if chunk is None:
            return None
        x, y, unit = struct.unpack(">IIB", chunk)
        return (x * 0.0254, y * 0.0254, "inch") if unit else (x, y, "ratio")
    unit, density = image.info["jfif_unit"], image.info["jfif_density"]
    return None if (unit, density) == (0, (1, 1)) else (*density, "inch" if unit else "ratio")


@pytest.mark.parametrize("target", SUFFIXES)
@pytest.mark.parametrize("source", SUFFIXES)
def test_a_resolution_is_none_or_that_of_the_source(tmp_path: Path, source: str, target: str):
    image = Image.fromarray(samples(3, 8))
    image.save(tmp_path / f"none{source}")
    through(tmp_path / f"none{source}", tmp_path / f"from-none{target}")
    assert stated(tmp_path / f"from-none{target}") is None
    if source == ".webp":
        exif = exif_block()
        image.save(tmp_path / "some.webp", exif=exif.tobytes())
    else:
        image.save(tmp_path / f"some{source}", dpi=(300, 300))
    through(tmp_path / f"some{source}", tmp_path / f"from-some{target}")
    found = Image.open(tmp_path / f"from-some{target}")
    if target in (".jpg", ".png"):
        assert found.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    elif target == ".webp":
        assert float(found.getexif()[282]) == 300
    else:
        assert stated(tmp_path / "from-some.tif") == (300, 300, "inch")


@pytest.mark.parametrize("target", SUFFIXES)
def test_pixels_that_are_not_square_without_a_unit(tmp_path: Path, target: str):
    write_tiff(tmp_path / "x.tif", samples(3, 8), resolution=(4, 3), resolutionunit=1)
    write_tiff(tmp_path / "square.tif", samples(3, 8), resolution=(1, 1), resolutionunit=1)
    through(tmp_path / "x.tif", tmp_path / f"y{target}")
    through(tmp_path / "square.tif", tmp_path / f"square-y{target}")
    assert stated(tmp_path / f"square-y{target}") is None
    if target == ".webp":
        exif = Image.open(tmp_path / "y.webp").getexif()
        assert (float(exif[282]), float(exif[283]), exif[296]) == (4, 3, 1)
    else:
        assert stated(tmp_path / f"y{target}") == (4, 3, "ratio")


# Text


def with_texts(path: Path, **texts: str) -> None:
    info = PngInfo()
    for keyword, text in texts.items():
        info.add_itxt(keyword, text) if not text.isascii() else info.add_text(keyword, text)
    Image.fromarray(samples(3, 8)).save(path, pnginfo=info)


@pytest.mark.parametrize("target", [".jpg", ".webp", ".tif"])
def test_png_text_goes_where_programs_look_for_it(
    tmp_path: Path, target: str, caplog: pytest.LogCaptureFixture
):
    workflow, prompt = json.dumps({"nodes": ["あ"]}), json.dumps({"1": {"class_type": "X"}})
    texts = {"parameters": "ein Schloß, 20 steps", "workflow": workflow, "prompt": prompt}
    with_texts(tmp_path / "x.png", **texts, Author="Ada", Title="Größe", Software="me", odd="lost")
    through(tmp_path / "x.png", tmp_path / f"x{target}")
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        'not kept: text "odd"'
    ]
    if target == ".tif":
        with tifffile.TiffFile(tmp_path / "x.tif") as file:
            tags = file.pages[0].tags
            found = {name: tags[name].value for name in ("Make", "Model", "Artist", "Software")}
            comment = tags["ExifTag"].value["UserComment"]
            title = bytes(tags["XPTitle"].value)
    else:
        exif = Image.open(tmp_path / f"x{target}").getexif()
        names = {"Make": 271, "Model": 272, "Artist": 315, "Software": 305}
        found = {name: exif[tag] for name, tag in names.items()}
        comment, title = exif.get_ifd(0x8769)[0x9286], exif[40091]
    assert found == {
        "Make": f"workflow:{workflow}",
        "Model": f"prompt:{prompt}",
        "Artist": "Ada",
        "Software": "me",
    }
    assert bytes(title).decode("utf-16-le").rstrip("\0") == "Größe"
    if isinstance(comment, bytes):
        assert (
            comment[8:].decode("utf-16-be") == texts["parameters"] and comment[:8] == b"UNICODE\0"
        )
    if EXIFTOOL:
        command = [EXIFTOOL, "-s3", "-UserComment", str(tmp_path / f"x{target}")]
        assert (
            subprocess.run(command, capture_output=True, text=True).stdout.strip()
            == texts["parameters"]
        )


def test_text_that_is_too_long_for_jpeg(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with_texts(tmp_path / "x.png", workflow="w" * 70_000, prompt="short", parameters="p")
    through(tmp_path / "x.png", tmp_path / "x.jpg")
    assert 'not kept: text "workflow" (too long for JPEG)' in caplog.text
    exif = Image.open(tmp_path / "x.jpg").getexif()
    assert exif[272] == "prompt:short" and 271 not in exif
    caplog.clear()
    through(tmp_path / "x.png", tmp_path / "x.webp")
    assert caplog.records == []
    assert Image.open(tmp_path / "x.webp").getexif()[271] == "workflow:" + "w" * 70_000


def test_what_exif_says_already_is_not_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    info = PngInfo()
    info.add_text("workflow", "{}")
    image = Image.fromarray(samples(3, 8))
    image.save(tmp_path / "x.png", pnginfo=info, exif=exif_block().tobytes())
    through(tmp_path / "x.png", tmp_path / "x.webp")
    assert Image.open(tmp_path / "x.webp").getexif()[271] == "Söhne"
    assert 'not kept: text "workflow"' in caplog.text


def test_comments_of_jpeg_and_gif(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    image = Image.fromarray(samples(3, 8))
    image.save(tmp_path / "x.jpg", comment="Grüße".encode())
    image.save(tmp_path / "x.gif", comment=b"hello")
    for source, text in (("x.jpg", "Grüße"), ("x.gif", "hello")):
        targets = [tmp_path / f"{source}{suffix}" for suffix in (".png", ".jpg", ".webp")]
        for target in targets:
            through(tmp_path / source, target)
        png, jpeg, webp = map(Image.open, targets)
        assert (png.info["Comment"], jpeg.info["comment"]) == (text, text.encode())
        comment = webp.getexif().get_ifd(0x8769)[0x9286]
        assert comment[8:].decode("utf-16-be") == text
    assert caplog.records == []
    through(tmp_path / "x.gif", tmp_path / "y.gif")
    assert "y.gif: not kept: a comment" in caplog.text


IPTC = b"\x1c\x01\x5a\0\3\x1b%G\x1c\x02\x78\0\5hello\x1c\x02\x50\0\3Ada"


def iptc_of(path: Path) -> bytes | None:
    if path.suffix == ".png":
        raw = Image.open(path).info["Raw profile type iptc"]
        return bytes.fromhex("".join(raw.split()[2:]))
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            return bytes(file.pages[0].tags[33723].value)
    resources = Image.open(path).info["photoshop"]
    return resources[0x0404]


@pytest.mark.parametrize("target", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("source", [".jpg", ".tif"])
def test_iptc_goes_wherever_there_is_a_place(tmp_path: Path, source: str, target: str):
    metadata = Metadata(iptc=IPTC)
    pixels = np.zeros((8, 8, 3), np.float32)
    write_picture(
        Picture(pixels=pixels, bits=8, grey=False, metadata=metadata), tmp_path / f"x{source}"
    )
    assert iptc_of(tmp_path / f"x{source}") == IPTC
    through(tmp_path / f"x{source}", tmp_path / f"y{target}")
    assert iptc_of(tmp_path / f"y{target}") == IPTC


def test_webp_has_no_place_for_iptc(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    picture = Picture(
        pixels=np.zeros((8, 8, 3), np.float32), bits=8, grey=False, metadata=Metadata(iptc=IPTC)
    )
    write_picture(picture, tmp_path / "x.webp")
    assert "not kept: IPTC" in caplog.text


# What described the old file


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


@pytest.mark.parametrize(
    ("inserted", "behind", "said"),
    [
        (segment(0xE2, b"MPF\0" + bytes(40)), b"", "left out: further pictures in it (MPF)"),
        (segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(60)), b"", "extended XMP"),
        (segment(0xEB, b"JP\0\1\0\0\0\1\0\0\0\x1cjumb" + bytes(20)), b"", "content credentials"),
        (segment(0xE2, b"FPXR\0" + bytes(9)), b"", "left out: APP2 FPXR"),
        (
            segment(0xED, b"Photoshop 3.0\x008BIM\x07\xd0\3one\0\0\0\1x\0"),
            b"",
            "left out: clipping paths",
        ),
        (b"", b"\0\0\0\x18ftypmp42" + bytes(50), "left out: a video behind the picture"),
        (b"", b"something", "left out: 9 bytes behind the picture"),
        (b"", bytes(100), None),
    ],
    ids=["mpf", "extended", "c2pa", "flashpix", "paths", "motion photo", "trailer", "padding"],
)
def test_what_is_in_a_jpeg_beside_its_picture_is_named(
    tmp_path: Path, inserted: bytes, behind: bytes, said: str | None, caplog
):
    data = encoded(Image.fromarray(samples(3, 8)), "JPEG")
    (tmp_path / "x.jpg").write_bytes(data[:2] + inserted + data[2:] + behind)
    through(tmp_path / "x.jpg", tmp_path / "y.jpg")
    assert (said in caplog.text) if said else caplog.records == []
    written = (tmp_path / "y.jpg").read_bytes()
    assert not any(word in written for word in (b"MPF\0", b"jumb", b"ftyp", b"xmp/extension"))


def test_unknown_chunks_and_tags_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_png(
        tmp_path / "x.png", samples(3, 8), {b"caBX": b"x", b"bKGD": bytes(6), b"sBIT": b"\5\6\5"}
    )
    read_picture(tmp_path / "x.png")
    assert "x.png: left out: caBX chunk, bKGD chunk" in caplog.text
    caplog.clear()
    write_tiff(tmp_path / "x.tif", samples(3, 8), extratags=[(33550, 12, 3, [1.0, 1.0, 0.0], True)])
    read_picture(tmp_path / "x.tif")
    assert "x.tif: left out: the TIFF tags 33550" in caplog.text


def test_exif_of_the_old_file_is_not_claimed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    exif = exif_block()
    exif[273], exif[256], exif[257], exif[700] = 4096, 17, 13, b"<x/>"  # StripOffsets, sizes, XMP
    photo = exif.get_ifd(0x8769)
    photo[0x927C] = b"Apple iOS\0\0\1MM" + bytes(30)
    photo[0x9102] = 2.5
    photo[0x9214] = (8, 6, 4, 2)
    photo[0xA20E], photo[0xA20F] = IFDRational(1000), IFDRational(2000)
    Image.fromarray(samples(3, 8)).save(tmp_path / "x.jpg", exif=exif.tobytes())
    through(tmp_path / "x.jpg", tmp_path / "y.jpg")
    found = Image.open(tmp_path / "y.jpg").getexif()
    assert not {273, 256, 257, 700} & set(found)
    photo = found.get_ifd(0x8769)
    assert 0x927C not in photo and 0x9102 not in photo
    assert photo[0x9214] == (16, 12, 8, 4) and (photo[0xA20E], photo[0xA20F]) == (2000, 4000)
    assert (photo[0xA002], photo[0xA003]) == (34, 26)
    assert "not kept: MakerNote (it holds offsets into the old file)" in caplog.text


def test_what_turns_is_not_scaled(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    exif = exif_block(orientation=6)
    exif.get_ifd(0x8769)[0x9214] = (8, 6)
    Image.fromarray(samples(3, 8)).save(tmp_path / "x.jpg", exif=exif.tobytes())
    through(tmp_path / "x.jpg", tmp_path / "y.jpg")
    assert 0x9214 not in Image.open(tmp_path / "y.jpg").getexif().get_ifd(0x8769)
    assert "not kept: SubjectArea" in caplog.text


def test_a_picture_with_everything_is_still_one(tmp_path: Path):
    """A PNG whose chunks stand in another order, and with a palette."""
    header = struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0)
    chunks = {
        b"IHDR": header,
        b"tEXt": b"Title\0x",
        b"PLTE": bytes([9, 8, 7, 200, 100, 50]),
        b"pHYs": struct.pack(">IIB", 11811, 11811, 1),
        b"IDAT": zlib.compress(b"\0\0\1"),
        b"IEND": b"",
    }
    (tmp_path / "x.png").write_bytes(png_of_chunks(chunks))
    through(tmp_path / "x.png", tmp_path / "y.png")
    assert read_png(tmp_path / "y.png")[0, ::2].tolist() == [[9, 8, 7], [200, 100, 50]]
    image = Image.open(io.BytesIO((tmp_path / "y.png").read_bytes()))
    image.load()
    assert image.info["Title"] == "x" and image.info["dpi"] == pytest.approx((300, 300), abs=0.01)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("target", SUFFIXES)
def test_a_comment_in_unicode_keeps_its_byte_order(tmp_path: Path, order: str, target: str):
    """It is in that of its block, which EXIF readers rely on."""
    exif = exif_block()
    exif.endian = order
    text = "Grüße".encode("utf-16-le" if order == "<" else "utf-16-be")
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text
    Image.fromarray(samples(3, 8)).save(tmp_path / "x.jpg", exif=exif.tobytes())
    through(tmp_path / "x.jpg", tmp_path / f"y{target}")
    if target == ".tif":
        block = exif_of_tiff((tmp_path / "y.tif").read_bytes())
        assert block is not None
        found = Image.Exif()
        found.load(block)
    else:
        found = Image.open(tmp_path / f"y{target}").getexif()
    comment = found.get_ifd(0x8769)[0x9286]
    order_found = "utf-16-le" if found.endian == "<" else "utf-16-be"
    assert comment[8:].decode(order_found) == "Grüße"


def test_gif_as_a_result_and_as_a_single_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    values = np.zeros((12, 10, 4), np.uint8)
    values[2:8, 3:7] = 200, 100, 50, 255
    Image.fromarray(values).save(tmp_path / "x.png", dpi=(300, 300))
    through(tmp_path / "x.png", tmp_path / "y.gif")
    assert "y.gif: not kept: the resolution" in caplog.text
    through(tmp_path / "y.gif", tmp_path / "z.png")
    expected = values.repeat(4, 0).repeat(4, 1)
    found = read_png(tmp_path / "z.png")
    np.testing.assert_array_equal(found * (found[..., 3:] > 0), expected)
