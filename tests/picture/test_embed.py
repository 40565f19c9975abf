"""What a file says of its picture where that has changed: turned, made sRGB, larger. Judged by Pillow,
and by ExifTool where it is installed."""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.helpers.picture_cases import XMP, exif_block, samples

pytest.importorskip("pyvips")
from fdat_dense_iso.picture.formats import Metadata, Picture, PictureError
from fdat_dense_iso.picture.read import read_picture
from fdat_dense_iso.picture.write import write_picture

VALUES = samples(3, 8)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_resolution_turns_with_the_picture(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0128], exif[0x011A], exif[0x011B] = orientation, 2, 100.0, 200.0
    Image.fromarray(VALUES).save(tmp_path / "a.jpg", exif=exif, dpi=(100, 200))
    write_picture(read_picture(tmp_path / "a.jpg"), tmp_path / f"b{suffix}")
    found = Image.open(tmp_path / f"b{suffix}")
    dpi = found.info.get("dpi") or (found.getexif()[0x011A], found.getexif()[0x011B])
    assert tuple(map(float, dpi)) == pytest.approx(
        (200, 100) if orientation > 4 else (100, 200), rel=1e-3
    )


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_what_xmp_alone_says_of_orientation_stays(tmp_path: Path, suffix: str) -> None:
    """Pillow follows it where there is no EXIF: the result is seen as the source is."""
    Image.fromarray(VALUES).save(tmp_path / "a.webp", lossless=True, xmp=XMP)
    picture = read_picture(tmp_path / "a.webp")
    write_picture(picture, tmp_path / f"b{suffix}", quality=100 if suffix == ".jpg" else None)
    seen = [
        ImageOps.exif_transpose(Image.open(tmp_path / name)).size
        for name in ("a.webp", f"b{suffix}")
    ]
    assert seen[0] == seen[1] == (13, 17)


def test_colours_that_became_srgb(tmp_path: Path) -> None:
    photoshop, exif_name = "http://ns.adobe.com/photoshop/1.0/", "http://ns.adobe.com/exif/1.0/"
    xmp = (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:p="{photoshop}" xmlns:exif="{exif_name}" p:ColorMode="4" '
        'p:ICCProfile="US Web Coated" exif:ColorSpace="65535"/></rdf:RDF></x:xmpmeta>'
    ).encode()
    exif = exif_block()
    exif.get_ifd(0x8769)[0xA001] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    cmyk = Image.fromarray(VALUES).convert("CMYK")
    cmyk.save(tmp_path / "a.jpg", exif=exif, xmp=xmp)
    write_picture(read_picture(tmp_path / "a.jpg"), tmp_path / "b.jpg")
    result = Image.open(tmp_path / "b.jpg")
    said = result.info["xmp"].decode()
    assert result.getexif().get_ifd(0x8769)[0xA001] == 1
    assert ':ColorMode="3"' in said and "US Web" not in said and 'exif:ColorSpace="1"' in said


@pytest.mark.skipif(not shutil.which("exiftool"), reason="ExifTool is not installed")
def test_exiftool_finds_in_the_result_what_it_put_into_the_source(tmp_path: Path) -> None:
    Image.fromarray(VALUES).save(tmp_path / "a.png")
    region = "{RegionBoundary={RbUnit=pixel,RbShape=rectangle,RbX=3,RbY=4,RbW=5,RbH=6}}"
    tags = [
        "-XMP-dc:Title=late",
        "-XMP-exif:SubjectArea=3 4 5 6",
        f"-XMP-iptcExt:ImageRegion={region}",
    ]
    subprocess.run(
        ["exiftool", "-q", "-n", "-overwrite_original", *tags, tmp_path / "a.png"], check=True
    )
    picture = read_picture(tmp_path / "a.png")
    doubled = replace(picture, pixels=picture.pixels.repeat(2, 0).repeat(3, 1))
    write_picture(doubled, tmp_path / "b.webp")
    asked = [
        "-XMP-dc:Title",
        "-XMP-exif:SubjectArea",
        "-ImageRegionBoundaryX",
        "-ImageRegionBoundaryH",
    ]
    found = subprocess.run(
        ["exiftool", "-s3", "-n", *asked, tmp_path / "b.webp"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split("\n")[:4] == ["late", "9, 8, 15, 12", "9", "12"]


def test_jpeg_ends_where_libjpeg_does(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="JPEG ends at 65500"):
        write_picture(_strip(65_501), tmp_path / "b.jpg")
    write_picture(_strip(65_500), tmp_path / "b.jpg")
    assert Image.open(io.BytesIO((tmp_path / "b.jpg").read_bytes())).size == (65_500, 1)


def _strip(width: int) -> Picture:
    pixels = np.zeros((1, width, 3), np.float32)
    return Picture(pixels=pixels, bits=8, grey=False, metadata=Metadata())
