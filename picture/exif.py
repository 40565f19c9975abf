"""EXIF: what of the old file's block is true for the new one, and EXIF in TIFF files, which libvips
neither reads nor writes.

An EXIF block is itself a small TIFF file. So taking EXIF out of a TIFF and putting it into one both
come down to reading and writing directories (`tiff`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from fractions import Fraction

from .formats import Resolution
from .tiff import (
    EXIF,
    GPS,
    INTEROPERABILITY,
    RATIONAL,
    SHORT,
    Directory,
    ExifError,
    Layout,
    Value,
    ascii_text,
    long,
    next_directory,
    rational,
    read_directory,
    read_header,
    shorts,
    written_directory,
)

_ORIENTATION = 274
_IMAGE_DESCRIPTION = 270
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
_RESOLUTION = {X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT}
_MILLIMETRES = {2: Fraction(254, 10), 3: Fraction(10)}  # of an inch and a centimetre, by the unit
# What the first directory of a picture says about the picture, not about how its pixels are stored.
_DESCRIPTIVE = {
    _IMAGE_DESCRIPTION,
    271,  # Make
    272,  # Model
    *_RESOLUTION,
    305,  # Software
    306,  # DateTime
    315,  # Artist
    316,  # HostComputer
    18246,  # Rating
    18249,  # RatingPercent
    33432,  # Copyright
    *range(40091, 40096),  # XPTitle ... XPSubject
    EXIF,
    GPS,
}
# How pixels and blocks were stored, which says nothing about the new file.
STRUCTURAL = {
    *(254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281),
    *(
        284,
        288,
        289,
        290,
        291,
        292,
        293,
        297,
        317,
        320,
        321,
        322,
        323,
        324,
        325,
        326,
        327,
        328,
        330,
    ),
    *(332, 334, 338, 339, 340, 341, 347, 529, 530, 531, 532, *range(512, 522)),
    *(700, 33723, 34377, 34675),  # XMP, IPTC, Photoshop, ICC: handled on their own
}
_COMPRESSION = {0x9101, 0x9102}  # ComponentsConfiguration, CompressedBitsPerPixel
_WIDTHS, _HEIGHTS = {40962, 0x1001}, {40963, 0x1002}  # of EXIF, and related ones
_COLOUR_SPACE, _INDEX = 0xA001, 1  # _INDEX: of interoperability, R98 is sRGB, R03 Adobe RGB
USER_COMMENT = 0x9286
_MAKER_NOTE, _MICRO_VIDEO = 0x927C, 0x8897
_SUBJECTS = {0x9214: "SubjectArea", 0xA214: "SubjectLocation"}
_FOCAL_PLANE = {0xA20E: 0, 0xA20F: 1}  # pixels of the sensor per unit, by axis
# ImageDescription as scientific programs use it: the layout of the old pixels, wrong for the new
# ones.
_LAYOUT_DESCRIPTIONS = (b'{"shape"', b"ImageJ=", b"<?xml")


def exif_of_tiff(tiff: bytes) -> bytes | None:
    """The EXIF block of the first page of a TIFF file, with its TIFF header, in its byte order.

    None if the file has no entries that belong in one. Raises ExifError where its directories are
    broken.
    """
    found = {
        tag: value
        for tag, value in first_directory(tiff).items()
        if tag in _DESCRIPTIVE and not _describes_layout(tag, value)
    }
    if not found.keys() - _RESOLUTION:
        return None
    return _block(found, read_header(tiff)[0].order)


def first_directory(data: bytes) -> Directory:
    """Of a TIFF file or an EXIF block. Raises ExifError."""
    layout, first = read_header(data)
    return read_directory(data, first, layout)


def next_of(tiff: bytes) -> int:
    """Where the second directory of a TIFF file is; 0 for none. Raises ExifError."""
    layout, first = read_header(tiff)
    return next_directory(tiff, first, layout)


def unknown_tags(directory: Directory) -> list[int]:
    """Tags of a TIFF file's directory that say something, but nothing that is known here."""
    return sorted(directory.keys() - STRUCTURAL - _DESCRIPTIVE - {_ORIENTATION})


def resolution_of(directory: Directory) -> Resolution | None:
    """What a directory says of the resolution; without a unit only where pixels are not square."""
    sides = []
    for tag in (X_RESOLUTION, Y_RESOLUTION):
        value = directory.get(tag)
        numbers = value.numbers if isinstance(value, Value) else []
        if not numbers or numbers[0] <= 0:
            return None
        sides.append(numbers[0])
    unit = directory.get(RESOLUTION_UNIT)
    unit = int(unit.numbers[0]) if isinstance(unit, Value) and unit.numbers else 2
    if unit in _MILLIMETRES:
        return Resolution(*(float(side / _MILLIMETRES[unit]) for side in sides))
    return None if sides[0] == sides[1] else Resolution(*map(float, sides), unit=False)


def resolution_tags(resolution: Resolution | None) -> dict[int, Value | None]:
    """Entries of a directory for a resolution; None for those that it must not have."""
    if resolution is None:
        return dict.fromkeys(_RESOLUTION)
    sides = (resolution.x, resolution.y)
    if resolution.unit:
        x, y = (_per_inch(side) for side in sides)
    else:
        x, y = (Fraction(side).limit_denominator(10_000) for side in sides)
    return {
        X_RESOLUTION: rational(x),
        Y_RESOLUTION: rational(y),
        RESOLUTION_UNIT: shorts(2 if resolution.unit else 1),
    }


def _per_inch(per_millimetre: float) -> Fraction:
    """PNG counts per metre: what is a whole number up to its rounding is meant to be one."""
    exact = per_millimetre * 25.4
    whole = abs(exact - round(exact)) < 0.013 and round(exact) > 0
    return Fraction(round(exact)) if whole else Fraction(exact).limit_denominator(1000)


def exif_of_result(
    exif: bytes | None,
    *,
    width: int,
    height: int,
    factors: tuple[float, float] | None,
    resolution: Resolution | None,
    oriented: bool = True,
    in_srgb: bool = False,
    added: Mapping[int, Value] | None = None,
    added_photo: Mapping[int, Value] | None = None,
) -> tuple[bytes | None, list[str]]:
    """The EXIF block for an upright result of width x height pixels, made from the source's block.

    The thumbnail and what describes the old file alone are left out: its compression, and offsets
    into it. ``factors``: by how much it is wider and higher than the source; None where the source
    was turned. ``oriented``: whether it says that it is upright; ``in_srgb``: that it is sRGB, where
    it says anything of that. ``added``, ``added_photo``: entries for the first and the EXIF directory.

    Also the names of what was said of the picture, but cannot be said of the new one. Raises
    ExifError where the block cannot be read.
    """
    directory = {} if exif is None else first_directory(exif)
    lost: list[str] = []
    for tag in directory.keys() & STRUCTURAL:
        del directory[tag]
    if directory.pop(_MICRO_VIDEO, None):
        lost.append("the mark of an embedded video")
    photo = directory.get(EXIF)
    if isinstance(photo, dict):
        for tag in photo.keys() & _COMPRESSION:
            del photo[tag]
        if photo.pop(_MAKER_NOTE, None):
            lost.append("MakerNote (it holds offsets into the old file)")
        _set_size(photo, width, height)
        related = photo.get(INTEROPERABILITY)
        if isinstance(related, dict):
            _set_size(related, width, height, make=False)
            if in_srgb and _INDEX in related:
                related[_INDEX] = ascii_text("R98")
        if in_srgb and _COLOUR_SPACE in photo:
            photo[_COLOUR_SPACE] = shorts(1)
        lost += _scale(photo, factors)
    directory |= added or {}
    if added_photo:
        directory[EXIF] = {**(photo if isinstance(photo, dict) else {}), **added_photo}
    for tag, value in resolution_tags(resolution).items():
        directory.pop(tag, None)
        if value is not None:
            directory[tag] = value
    if exif is None and not directory:
        return None, lost
    if oriented:
        directory[_ORIENTATION] = shorts(1)
    # the order stays, as comments in Unicode are in it; those that are added are big-endian
    order = ">" if exif is None or added_photo else read_header(exif)[0].order
    return _block(directory, order), lost


def without_orientation(exif: bytes) -> bytes:
    """The block, as for a picture that is upright. Raises ExifError."""
    directory = first_directory(exif)
    directory.pop(_ORIENTATION, None)
    return _block(directory, read_header(exif)[0].order)


def _set_size(directory: Directory, width: int, height: int, make: bool = True) -> None:
    for tags, side in ((_WIDTHS, width), (_HEIGHTS, height)):
        for tag in tags:
            if tag in directory or (make and tag > 0x2000):
                directory[tag] = long(side)


def _scale(photo: Directory, factors: tuple[float, float] | None) -> list[str]:
    """Make positions and densities in pixels those of the result; the names of what is lost."""
    lost = []
    for tag, name in _SUBJECTS.items():
        value = photo.pop(tag, None)
        if not isinstance(value, Value):
            continue
        moved = [  # x, y, and a diameter or two sides
            round(number * Fraction(factors[axis]))
            for number, axis in zip(value.numbers, (0, 1, 0, 1))
            if factors
        ]
        if value.type == SHORT and moved and max(moved) < 2**16:
            photo[tag] = shorts(*moved)
        else:
            lost.append(name)
    for tag, axis in _FOCAL_PLANE.items():
        value = photo.pop(tag, None)
        if isinstance(value, Value) and value.type == RATIONAL and value.numbers and factors:
            density = (value.numbers[0] * Fraction(factors[axis])).limit_denominator(1000)
            if 0 < density.numerator < 2**32:
                photo[tag] = rational(density)
    return lost


def tiff_with_exif(
    tiff: bytes, exif: bytes | None, tags: Mapping[int, Value | None] | None = None
) -> bytearray:
    """Add the descriptive part of an EXIF block to a TIFF file.

    A new first directory is appended to the file; entries that the file has already win, and
    ``tags`` win over them; None is no entry. Raises ExifError where either cannot be read, or where
    the result passes the 4 GiB of a plain TIFF.
    """
    layout, at, directory = directory_with_exif(tiff, exif, tags)
    result = bytearray(tiff)
    struct.pack_into(layout.offset, result, layout.first_at, at)
    result += b"\0" * (at - len(tiff))
    result += directory
    return result


def directory_with_exif(
    tiff: bytes, exif: bytes | None, tags: Mapping[int, Value | None] | None = None
) -> tuple[Layout, int, bytes]:
    """The file's layout, where the new first directory of `tiff_with_exif` goes, and its bytes."""
    added = {} if exif is None else first_directory(exif)
    added = {tag: value for tag, value in added.items() if tag in _DESCRIPTIVE}
    layout, first = read_header(tiff)
    photo = added.get(EXIF)
    if exif is not None and isinstance(photo, dict) and read_header(exif)[0].order != layout.order:
        added[EXIF] = {**photo, **_reordered_comment(photo)}
    at = len(tiff) + len(tiff) % 2
    entries = added | read_directory(tiff, first, layout) | dict(tags or {})
    entries = {tag: value for tag, value in entries.items() if value is not None}
    following = next_directory(tiff, first, layout)
    directory = written_directory(entries, layout, at=at, following=following)
    if not layout.big and at + len(directory) >= 2**32:
        raise ExifError("the TIFF file leaves no room for it within 4 GiB")
    return layout, at, directory


def _reordered_comment(photo: Directory) -> Directory:
    """UserComment in Unicode for a file of the other byte order, if there is one."""
    comment = photo.get(USER_COMMENT)
    if not isinstance(comment, Value) or comment.data[:8] != b"UNICODE\0":
        return {}
    text = comment.data[8:]
    swapped = b"".join(text[at : at + 2][::-1] for at in range(0, len(text), 2))
    return {USER_COMMENT: Value(comment.type, comment.data[:8] + swapped)}


def _block(directory: Directory, order: str) -> bytes:
    plain = Layout(order, big=False)
    start = struct.pack(plain.header, b"II" if order == "<" else b"MM", 42, 8)
    return start + written_directory(directory, plain, at=8)


def _describes_layout(tag: int, value: Value | Directory) -> bool:
    return (
        tag == _IMAGE_DESCRIPTION
        and isinstance(value, Value)
        and value.data.startswith(_LAYOUT_DESCRIPTIONS)
    )
