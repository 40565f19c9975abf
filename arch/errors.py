"""The one error that loading a checkpoint raises, and how long and in which letters it speaks."""

from __future__ import annotations

import logging

from ..common.printable import LONGEST_MESSAGE, printable, shortened

logger = logging.getLogger(__name__)

LONGEST_LOGGED = 20_000


class ModelLoadError(ValueError):
    """A checkpoint can't be loaded.

    The message says what was found, what was expected and what to do. It is one line of at most
    `LONGEST_MESSAGE` characters, whatever the file's names are: control characters come escaped,
    the middle of a longer message is only in the log.
    """

    def __init__(self, message: object) -> None:
        super().__init__(_told(str(message)))


def _told(message: str) -> str:
    """``message`` as one line of at most `LONGEST_MESSAGE` characters; the whole goes to the log."""
    text = shortened(message, " … (more in the log) … ")
    whole = printable(message)
    if len(whole) > LONGEST_MESSAGE:
        logger.info("%s", whole[:LONGEST_LOGGED])
    return text
