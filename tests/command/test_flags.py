"""Every kind of option as a flag, in its panel, before the command's own flags of that panel."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest

from fdat_dense_iso.common.option import Option

pytest.importorskip("typer")
import typer
from typer.testing import CliRunner

from fdat_dense_iso.command.flags import with_flags

OPTIONS = (
    Option(name="how_much", kind="float", least=0, largest=1, text="{unset}: a little."),
    Option(name="rows", kind="int", least=1, default=4, flags=("--rows", "-r"), text="Rows."),
    Option(name="sharp", kind="bool", default=True, text="Sharp."),
    Option(name="soft", kind="bool", default=False, text="Soft."),
    Option(name="title", kind="text", unset="", text="{unset}: none."),
    Option(name="where", kind="mask", text="Where."),
    Option(name="times", choices=(1, 2), default=1, text="Times."),
    Option(name="nodes_alone", kind="int", where=("picture",), text="Not here."),
)
DEFAULTS = {"how_much": None, "rows": 4, "sharp": True, "soft": False, "title": None}
DEFAULTS |= {"where": None, "times": 1}
Own = partial(typer.Option, rich_help_panel="Pictures")


@pytest.fixture
def received() -> dict[str, Any]:
    return {}


@pytest.fixture
def app(received: dict[str, Any]) -> Any:
    app = typer.Typer()

    @app.command()
    @with_flags(Pictures=OPTIONS)
    def main(
        name: Annotated[str, typer.Argument()],
        own: Annotated[int, Own(help="Own.")] = 3,
        **options: Any,
    ) -> None:
        received.update(options, name=name, own=own)

    return app


def test_defaults(app: Any, received: dict[str, Any]) -> None:
    assert CliRunner().invoke(app, ["x"]).exit_code == 0
    assert received == DEFAULTS | {"name": "x", "own": 3}


def test_values_of_every_kind(app: Any, received: dict[str, Any]) -> None:
    given = ["--how-much", "0.5", "-r", "2", "--no-sharp", "--soft", "--title", "t"]
    given += ["--where", "a.png", "--times", "2", "--own", "1", "x"]
    assert CliRunner().invoke(app, given).exit_code == 0
    expected = {"how_much": 0.5, "rows": 2, "sharp": False, "soft": True, "title": "t"}
    assert received == expected | {"where": Path("a.png"), "times": 2, "name": "x", "own": 1}


@pytest.mark.parametrize(
    "given", [("--how-much", "2"), ("--rows", "0"), ("--times", "3"), ("--nodes-alone", "1")]
)
def test_other_values_are_refused(app: Any, given: tuple[str, str]) -> None:
    assert CliRunner().invoke(app, ["x", *given]).exit_code == 2


def test_help(app: Any) -> None:
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "150"}).output
    panel = text[text.index("Pictures") :]
    places = [panel.index(name) for name in ("--how-much", "--rows", "--where", "--times", "--own")]
    assert places == sorted(places)
    assert "left out: a little." in panel and "PICTURE" in panel and "0<=x<=1" in panel
