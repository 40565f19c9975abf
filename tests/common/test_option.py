"""A declaration: what widgets show for it, what their values stand for, and what is refused."""

from __future__ import annotations

import doctest
import re

import pytest

from fdat_dense_iso.common import option
from fdat_dense_iso.common.option import Option, offered_in

TILE = Option(name="tile", kind="int", least=8, unset=0, text="Side; {unset}: automatic.")
OVERLAP = Option(name="overlap", kind="int", least=0, largest=63, unset=-1, text="Overlap.")
SIZE = Option(name="size", kind="text", unset="", text="Size: {unset} for the model's.")
BLUR = Option(name="blur", kind="float", least=0, largest=1.5, default=1, text="How much.")
MODE = Option(name="mode", choices=("fast", "good"), default="good", text="How.")


def test_the_example() -> None:
    assert doctest.testmod(option).failed == 0


@pytest.mark.parametrize(
    ("declared", "shown", "value"),
    [
        (TILE, 0, None),
        (TILE, 64, 64),
        (OVERLAP, -1, None),
        (OVERLAP, 0, 0),
        (SIZE, "", None),
        (SIZE, "2x", "2x"),
        (MODE, "fast", "fast"),
        (MODE, None, None),
    ],
)
def test_what_a_widget_shows_stands_for_a_value(
    declared: Option, shown: object, value: object
) -> None:
    assert declared.value(shown) == value


def test_the_default_is_shown_as_the_widget_can() -> None:
    assert [one.shown for one in (TILE, OVERLAP, SIZE, MODE)] == [0, -1, "", "good"]
    assert SIZE.sentence("video") == "Size: empty for the model's."


@pytest.mark.parametrize(
    ("declared", "value", "message"),
    [
        (TILE, 7, "tile is 7; it must be a whole number from 8 on, or left automatic"),
        (TILE, 8.5, "tile is 8.5; it must be a whole number from 8 on"),
        (OVERLAP, 64, "overlap is 64; it must be a whole number from 0 to 63"),
        (BLUR, 2, "blur is 2; it must be a number from 0 to 1.5"),
        (BLUR, "1", "blur is 1; it must be a number from 0 to 1.5"),
        (MODE, "slow", "mode 'slow' is not known; use one of fast, good"),
    ],
)
def test_other_values_are_refused(declared: Option, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        declared.check(value)


@pytest.mark.parametrize(
    ("declared", "value"),
    [(TILE, None), (TILE, 8), (OVERLAP, 63), (BLUR, 0.5), (SIZE, "2x"), (MODE, "fast")],
)
def test_good_values_pass(declared: Option, value: object) -> None:
    declared.check(value)


def test_a_choice_has_choices() -> None:
    with pytest.raises(ValueError, match="the option side has neither choices nor another kind"):
        Option(name="side", text="Which.")


def test_places() -> None:
    hidden = Option(name="depth", kind="int", where=("picture",), text="Deep.")
    assert offered_in("picture", (TILE, hidden)) == [TILE, hidden]
    assert offered_in("command", (TILE, hidden)) == [TILE]
