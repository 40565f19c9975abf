"""An option that users set, as it is declared: its name, what it takes, one sentence about it.

Node inputs, flags of the command line, the tables of the documentation and the English locale are
all made of declarations. `common.upscaling` and `common.encoding` hold them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["choice", "int", "float", "bool", "text", "mask"]
Place = Literal["picture", "video", "command"]
"""Where users meet an option: the node for pictures, that for videos, the command line."""

PLACES: tuple[Place, ...] = ("picture", "video", "command")
LEFT_OUT = "left out"  # how one leaves an option open on the command line
_NUMBERS = {"int": ("a whole number", int), "float": ("a number", int | float)}


@dataclass(frozen=True, kw_only=True)
class Option:
    """A declaration.

    Attributes:
        name: of the argument in Python and of the node's input.
        text: what it does, as tooltip and as help of the flag. ``{unset}`` stands for how one
            leaves it open there: "0" in a node, "left out" on the command line.
        default: None leaves it open, for the engine to choose.
        choices: all values, where these can be counted.
        kind: what the value is, without choices; "mask" is a grey picture.
        least, largest: the limits of a number.
        offered: where a node's widget ends, if larger numbers work but make little sense.
        step: between two numbers that the widget offers.
        unset: what the widget shows for None, which it does not have.
        more: what the pages of the documentation add to the text.
        flags: on the command line; none given: the name with dashes.
        where: the places that offer it.
        advanced: a node hides it until one asks for all of its inputs.
        appended: its widget comes last, because saved workflows know widgets by their order.

    >>> tile = Option(name="tile", kind="int", text="Side of a tile; {unset}: automatic.", unset=0)
    >>> tile.sentence("picture"), tile.sentence("command")
    ('Side of a tile; 0: automatic.', 'Side of a tile; left out: automatic.')
    >>> tile.shown, tile.value(0), tile.value(64), tile.flag_names
    (0, None, 64, ('--tile',))
    """

    name: str
    text: str
    default: Any = None
    choices: tuple[Any, ...] = ()
    kind: Kind = "choice"
    least: float | None = None
    largest: float | None = None
    offered: float | None = None
    step: float | None = None
    unset: Any = None
    more: str = ""
    flags: tuple[str, ...] = ()
    where: tuple[Place, ...] = PLACES
    advanced: bool = False
    appended: bool = False

    def __post_init__(self) -> None:
        if (self.kind == "choice") != bool(self.choices):
            raise ValueError(f"the option {self.name} has neither choices nor another kind")

    @property
    def shown(self) -> Any:
        """The default as a node's widget shows it."""
        return self.unset if self.default is None else self.default

    @property
    def flag_names(self) -> tuple[str, ...]:
        """On the command line; what is on by default has a flag that turns it off."""
        name = self.name.replace("_", "-")
        is_on = self.kind == "bool" and self.default
        return self.flags or (f"--{name}/--no-{name}" if is_on else f"--{name}",)

    def value(self, shown: Any) -> Any:
        """What a widget's value stands for: None where it leaves the option open."""
        if self.unset is None or shown is None:
            return shown
        is_open = shown <= self.unset if self.kind in _NUMBERS else shown == self.unset
        return None if is_open else shown

    def sentence(self, place: Place) -> str:
        """The text, with the words that leave the option open in that place."""
        word = LEFT_OUT if place == "command" else str(self.unset) or "empty"
        return self.text.replace("{unset}", word)

    def check(self, value: Any) -> None:
        """Raise ValueError for a value that is none of the choices, or beyond the limits."""
        if self.choices and value not in self.choices:
            known = ", ".join(map(str, self.choices))
            raise ValueError(f"{self.name} {value!r} is not known; use one of {known}")
        if value is None or self.kind not in _NUMBERS:
            return
        words, numbers = _NUMBERS[self.kind]
        if not isinstance(value, numbers) or not self._within_limits(value):
            raise ValueError(
                f"{self.name} is {value}; it must be {words} {self.limits}, or left automatic"
            )

    @property
    def limits(self) -> str:
        """Those of a number, in words."""
        if self.least is None:
            return "of any size" if self.largest is None else f"up to {self.largest}"
        end = "on" if self.largest is None else f"to {self.largest}"
        return f"from {self.least} {end}"

    def _within_limits(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (
            self.largest is None or value <= self.largest
        )


def offered_in(place: Place, options: Iterable[Option]) -> list[Option]:
    """Those that this place offers, in their order."""
    return [option for option in options if place in option.where]
