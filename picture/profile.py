"""ICC profiles made of primaries and a curve, for colours that a file states in another way.

A profile of ICC 4.4 with a matrix and curves (ICC.1:2022, 8.3): the tags lie behind a table.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

Curve = float | Callable[[np.ndarray], np.ndarray]
"""An exponent, or a function from codes in [0, 1] to light in [0, 1]."""

D50 = (0.9642, 1.0, 0.8249)
SRGB_PRIMARIES = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
D65 = (0.3127, 0.329)
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_SAMPLES = 4096


def srgb_curve(codes: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1."""
    return np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)


def matrix_profile(
    white: tuple[float, float],
    primaries: tuple[float, ...],
    curve: Curve | tuple[Curve, Curve, Curve],
    name: str,
    cicp: bytes | None = None,
) -> bytes:
    """For RGB. ``white`` is (x, y), ``primaries`` are x and y of red, green and blue. ``cicp``: the
    four code points of H.273, for programs that know what HDR is. Raises ValueError where these
    span no colours."""
    xyz = np.array([_xyz(*primaries[at : at + 2]) for at in (0, 2, 4)]).T
    target = _xyz(*white)
    try:
        matrix = xyz * np.linalg.solve(xyz, target)
    except np.linalg.LinAlgError as error:
        raise ValueError("the primaries lie on a line") from error
    adapt = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ D50 / (_BRADFORD @ target)) @ _BRADFORD
    if not np.isfinite(adapt).all() or np.abs(adapt @ matrix).max() > 4:
        raise ValueError("the white point and the primaries fit no display")
    columns = (adapt @ matrix).T
    curves = curve if isinstance(curve, tuple) else (curve, curve, curve)
    tags = [(b"rXYZ", _point(columns[0])), (b"gXYZ", _point(columns[1]))]
    tags += [(b"bXYZ", _point(columns[2])), (b"chad", b"sf32" + bytes(4) + _fixed(adapt.ravel()))]
    tags += [(tag, _curve(one)) for tag, one in zip((b"rTRC", b"gTRC", b"bTRC"), curves)]
    tags += [(b"cicp", b"cicp" + bytes(4) + cicp)] if cicp else []
    return _profile(b"RGB ", tags, name)


def grey_profile(curve: Curve, name: str) -> bytes:
    """For grey."""
    return _profile(b"GRAY", [(b"kTRC", _curve(curve))], name)


def is_whole(profile: bytes) -> bool:
    """Whether it may be an ICC profile, and all of it is there: its length and its mark are right."""
    return 128 < int.from_bytes(profile[:4], "big") <= len(profile) and profile[36:40] == b"acsp"


def _xyz(x: float, y: float) -> np.ndarray:
    if y <= 0:
        raise ValueError("a chromaticity without luminance")
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _fixed(values: np.ndarray) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _point(xyz: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(xyz)


def _curve(curve: Curve) -> bytes:
    if not callable(curve):
        if not 0.05 <= curve <= 20:
            raise ValueError(f"an exponent of {curve:g}")
        return b"para" + bytes(8) + _fixed(np.array([curve]))
    values = np.round(np.clip(curve(np.linspace(0, 1, _SAMPLES)), 0, 1) * 65535).astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", len(values)) + values.tobytes()


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return (
        b"mluc"
        + bytes(4)
        + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28)
        + encoded
    )


def _profile(colours: bytes, tags: list[tuple[bytes, bytes]], name: str) -> bytes:
    tags = [
        (b"desc", _text(name)),
        (b"cprt", _text("No copyright")),
        (b"wtpt", _point(np.array(D50))),
        *tags,
    ]
    table, data, known = b"", b"", {}
    start = 128 + 4 + 12 * len(tags)
    for kind, body in tags:
        if body not in known:
            known[body] = start + len(data)
            data += body + bytes(-len(body) % 4)
        table += struct.pack(">4sII", kind, known[body], len(body))
    size = start + len(data)
    header = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x04400000, b"mntr", colours, b"XYZ ")
    header += struct.pack(">6H4s4s", 2026, 1, 1, 0, 0, 0, b"acsp", bytes(4))
    header += bytes(4 + 4 + 4 + 8) + struct.pack(">I", 1) + _fixed(np.array(D50)) + bytes(4)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data
