"""Runs the tests with other versions of the libraries, and prints a table of what passed.

    python -m tools.versions
    python -m tools.versions spandrel==0.4.0 av==16.0.1
    python -m tools.versions torch==2.5.1 --python ../with-torch-2.5.1/bin/python

A version is installed into a folder of its own, without what it requires, and found before the one
of this environment, which stays as it is. Other versions of PyTorch are not: they need libraries of
their own, so name the interpreter of an environment that has one, with this project's requirements. The
tests are those that touch the library.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parent.parent
OLDEST_AND_NEWEST = (
    *("spandrel==0.4.0", "spandrel==0.4.2"),
    *("av==16.0.1", "av==18.1.0"),
    *("numpy==1.26.4", "numpy==2.4.6"),
)
"""Without PyTorch's, see above."""
_FILES = "adopt", "guards", "info", "load", "registry", "weights"
_ARCH = (
    *("tests/arch/fdat", "tests/arch/dense_iso"),
    *(f"tests/arch/test_{name}.py" for name in _FILES),
)
TESTS = {
    "spandrel": (*_ARCH, "tests/command"),
    "av": ("tests/video", "tests/command"),
    "numpy": ("tests/video", "tests/picture", "tests/tools"),
    "torch": (*_ARCH, "tests/upscale"),
}
"""What is run for a library."""


def row(requirement: str, python: str | None) -> str:
    """Run the tests with that version; a line of the table."""
    name, _, version = requirement.partition("==")
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ)
        if python is None:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            subprocess.run([*pip, "--target", folder, requirement], check=True)
            environment["PYTHONPATH"] = folder
        found = _version(name, python or sys.executable, environment)
        if found.partition("+")[0] != version:
            sys.exit(f"{requirement} was asked for, and {found} is what runs")
        command = [python or sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, *TESTS[name]], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
    last = done.stdout.rstrip().rpartition("\n")[2]
    if done.returncode:
        print(
            "\n".join(line for line in done.stdout.splitlines() if _FAILED.match(line)),
            file=sys.stderr,
        )
    return f"| {name} | {found} | {summary(last)} |"


_FAILED = re.compile("FAILED|ERROR")


def _version(name: str, python: str, environment: dict[str, str]) -> str:
    code = f"from importlib.metadata import version; print(version({name!r}))"
    command = [python, "-c", code]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def summary(line: str) -> str:
    """pytest's last line without what was left out on purpose and how long it took.

    >>> summary("2 failed, 125 passed, 63 skipped, 236 deselected, 1 warning in 57.05s (0:00:57)")
    '2 failed, 125 passed, 63 skipped'
    """
    counts = line.partition(" in ")[0].split(", ")
    return ", ".join(one for one in counts if "deselected" not in one and "warning" not in one)


def main(
    requirements: Annotated[
        list[str] | None, typer.Argument(help="NAME==VERSION; none: the oldest and the newest.")
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="An interpreter that has these versions already.")
    ] = None,
) -> None:
    """Run the tests with other versions of libraries, and print a table."""
    print("| library | version | tests |\n| --- | --- | --- |", flush=True)
    for requirement in requirements or OLDEST_AND_NEWEST:
        print(row(requirement, python), flush=True)


if __name__ == "__main__":
    typer.run(main)
