"""Text beside pictures: PNG's text chunks, comments of JPEG and GIF, and where EXIF has room for it.

Programs that read prompts back look for them in EXIF: "parameters" in UserComment (AUTOMATIC1111),
"prompt" and "workflow" in Model and Make, each behind its name (ComfyUI).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from .container import XMP_START, png_chunk, png_chunks
from .exif import USER_COMMENT
from .tiff import EXIF, UNDEFINED, Directory, Value, ascii_text

_COMFY = b"comf"  # in which ComfyUI's animations have prompt and workflow
KINDS = (b"tEXt", b"zTXt", b"iTXt", _COMFY)
_LARGEST = 2**26  # of a text that is unpacked
XMP_KEYWORD = b"XML:com.adobe.xmp"
_RAW = b"Raw profile type "
_RAW_KINDS = {
    "exif": "exif",
    "APP1": "exif",
    "iptc": "iptc",
    "xmp": "xmp",
    "icc": "icc",
    "icm": "icc",
}
_PLACES = {  # of PNG's keywords in the first directory
    "Description": 270,
    "Software": 305,
    "Author": 315,
    "Copyright": 33432,
    "prompt": 272,
    "workflow": 271,
}
_NAMED = ("prompt", "workflow")
_TITLE, _XP_TITLE = "Title", 40091


def text_chunks(png: bytes) -> bytes:
    """The text chunks of a PNG, without XMP, byte for byte: libvips would write them as Latin-1.
    ComfyUI's own become plain ones, as libpng takes no chunk of such a name for one."""
    return b"".join(
        png_chunk(b"tEXt" if kind == _COMFY else kind, body)
        for kind, body in png_chunks(png)
        if kind in KINDS and not body.startswith(XMP_KEYWORD + b"\0")
    )


def xmp_of_png(png: bytes) -> bytes | None:
    """XMP, wherever it is; libvips does not look behind the pixels, where ExifTool puts it."""
    for kind, body in png_chunks(png):
        if kind in KINDS and body.startswith(XMP_KEYWORD + b"\0"):
            return texts_of(png_chunk(kind, body))[0][1].encode() or None
    return None


def texts_of(chunks: bytes) -> list[tuple[str, str]]:
    """Keyword and text of each chunk; what is broken or too long has the text ""."""
    found = []
    for kind, body in png_chunks(bytes(8) + chunks):
        keyword, _, rest = body.partition(b"\0")
        try:
            text = _text(kind, rest)
        except (zlib.error, ValueError, IndexError):
            text = ""
        found.append((keyword.decode("latin-1"), text))
    return found


def _text(kind: bytes, rest: bytes) -> str:
    if kind == b"tEXt":
        return rest.decode("latin-1")
    if kind == b"zTXt":
        return _unpacked(rest[1:]).decode("latin-1")
    packed, rest = rest[0], rest[2:]
    text = rest.split(b"\0", 2)[2]  # behind language and translated keyword
    return (_unpacked(text) if packed else text).decode("utf-8")


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data, _LARGEST)
    if not unpacker.eof:
        raise ValueError("it is cut off or too long")
    return text


def without_profiles(chunks: bytes) -> tuple[bytes, dict[str, bytes]]:
    """The chunks without those in which older programs write EXIF, IPTC, XMP and ICC profiles as
    text ("Raw profile type exif": a line break, a name, a length, hexadecimal digits), and these:
    what the old file says of itself is not copied as if it were text."""
    others, found = b"", {}
    for kind, body in png_chunks(bytes(8) + chunks):
        keyword, _, rest = body.partition(b"\0")
        name = _RAW_KINDS.get(keyword.removeprefix(_RAW).decode("latin-1"))
        profile = _raw_profile(kind, rest) if keyword.startswith(_RAW) and name else None
        if profile is None or not name:
            others += png_chunk(kind, body)
        elif profile.startswith(XMP_START):  # in APP1
            found.setdefault("xmp", profile.removeprefix(XMP_START))
        else:
            found.setdefault(name, profile.removeprefix(b"Exif\0\0"))
    return others, found


def _raw_profile(kind: bytes, rest: bytes) -> bytes | None:
    try:
        _, _, _, digits = _text(kind, rest).split("\n", 3)
        return bytes.fromhex(digits) or None
    except (zlib.error, ValueError, IndexError):
        return None


def text_chunk(keyword: str, text: str) -> bytes:
    """A PNG chunk, in UTF-8."""
    return png_chunk(b"iTXt", keyword.encode() + b"\0\0\0\0\0" + text.encode())


def named_texts(directory: Directory) -> list[tuple[str, str]]:
    """What ComfyUI's WebP and JPEG files have in Make and Model, by its name."""
    entries = [(name, directory.get(_PLACES[name])) for name in _NAMED]
    return [
        (name, entry.text.removeprefix(f"{name}:"))
        for name, entry in entries
        if isinstance(entry, Value) and entry.text.startswith(f"{name}:")
    ]


@dataclass
class Placed:
    """Texts in EXIF: entries of its directories, and the keywords for which there is no room."""

    first: dict[int, Value]
    photo: dict[int, Value]
    lost: list[str]


def place_in_exif(texts: list[tuple[str, str]], directory: Directory) -> Placed:
    """Where texts go beside what ``directory``, the first one of an EXIF block, has already."""
    placed = Placed({}, {}, [])
    photo = directory.get(EXIF)
    taken = set(directory) | (set(photo) if isinstance(photo, dict) else set())
    parameters = any(keyword == "parameters" for keyword, _ in texts)
    for keyword, text in texts:
        tag = _PLACES.get(keyword)
        if keyword == "parameters" or (keyword == "Comment" and not parameters):
            tag = USER_COMMENT
        elif keyword == _TITLE:
            tag = _XP_TITLE
        entry = directory.get(tag or 0)
        if (
            text
            and isinstance(entry, Value)
            and keyword in _NAMED
            and entry.text == f"{keyword}:{text}"
        ):
            continue  # it is there
        if not text or tag is None or tag in taken:
            placed.lost.append(keyword)
            continue
        taken.add(tag)
        if tag == USER_COMMENT:
            placed.photo[tag] = Value(UNDEFINED, b"UNICODE\0" + text.encode("utf-16-be"))
        elif tag == _XP_TITLE:
            placed.first[tag] = Value(1, text.encode("utf-16-le") + b"\0\0")
        else:
            placed.first[tag] = ascii_text(f"{keyword}:{text}" if keyword in _NAMED else text)
    return placed
