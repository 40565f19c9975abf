"""XMP of the result: what described the old file or its pixels is taken out or made true.

XMP travels as it is, byte for byte, unless something in it has to change (XMP part 1, ISO 16684-1;
part 3 for extended XMP; Google's formats of motion photos and gain maps).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from fractions import Fraction

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_REGIONS = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_DIMENSIONS = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_PANORAMA = "http://ns.google.com/photos/1.0/panorama/"
_GOOGLE = "http://ns.google.com/photos/"
# What lies in the old file beside the picture, by the beginning of its namespace and its name.
_BESIDE = {
    (f"{_GOOGLE}1.0/camera/", "MicroVideo"): "an embedded video",
    (f"{_GOOGLE}1.0/camera/", "MotionPhoto"): "an embedded video",
    (f"{_GOOGLE}1.0/container/", ""): "files behind the picture",
    (f"{_GOOGLE}1.0/depthmap/", ""): "a depth map",
    (f"{_GOOGLE}1.0/image/", ""): "an embedded picture",
    (f"{_GOOGLE}1.0/audio/", ""): "embedded sound",
    (f"{_GOOGLE}dd/1.0/", ""): "a depth map",
    ("http://ns.adobe.com/hdr-gain-map/", ""): "a gain map",
    ("http://ns.apple.com/HDRGainMap/", ""): "a gain map",
    ("http://ns.apple.com/pixeldatainfo/", ""): "a gain map",
    ("http://ns.adobe.com/xmp/note/", "HasExtendedXMP"): "extended XMP",
    ("http://purl.org/dc/terms/", "provenance"): "where its content credentials are",
    ("http://ns.adobe.com/xap/1.0/", "Thumbnails"): "",
    ("http://ns.adobe.com/xap/1.0/", "PageInfo"): "",
}
# What is in pixels: lists of x, y and so on, and numbers by their axis.
_LISTS = {f"{{{_EXIF}}}{name}" for name in ("SubjectArea", "SubjectLocation")}
_DENSITIES = {"FocalPlaneXResolution": 0, "FocalPlaneYResolution": 1}
_IN_REGIONS = {"rbX": 0, "rbW": 0, "rbRx": 0, "rbY": 1, "rbH": 1}
# What is said of colours that have become sRGB.
_SRGB = {
    (_EXIF, "ColorSpace"): "1",
    (_PHOTOSHOP, "ColorMode"): "3",
    (_PHOTOSHOP, "ICCProfile"): None,
}
# How the old pixels were stored.
_STORED = {"Compression", "BitsPerSample", "SamplesPerPixel", "PhotometricInterpretation"}
_STORED |= {
    "PlanarConfiguration",
    "YCbCrSubSampling",
    "YCbCrPositioning",
    "ComponentsConfiguration",
}
_STORED |= {"CompressedBitsPerPixel", "NativeDigest"}
_ATTRIBUTE = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)[2-8]")
_NAMESPACE = re.compile(rb"xmlns:([\w.-]+)\s*=\s*[\"']([^\"']+)[\"']")


def xmp_of_result(
    xmp: bytes,
    *,
    width: int,
    height: int,
    factors: tuple[float, float] | None,
    mime: str,
    oriented: bool = True,
    in_srgb: bool = False,
) -> tuple[bytes | None, list[str]]:
    """XMP for an upright result of width x height pixels, and what it no longer says.

    ``factors``: by how much it is wider and higher than the source; None where the source was
    turned. ``oriented``: whether the file said elsewhere how it is to be turned, which was done; what
    XMP alone says of that is left as it is. ``in_srgb``: whether the colours were made sRGB. None for
    XMP that cannot be read, although it had to change.
    """
    if oriented:  # a reader that follows XMP would turn the picture again
        xmp = _ATTRIBUTE.sub(rb"\g<1>1", xmp)
    if b"<!DOCTYPE" in xmp or b"<!ENTITY" in xmp:
        return None, ["XMP (it declares entities)"]
    try:
        root = ElementTree.fromstring(xmp.strip(b"\0 \n\r\t"))
    except ElementTree.ParseError as error:
        return None, [f"XMP ({error})"]
    change = _Change(width, height, factors, mime, in_srgb)
    change.element(root)
    if not change.changed:
        return xmp, []
    for prefix, namespace in _NAMESPACE.findall(xmp):
        if not re.fullmatch(rb"ns\d+", prefix):
            ElementTree.register_namespace(prefix.decode(), namespace.decode())
    text = ElementTree.tostring(root, encoding="unicode")
    packet = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n' + text
    return (packet + '\n<?xpacket end="w"?>').encode(), sorted(change.lost)


class _Change:
    """Goes through XMP and changes what has to be."""

    def __init__(
        self,
        width: int,
        height: int,
        factors: tuple[float, float] | None,
        mime: str,
        in_srgb: bool,
    ) -> None:
        self.sides = {"w": width, "h": height, "ImageWidth": width, "ImageLength": height}
        self.sides |= {"PixelXDimension": width, "PixelYDimension": height}
        self.factors, self.mime = factors, mime
        self.changes = _SRGB if in_srgb else {}
        self.in_pixels = False  # the region of IPTC that this is in
        self.changed = False
        self.lost: set[str] = set()

    def element(self, element: ElementTree.Element) -> None:
        """Of attributes and of elements below, which may say the same things."""
        before, unit = self.in_pixels, f"{{{_REGIONS}}}rbUnit"
        self.in_pixels |= "pixel" in (element.get(unit), element.findtext(unit, "").strip())
        for name in list(element.attrib):
            value = self.value(name, element.attrib[name])
            if value is None:
                del element.attrib[name]
            else:
                element.attrib[name] = value
        for child in list(element):
            value = self.value(child.tag, (child.text or "").strip())
            if value is None:
                element.remove(child)
                continue
            if len(child) == 0 and value != (child.text or "").strip():
                child.text = value
            if child.tag in _LISTS:
                items = list(child.iter(f"{{{RDF}}}li"))
                for index, item in enumerate(items):
                    item.text = self._scaled(child.tag, item.text or "", index % 2, whole=True)
                if any(item.text is None for item in items):
                    element.remove(child)
                    continue
            self.element(child)
        self.in_pixels = before

    def value(self, tag: str, value: str) -> str | None:
        """What a property says of the result; None: nothing."""
        namespace, _, name = tag.rpartition("}")
        namespace = namespace[1:]
        for (start, beginning), what in _BESIDE.items():
            if namespace.startswith(start) and name.startswith(beginning):
                self.changed = True
                self.lost |= {what} - {""}
                return None
        new: str | None = value
        if namespace in (_TIFF, _EXIF) and name in _STORED:
            new = None
        elif namespace in (_TIFF, _EXIF, _DIMENSIONS) and name in self.sides:
            new = str(self.sides[name])
        elif namespace == "http://purl.org/dc/elements/1.1/" and name == "format":
            new = self.mime
        elif namespace == _PANORAMA and name.endswith("Pixels"):
            axis = 0 if "Width" in name or "Left" in name else 1
            new = self._scaled("where it lies in its panorama", value, axis, whole=True)
        elif namespace == _EXIF and name in _DENSITIES:
            new = self._scaled(name, value, _DENSITIES[name])
        elif namespace == _REGIONS and name in _IN_REGIONS and self.in_pixels:
            new = self._scaled("its regions", value, _IN_REGIONS[name])
        elif (namespace, name) in self.changes:
            new = self.changes[namespace, name]
        self.changed |= new != value
        return new

    def _scaled(self, what: str, value: str, axis: int, *, whole: bool = False) -> str | None:
        """A number or a fraction of the result; None, and ``what`` is lost, where there is none."""
        self.changed = True
        try:
            if self.factors:
                number = Fraction(value.strip()) * Fraction(self.factors[axis])
                plain = number.limit_denominator(1000)
                if whole:
                    return str(round(number))
                if "/" in value:
                    return f"{plain.numerator}/{plain.denominator}"
                return f"{float(plain):g}"
        except (ValueError, ZeroDivisionError):
            pass
        self.lost.add(what.rpartition("}")[2])
        return None
