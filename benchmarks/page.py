"""Writes a benchmark's tables into a page of the documentation, between two marks."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def command(module: str) -> str:
    """The command that this process was started with."""
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def write_section(page: Path, name: str, text: str) -> None:
    """Replace the text between ``<!-- name -->`` and ``<!-- end of name -->`` in a Markdown page.

    Raises:
        ValueError: the page has no such place.
    """
    content = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    if content.count(begin) != 1 or content.find(end) < content.find(begin):
        raise ValueError(
            f"{page} has no place for the table: lines {begin.strip()!r} and {end!r} were expected"
        )
    before, rest = content.split(begin)
    page.write_text(
        before + begin + text.strip() + "\n" + rest[rest.index(end) :], encoding="utf-8"
    )
