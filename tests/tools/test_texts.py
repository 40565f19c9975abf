"""The English texts that are written by a tool are as it writes them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.helpers.paths import ROOT
from tools.texts import LOCALE, checkpoint_table, markdown_table, tables, with_tables, written


@pytest.mark.parametrize("path", written(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_are_as_they_are_written(path) -> None:
    assert path.read_text("utf-8") == written()[path], "python -m tools.texts writes it anew"


def test_pages_have_markers_for_their_tables() -> None:
    for page, by_name in tables().items():
        if page.name != "dense-iso-vit.md":
            assert page.read_text("utf-8").count("<!-- options") == len(by_name), page
    assert LOCALE.is_file()


def test_a_table_takes_the_place_of_the_one_before() -> None:
    page = "a\n<!-- options x -->\nold\n<!-- /options -->\nb\n<!-- options -->\n<!-- /options -->\n"
    filled = with_tables(page, {"": "| 1 |\n", "x": "| 2 |\n", "y": "| 3 |\n"})
    assert filled == (
        "a\n<!-- options x -->\n\n| 2 |\n\n<!-- /options -->\nb\n"
        "<!-- options -->\n\n| 1 |\n\n<!-- /options -->\n"
    )
    assert with_tables(filled, {"": "| 1 |\n", "x": "| 2 |\n"}) == filled
    assert with_tables("no marker", {"": "| 1 |\n"}) == "no marker"


def test_empty_columns_are_left_out() -> None:
    assert markdown_table(("a", "b"), [("1", ""), ("2", "")]) == "| a |\n| --- |\n| 1 |\n| 2 |\n"


def test_questions_that_a_checkpoint_leaves_open() -> None:
    options = {
        "heads": SimpleNamespace(default=None, help="of every stage"),
        "act": SimpleNamespace(default=("none", "relu"), help="of the head", parse=("a", "b")),
    }
    assert checkpoint_table(options).splitlines()[2:] == [
        "| `heads` |  |  | of every stage |",
        "| `act` | `a`, `b` | `none,relu` | of the head |",
    ]
