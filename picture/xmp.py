"""XMP of the result: what described the old file or its pixels is taken out or made true.

XMP travels as it is, byte for byte, unless something in it has to change (XMP part 1, ISO 16684-1;
part 3 for extended XMP; Google's formats of motion photos and gain maps).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
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
    ("http://ns.adobe.com/xap/1.0/", "Thumbnails"): "",
    ("http://ns.adobe.com/xap/1.0/", "PageInfo"): "",
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
    xmp: bytes, *, width: int, height: int, factors: tuple[float, float] | None, mime: str
) -> tuple[bytes | None, list[str]]:
    """XMP for an upright result of width x height pixels, and what it no longer says.

    ``factors``: by how much it is wider and higher than the source; None where the source was
    turned. None for XMP that cannot be read, although it had to change.
    """
    # the orientation repeats that of EXIF; a reader that follows it would turn the picture again
    xmp = _ATTRIBUTE.sub(rb"\g<1>1", xmp)
    if b"<!DOCTYPE" in xmp or b"<!ENTITY" in xmp:
        return None, ["XMP (it declares entities)"]
    try:
        root = ElementTree.fromstring(xmp.strip(b"\0 \n\r\t"))
    except ElementTree.ParseError as error:
        return None, [f"XMP ({error})"]
    change = _Change(width, height, factors, mime)
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
        self, width: int, height: int, factors: tuple[float, float] | None, mime: str
    ) -> None:
        self.sides = {"w": width, "h": height, "ImageWidth": width, "ImageLength": height}
        self.sides |= {"PixelXDimension": width, "PixelYDimension": height}
        self.factors, self.mime = factors, mime
        self.changed = False
        self.lost: set[str] = set()

    def element(self, element: ElementTree.Element) -> None:
        """Of attributes and of elements below, which may say the same things."""
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
            self.element(child)

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
            new = self._panorama(name, value)
        self.changed |= new != value
        return new

    def _panorama(self, name: str, value: str) -> str | None:
        horizontal = "Width" in name or "Left" in name
        try:
            if self.factors:
                return str(round(float(value) * self.factors[0 if horizontal else 1]))
        except ValueError:
            pass
        self.lost.add("where it lies in its panorama")
        return None
