"""What `tools.structure` counts, on a small house whose answers are known."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from tools.structure import House, circles, longest_chain, main, packages, read_house

FILES = {
    "nodes.py": "from .arch import load\nfrom .upscale.image import run as go\n",
    "cpu.py": "import os.path\n",
    "arch/__init__.py": "from .load import load\n",
    "arch/load.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .fdat import network\n",
    "arch/fdat/__init__.py": "",
    "arch/fdat/network.py": "def late():\n    from ..guards import *\n    from ... import cpu\n",
    "arch/guards.py": "import torch.nn\nfrom fdat_dense_iso.common.tiling import plan\n",
    "common/tiling.py": "from . import ramps\n",
    "common/ramps.py": "import fdat_dense_iso.common.tiling\nfrom . import ramps\n",
    "upscale/image.py": "from collections import abc\n",
    "tests/arch/test_load.py": "from fdat_dense_iso import arch\n",
}


@pytest.fixture
def house(tmp_path: Path) -> House:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return read_house(tmp_path)


@pytest.mark.parametrize(
    ("file", "ours", "others"),
    [
        ("nodes.py", {"arch/load.py", "upscale/image.py"}, set()),
        ("cpu.py", set(), {"os.path"}),
        ("arch/__init__.py", {"arch/load.py"}, set()),
        ("arch/load.py", {"arch/fdat/network.py"}, {"typing.TYPE_CHECKING"}),
        ("arch/fdat/network.py", {"arch/guards.py", "cpu.py"}, set()),
        ("arch/guards.py", {"common/tiling.py"}, {"torch.nn"}),
        ("common/ramps.py", {"common/tiling.py"}, set()),
        ("tests/arch/test_load.py", {"arch/__init__.py"}, set()),
    ],
)
def test_every_import_is_found(house: House, file: str, ours: set[str], others: set[str]) -> None:
    """Lazy, for types only, relative, absolute, of a module and of a name in it."""
    source = house[PurePosixPath(file)]
    assert ({str(path) for path in source.ours}, source.others) == (ours, others)
    assert source.lines == FILES[file].count("\n")


def test_circles_and_floors(house: House) -> None:
    assert [[str(path) for path in group] for group in circles(house)] == [
        ["common/ramps.py", "common/tiling.py"]
    ]
    assert [str(path) for path in longest_chain(house)] == [
        "arch/__init__.py",
        "arch/load.py",
        "arch/fdat/network.py",
        "arch/guards.py",
    ]


def test_packages_are_folders_and_tests_are_one(house: House) -> None:
    assert {name: len(files) for name, files in packages(house).items()} == {
        ".": 2,
        "arch": 3,
        "arch/fdat": 2,
        "common": 2,
        "upscale": 1,
        "tests": 1,
    }


def test_the_page_of_this_house(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    page = capsys.readouterr().out
    assert page.startswith("sources: ") and "\ncircles of imports: " in page
    assert "\nlongest chain of floors in arch/: " in page and "\narch/fdat/engine " in page
