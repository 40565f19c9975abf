"""Files that move to their place, and files that have to go, where other programs look at them, too.

Windows moves and removes no file that is open anywhere: virus scanners and previews open new files
for a moment, and players show a video while it grows.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

logger = logging.getLogger(__name__)

PAUSES = 0.05, 0.1, 0.2, 0.4, 0.8
"""Seconds between tries: what only looks at a file is done by then."""


def put_in_place(written: Path, target: Path) -> None:
    """Move a file, replacing ``target``; tried again where a program holds one of them. Raises OSError."""
    for pause in PAUSES:
        try:
            os.replace(written, target)
            return
        except PermissionError:
            time.sleep(pause)
    os.replace(written, target)


def clear_away(path: Path) -> None:
    """Remove a file, if it is there, that nobody needs any more: what is done is not lost for it."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if os.path.lexists(path):
            logger.warning(
                "%s is no longer needed but could not be removed: %s", path, error.strerror or error
            )
