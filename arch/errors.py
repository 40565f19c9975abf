"""The one error that loading a checkpoint raises, and how long and in which letters it speaks."""

from __future__ import annotations

import logging

from ..common.printable import printable

logger = logging.getLogger(__name__)

LONGEST_MESSAGE = 600  # characters that a dialog shows
_END = 200  # of a longer message, whose advice stands at its end
LONGEST_LOGGED = 20_000


class ModelLoadError(ValueError):
    """A checkpoint can't be loaded.

    The message says what was found, what was expected and what to do. It is one line of at most
    `LONGEST_MESSAGE` characters, whatever the file's names are: control characters come escaped,
    the middle of a longer message is only in the log.
    """

    def __init__(self, message: object) -> None:
        super().__init__(shortened(str(message)))


def shortened(message: str) -> str:
    """``message`` as one line of at most `LONGEST_MESSAGE` characters; the whole goes to the log."""
    text = printable(message)
    if len(text) <= LONGEST_MESSAGE:
        return text
    logger.info("%s", text[:LONGEST_LOGGED])
    gap = " … (more in the log) … "
    return text[: LONGEST_MESSAGE - _END - len(gap)] + gap + text[-_END:]
