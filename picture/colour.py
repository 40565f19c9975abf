"""Colour that a file states without an ICC profile: PNG's chunks and TIFF's tags.

In PNG the order of precedence is cICP, iCCP, sRGB, then gAMA with cHRM (PNG, third edition, 4.3).
The chunks go from PNG to PNG as they are; for other formats they become an ICC profile, so that the
codes of the pixels stay what they were.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from .profile import D65, SRGB_PRIMARIES, Curve, grey_profile, matrix_profile, srgb_curve
from .tiff import Directory, Value

KINDS = (b"cICP", b"mDCV", b"cLLI", b"sRGB", b"gAMA", b"cHRM")
_HDR = {b"mDCV": "the mastering display (mDCV)", b"cLLI": "the content's light levels (cLLI)"}
_P3, _BT2020 = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06), (0.708, 0.292, 0.17, 0.797, 0.131, 0.046)
_SMPTE170 = (0.63, 0.34, 0.31, 0.595, 0.155, 0.07)
# Primaries and white by their numbers in H.273.
_PRIMARIES: dict[int, tuple[tuple[float, ...], tuple[float, float]]] = {
    1: (SRGB_PRIMARIES, D65),
    4: ((0.67, 0.33, 0.21, 0.71, 0.14, 0.08), (0.31, 0.316)),
    5: ((0.64, 0.33, 0.29, 0.6, 0.15, 0.06), D65),
    6: (_SMPTE170, D65),
    7: (_SMPTE170, D65),
    9: (_BT2020, D65),
    11: (_P3, (0.314, 0.351)),
    12: (_P3, D65),
    22: ((0.63, 0.34, 0.295, 0.605, 0.155, 0.077), D65),
}


def _bt709(codes: np.ndarray) -> np.ndarray:
    return np.where(codes < 0.081, codes / 4.5, ((codes + 0.099) / 1.099) ** (1 / 0.45))


def _pq(codes: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084: 1 is 10,000 candela per square metre."""
    power = codes ** (32 / 2523)
    above, below = np.maximum(power - 107 / 128, 0), 2413 / 128 - 2392 / 128 * power
    return (above / below) ** (8192 / 1305)


def _hlg(codes: np.ndarray) -> np.ndarray:
    """ARIB STD-B67: light of the scene."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - c) / a) + b) / 12)


_CURVES: dict[int, Curve] = {4: 2.2, 5: 2.8, 8: 1.0, 13: srgb_curve, 16: _pq, 18: _hlg}
_CURVES |= dict.fromkeys((1, 6, 14, 15), _bt709)
_HDR_NAMES = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True)
class StatedColour:
    """What a file says of its colours beside an ICC profile.

    Attributes:
        chunks: of PNG, by their kind.
        curve, primaries, white: of TIFF.
    """

    chunks: dict[bytes, bytes] = field(default_factory=dict)
    curve: Curve | tuple[Curve, Curve, Curve] | None = None
    primaries: tuple[float, ...] | None = None
    white: tuple[float, float] | None = None

    def as_profile(self, profile: bytes | None, grey: bool) -> tuple[bytes | None, list[str]]:
        """The ICC profile that says the same for a file that holds nothing else, and what it cannot
        say. ``profile``: what the file has, which precedes all but cICP."""
        lost = [name for kind, name in _HDR.items() if kind in self.chunks]
        cicp = self.chunks.get(b"cICP", b"")
        if len(cicp) == 4 and profile is None:
            made, problem = _profile_of_cicp(cicp, grey)
            if made or not (b"sRGB" in self.chunks or b"gAMA" in self.chunks):
                return made, [problem, *lost] if problem else lost
            lost.insert(0, problem)
        elif cicp:
            lost.insert(0, "its cICP chunk (the ICC profile is kept)")
        if profile is not None or b"sRGB" in self.chunks:
            return profile, lost
        curve, primaries, white = self._stated()
        if curve is None and primaries is None:
            return None, lost
        if curve is None and _is_srgb(primaries, white):
            return None, lost
        curve = srgb_curve if curve is None else curve
        name = "Colours as the file stated them"
        try:
            if grey:
                return grey_profile(curve[0] if isinstance(curve, tuple) else curve, name), lost
            return (
                matrix_profile(white or D65, primaries or SRGB_PRIMARIES, curve, name),
                lost,
            )
        except ValueError as error:
            return None, [f"what it says of its colours ({error})", *lost]

    def _stated(self):
        curve, primaries, white = self.curve, self.primaries, self.white
        gamma, chromaticities = self.chunks.get(b"gAMA", b""), self.chunks.get(b"cHRM", b"")
        if len(gamma) == 4 and gamma != bytes(4):
            curve = 100_000 / struct.unpack(">I", gamma)[0]
        if len(chromaticities) == 32:
            values = [value / 100_000 for value in struct.unpack(">8i", chromaticities)]
            white, primaries = (values[0], values[1]), tuple(values[2:])
        return curve, primaries, white


def _is_srgb(primaries: tuple[float, ...] | None, white: tuple[float, float] | None) -> bool:
    """Whether these are what files without a profile have anyway, but for rounding."""
    given = (*(primaries or SRGB_PRIMARIES), *(white or D65))
    return bool(np.allclose(given, (*SRGB_PRIMARIES, *D65), atol=0.001))


def _profile_of_cicp(cicp: bytes, grey: bool) -> tuple[bytes | None, str]:
    """The profile for four code points, and what there is to say of it."""
    primaries, transfer, matrix, full = cicp
    known = primaries in _PRIMARIES and transfer in _CURVES and matrix == 0
    if not known or full != 1:
        return (
            None,
            f"its cICP chunk ({primaries}/{transfer}/{matrix}/{full}), for which there is no ICC profile",
        )
    curve, name = _CURVES[transfer], f"H.273 {primaries}/{transfer}"
    colours, white = _PRIMARIES[primaries]
    if primaries == 1 and transfer == 13:  # sRGB, as files without a profile are
        return None, ""
    said = ""
    if transfer in _HDR_NAMES:
        said = (
            f"what programs need to show {_HDR_NAMES[transfer]} that do not look for it in an ICC profile (tag cicp); "
            "PNG keeps it"
        )
    if grey:
        return grey_profile(curve, name), said
    return matrix_profile(white, colours, curve, name, cicp), said


def colour_of_tiff(directory: Directory) -> StatedColour:
    """TransferFunction, WhitePoint and PrimaryChromaticities."""
    transfer, white, primaries = (_numbers(directory, tag) for tag in (301, 318, 319))
    curve: Curve | tuple[Curve, Curve, Curve] | None = None
    if len(transfer) in (3 * 256, 3 * 65536):
        red, green, blue = np.split(np.array(transfer) / 65535, 3)
        curve = (_table(red), _table(green), _table(blue))
    elif len(transfer) in (256, 65536):
        curve = _table(np.array(transfer) / 65535)
    return StatedColour(
        curve=curve,
        primaries=tuple(primaries) if len(primaries) == 6 else None,
        white=(white[0], white[1]) if len(white) == 2 else None,
    )


def _numbers(directory: Directory, tag: int) -> list[float]:
    value = directory.get(tag)
    return [float(number) for number in value.numbers] if isinstance(value, Value) else []


def _table(values: np.ndarray) -> Curve:
    return lambda codes: np.interp(codes, np.linspace(0, 1, len(values)), values)
