"""XMP that describes the old file or its pixels."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.picture_cases import XMP, samples

pytest.importorskip("pyvips")
from fdat_dense_iso.picture.read import read_picture
from fdat_dense_iso.picture.write import write_picture
from fdat_dense_iso.picture.xmp import xmp_of_result

NAMES = {
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
}


def xmp(attributes: str = "", elements: str = "") -> bytes:
    declared = " ".join(f'xmlns:{prefix}="{name}"' for prefix, name in NAMES.items())
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF {declared}><rdf:Description rdf:about="" {attributes}>{elements}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def result(
    data: bytes, factors: tuple[float, float] | None = (2, 3)
) -> tuple[dict[str, str], list]:
    """Properties by prefix and name, and what is lost."""
    found, lost = xmp_of_result(data, width=34, height=39, factors=factors, mime="image/webp")
    if found is None:
        return {}, lost
    prefixes = {name: prefix for prefix, name in NAMES.items()}
    properties = {}
    for element in ElementTree.fromstring(found).iter():
        pairs = [*element.attrib.items(), (element.tag, (element.text or "").strip())]
        for tag, value in pairs:
            namespace, _, name = tag[1:].partition("}")
            if value and namespace in prefixes:
                properties[f"{prefixes[namespace]}:{name}"] = value
    return properties, lost


def test_nothing_is_rewritten_without_need() -> None:
    data = xmp('xmp:Rating="5"', "<dc:title>ä</dc:title>")
    found = xmp_of_result(data, width=2, height=2, factors=(2, 2), mime="image/png")
    assert found == (data, [])
    turned, _ = xmp_of_result(XMP, width=2, height=2, factors=None, mime="image/png")
    assert turned == XMP.replace(b'Orientation="6"', b'Orientation="1"')


@pytest.mark.parametrize(
    ("attributes", "elements", "lost"),
    [
        ('GCamera:MicroVideo="1" GCamera:MicroVideoOffset="99"', "", ["an embedded video"]),
        ("", "<GCamera:MotionPhoto>1</GCamera:MotionPhoto>", ["an embedded video"]),
        (
            'hdrgm:Version="1.0"',
            "<Container:Directory><rdf:Seq><rdf:li>x</rdf:li></rdf:Seq></Container:Directory>",
            ["a gain map", "files behind the picture"],
        ),
        ('xmpNote:HasExtendedXMP="ABCDEF"', "", ["extended XMP"]),
        ("", "<xmp:Thumbnails><rdf:Alt><rdf:li>x</rdf:li></rdf:Alt></xmp:Thumbnails>", []),
        ('tiff:Compression="6" tiff:BitsPerSample="8"', "", []),
    ],
)
def test_what_lay_in_the_old_file_is_not_claimed(
    attributes: str, elements: str, lost: list
) -> None:
    properties, said = result(xmp(f'xmp:Rating="5" {attributes}', elements))
    assert properties == {"xmp:Rating": "5"}
    assert said == lost


def test_sizes_and_format_become_those_of_the_result() -> None:
    data = xmp(
        'tiff:ImageWidth="17" tiff:ImageLength="13" exif:PixelXDimension="17" dc:format="image/jpeg"',
        "<exif:PixelYDimension>13</exif:PixelYDimension>"
        '<mwg-rs:AppliedToDimensions stDim:w="17" stDim:h="13" stDim:unit="pixel"/>',
    )
    assert result(data) == (
        {
            "tiff:ImageWidth": "34",
            "tiff:ImageLength": "39",
            "exif:PixelXDimension": "34",
            "exif:PixelYDimension": "39",
            "dc:format": "image/webp",
            "stDim:w": "34",
            "stDim:h": "39",
            "stDim:unit": "pixel",
        },
        [],
    )


def test_a_panorama_grows_with_its_picture() -> None:
    data = xmp(
        'GPano:ProjectionType="equirectangular" GPano:FullPanoWidthPixels="100" '
        'GPano:FullPanoHeightPixels="50" GPano:CroppedAreaTopPixels="7"'
    )
    expected = {
        "GPano:ProjectionType": "equirectangular",
        "GPano:FullPanoWidthPixels": "200",
        "GPano:FullPanoHeightPixels": "150",
        "GPano:CroppedAreaTopPixels": "21",
    }
    assert result(data) == (expected, [])
    properties, lost = result(data, factors=None)
    assert set(properties) == {"GPano:ProjectionType"} and lost == ["where it lies in its panorama"]


def test_xmp_that_cannot_be_read_is_left_out() -> None:
    assert result(b"<x:xmpmeta>")[1][0].startswith("XMP (")
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + xmp()
    assert result(bomb) == ({}, ["XMP (it declares entities)"])


def test_from_file_to_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = Image.fromarray(samples(3, 8))
    image.save(tmp_path / "x.jpg", xmp=xmp('GCamera:MotionPhoto="1" tiff:ImageWidth="17"'))
    write_picture(read_picture(tmp_path / "x.jpg"), tmp_path / "y.webp")
    written = Image.open(tmp_path / "y.webp").info["xmp"]
    assert b"MotionPhoto=" not in written and b'tiff:ImageWidth="17"' in written
    assert "y.webp: not kept: an embedded video" in caplog.text
    caplog.clear()
    image.save(tmp_path / "z.webp", xmp=xmp("", f"<dc:title>{'x' * 70_000}</dc:title>"))
    write_picture(read_picture(tmp_path / "z.webp"), tmp_path / "z.jpg")
    assert "z.jpg: not kept: XMP (too long for JPEG)" in caplog.text
