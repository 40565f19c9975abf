"""The streams of a program that was started without some of them."""

from __future__ import annotations

import os
import sys


def open_missing_streams() -> None:
    """Input, output and errors that are closed (``>&-``), or that a program without a console
    (pythonw) never had, lead nowhere.

    Python sets such a stream to None, and its number goes to the file that is opened next: what a
    library in C says on the error stream would stand in a result. So they are opened in the order
    of their numbers, before any other file is.
    """
    for name, mode in ("stdin", "r"), ("stdout", "w"), ("stderr", "w"):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
