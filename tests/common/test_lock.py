"""Who holds a file of locks, and what a killed process leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fdat_dense_iso.common.lock import InUseError, check_free, held
from tests.helpers.paths import ROOT

HOLDS = """
import sys; sys.path.insert(0, {root!r})
from pathlib import Path
from fdat_dense_iso.common.lock import held
with held(Path({lock!r}), Path("out.mp4")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
def test_another_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    lock = tmp_path / "out.mp4.partial.lock"
    check_free(lock, Path("out.mp4"))
    program = HOLDS.format(root=str(ROOT), lock=str(lock))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], **pipes, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        for attempt in (check_free, lambda *paths: held(*paths).__enter__()):
            with pytest.raises(InUseError, match=r"out\.mp4 is being written by another run; wait"):
                attempt(lock, Path("out.mp4"))
        other.send_signal(signal.SIGKILL)
    assert lock.exists()
    check_free(lock, Path("out.mp4"))
    assert not lock.exists()
    with held(lock, Path("out.mp4")):
        assert lock.exists()
    assert not lock.exists()
