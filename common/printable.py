"""Text from files (names, metadata, messages about them) as it may reach a console or a dialog."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""``text`` on one line: line breaks and whatever else can't be printed are escaped.

    >>> printable("two\nlines, \x1b[31mred")
    'two\\nlines, \\x1b[31mred'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
