"""Flags of the command line, made of declared options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from ..common.option import Option, offered_in

_TYPES = {"int": int, "float": float, "bool": bool, "text": str, "mask": Path}

Command = TypeVar("Command", bound=Callable[..., None])


def with_flags(**panels: Iterable[Option]) -> Callable[[Command], Command]:
    """A decorator that gives a command flags for options, which it receives in its ``**options``.

    typer reads a command's signature: there they stand before the first parameter of their own
    panel.

    Args:
        panels: the options of every panel of ``--help``; those are left out that the command line
            does not offer.
    """

    def add(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        parameters = list(signature.parameters.values())[:-1]  # without **options
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
        for panel, options in panels.items():
            made = [flag(option, panel) for option in offered_in("command", options)]
            place = next(i for i, one in enumerate(parameters) if _panel(one) == panel)
            parameters[place:place] = made
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return command

    return add


def flag(option: Option, panel: str) -> inspect.Parameter:
    """The parameter from which typer makes the flag of an option."""
    kind: Any = Literal[option.choices] if option.choices else _TYPES[option.kind]
    described = typer.Option(
        *option.flag_names,
        help=option.sentence("command"),
        rich_help_panel=panel,
        min=option.least,
        max=option.largest,
        metavar="PICTURE" if option.kind == "mask" else None,
    )
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=option.default,
        annotation=Annotated[kind | None if option.default is None else kind, described],
    )


def _panel(parameter: inspect.Parameter) -> str | None:
    described = getattr(parameter.annotation, "__metadata__", (None,))[0]
    return getattr(described, "rich_help_panel", None)
