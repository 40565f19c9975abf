"""Makes .venv with all that the demo, the command line and (with --tests) the tests need.

    python tools/setup.py
    python tools/setup.py --tests

`make` calls it; where there is no make, as on Windows, call it yourself. It needs Python 3.10 or
newer and nothing else. The environment variable TORCH names another build of PyTorch, TORCHVISION
the release that belongs to it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv"
PYTHON = FOLDER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
TORCH = os.environ.get("TORCH") or "torch==2.13.0"
TORCHVISION = os.environ.get("TORCHVISION") or "torchvision==0.28.0"


def pip(*arguments: str) -> str:
    """Run pip in the environment; its output."""
    command = [str(PYTHON), "-m", "pip", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def install(*arguments: str) -> None:
    """Install packages into the environment; pip says what it can't."""
    pip("install", "--quiet", "--disable-pip-version-check", *arguments)


def size_of_torch() -> str:
    """What there is to say of the download: PyPI's PyTorch for Linux comes with NVIDIA's libraries."""
    if sys.platform != "linux" or os.environ.get("TORCH"):
        return ""
    return (
        " (from PyPI with NVIDIA's libraries, 3 GB; without such a GPU, interrupt this, and set TORCH and "
        "TORCHVISION as README says)"
    )


def main() -> None:
    """Make the environment, or bring it up to the requirement files of today."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tests", action="store_true", help="also what the tests need")
    options = parser.parse_args()
    if sys.version_info < (3, 10):  # noqa: UP036 (nothing else has looked yet)
        sys.exit(f"this is Python {sys.version.split()[0]}; 3.10 or newer is needed")
    installed, constraint = FOLDER / "installed", FOLDER / "torch-constraint.txt"
    if not installed.exists():
        print(
            f"installing {TORCH} and {TORCHVISION}{size_of_torch()}; this takes minutes", flush=True
        )
        venv.create(FOLDER, with_pip=True)
        # PyTorch comes first, and torchvision and spandrel without their own requirement of it: a
        # second, larger build of PyTorch would be installed otherwise. The pack runs with spandrel
        # 0.4.0; benchmarks and tests compare with the FDAT of 0.4.2.
        install(*TORCH.split())
        lines = [line for line in pip("freeze").splitlines() if line.startswith("torch==")]
        constraint.write_text("\n".join(lines) + "\n", encoding="utf-8")
        install("--no-deps", *TORCHVISION.split(), "spandrel>=0.4.2")
    install(
        *("-c", str(constraint), "einops", "safetensors", "psutil", "typing_extensions"),
        *("-r", "requirements-cli.txt", "-r", "requirements-tools.txt"),
        *(["-r", "requirements-test.txt"] if options.tests else []),
    )
    installed.touch()
    if options.tests:
        (FOLDER / "installed-test").touch()
    print(f"ready: {PYTHON.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
