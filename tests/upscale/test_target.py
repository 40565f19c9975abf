"""Targets by their text, and the sizes that they lead to."""

from __future__ import annotations

from fractions import Fraction

import pytest

from fdat_dense_iso.upscale.target import Target, as_target, parse_target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("", None),
        ("  ", None),
        ("2x", Target(factor=2)),
        ("1.5", Target(factor=1.5)),
        (".5X", Target(factor=0.5)),
        ("50%", Target(factor=0.5)),
        ("1920x1080", Target(width=1920, height=1080)),
        ("1920 × 1080", Target(width=1920, height=1080)),
        ("1920x", Target(width=1920)),
        ("64x", Target(factor=64)),
        ("65x", Target(width=65)),
        ("x1080", Target(height=1080)),
        ("fit 1920x1080", Target(width=1920, height=1080, fit=True)),
        ("Fit 64×32", Target(width=64, height=32, fit=True)),
        ("2mp", Target(megapixels=2)),
        ("2.5MP", Target(megapixels=2.5)),
        (".25 MP", Target(megapixels=0.25)),
    ],
)
def test_parse(text: str, target: Target | None) -> None:
    assert parse_target(text) == target
    assert as_target(text) == target and as_target(target) is target


def test_a_number_is_a_factor() -> None:
    assert as_target(3) == as_target(3.0) == Target(factor=3)


@pytest.mark.parametrize(
    "text",
    [
        *("x", "big", "0", "0x", "-2", "2xx", "1e3", "65", "0x0", "100%%", "nan", "1920x1080x3"),
        *(
            "mp",
            "0mp",
            "-1mp",
            "99999999mp",
            "2mp2",
            "fit",
            "fit 100",
            "fit 100x",
            "fit x100",
            "fit 2mp",
            "fit 0x5",
        ),
    ],
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="is not understood"):
        parse_target(text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give exactly one of the three"),
        ({"factor": 2, "width": 100}, "give exactly one of the three"),
        ({"megapixels": 2, "height": 100}, "give exactly one of the three"),
        ({"fit": True, "width": 100}, "both width and height"),
        ({"factor": 2, "fit": True}, "both width and height"),
        ({"megapixels": 0}, "megapixels 0; a number above 0"),
        ({"factor": float("nan")}, "a number above 0"),
    ],
    ids=str,
)
def test_targets_that_contradict_themselves(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Target(**fields)


SIZES = [(1080, 1920), (1920, 1080), (37, 113), (512, 512), (5, 700), (997, 7)]


@pytest.mark.parametrize("box", [(1920, 1080), (100, 100), (31, 77), (1, 1)], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_fit_never_exceeds_and_keeps_the_aspect(
    size: tuple[int, int], box: tuple[int, int]
) -> None:
    found = Target(width=box[0], height=box[1], fit=True).size(*size)
    limits = box[1], box[0]
    factor = min(Fraction(limit, side) for limit, side in zip(limits, size))
    assert all(a <= limit for a, limit in zip(found, limits))
    assert any(a == limit for a, limit in zip(found, limits))
    assert all(abs(a - side * factor) <= Fraction(1, 2) or a == 1 for a, side in zip(found, size))


@pytest.mark.parametrize("megapixels", [0.1, 1, 2.5, 12])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_megapixels(size: tuple[int, int], megapixels: float) -> None:
    height, width = Target(megapixels=megapixels).size(*size)
    assert abs(height * width - megapixels * 1e6) <= 0.5 * (height + width) + 1
    assert abs(height - width * size[0] / size[1]) <= 0.5 * (1 + size[0] / size[1]) + 1e-6


@pytest.mark.parametrize(
    ("target", "size"),
    [
        (Target(factor=0.001), (40, 40)),
        (Target(width=10**6), (40, 40)),
        (Target(megapixels=10), (1, 1000)),
    ],
    ids=str,
)
def test_sizes_that_cannot_be(target: Target, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="sides must be 1 to 65536 pixels"):
        target.size(*size)


@pytest.mark.parametrize("text", ["100000x100000", "65537x", "x999999999", "fit 70000x5"])
def test_sides_beyond_the_most_are_told_as_such(text: str) -> None:
    with pytest.raises(ValueError, match="has a side above 65536 pixels"):
        parse_target(text)


@pytest.mark.parametrize(
    ("text", "height", "width", "stretched"),
    [
        ("400x300", 276, 276, True),
        ("1920x1080", 720, 1280, False),
        ("1920x1080", 721, 1281, False),  # a pixel of rounding
        ("1920x1080", 480, 720, True),
        ("fit 400x300", 276, 276, False),
        ("400x", 276, 276, False),
        ("2x", 276, 276, False),
    ],
)
def test_a_target_that_stretches_says_so(
    text: str, height: int, width: int, stretched: bool
) -> None:
    target = parse_target(text)
    assert target is not None
    said = target.stretching(height, width)
    assert (
        f"stretched from {width}x{height} to {text}; the target 'fit {text}'" in said
    ) == stretched
    assert bool(said) == stretched
