"""Text from files (names, metadata, messages about them) as it may reach a console or a dialog."""

from __future__ import annotations

LONGEST_MESSAGE = 600  # characters of a message: what a dialog shows
_END = 200  # of a longer message, whose advice stands at its end


def printable(text: str) -> str:
    r"""``text`` on one line: line breaks and whatever else can't be printed are escaped.

    >>> printable("two\nlines, \x1b[31mred")
    'two\\nlines, \\x1b[31mred'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shortened(text: str, gap: str = " … ") -> str:
    """``text`` as one line of at most `LONGEST_MESSAGE` characters, with ``gap`` for the middle of a longer
    one."""
    text = printable(text)
    if len(text) <= LONGEST_MESSAGE:
        return text
    return text[: LONGEST_MESSAGE - _END - len(gap)] + gap + text[-_END:]
