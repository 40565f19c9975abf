"""docs/adding-an-architecture.md, followed to the letter: its code is written to files, imported
and run."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from spandrel import MAIN_REGISTRY, ModelLoader

from fdat_dense_iso import arch
from fdat_dense_iso.arch import registry
from tests.helpers.paths import ROOT

PAGE = ROOT / "docs" / "adding-an-architecture.md"


def code_blocks() -> dict[str, str]:
    """The Python code of the page, by the file that the first line of each block names."""
    blocks = re.findall(
        r"^```python\n# (\S+)\n(.*?)^```$",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    return dict(blocks)


@pytest.fixture(scope="module")
def steps() -> dict[str, str]:
    return code_blocks()


@pytest.fixture
def followed(
    steps: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """The module of the page as ``fdat_dense_iso.arch.espcn``, registered as the page says."""
    before = set(sys.modules)
    (tmp_path / "espcn.py").write_text(steps["arch/espcn.py"], encoding="utf-8")
    (tmp_path / "test_espcn.py").write_text(steps["tests/arch/test_espcn.py"], encoding="utf-8")
    monkeypatch.setattr(arch, "__path__", [*arch.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    module = importlib.import_module("fdat_dense_iso.arch.espcn")
    monkeypatch.setattr(registry, "ARCHITECTURES", (*registry.ARCHITECTURES, module.ESPCNArch))
    yield module
    for name in set(sys.modules) - before:
        if name in ("fdat_dense_iso.arch.espcn", "test_espcn"):
            del sys.modules[name]
    del arch.espcn  # type: ignore[attr-defined]


def test_the_page_names_a_file_for_each_step(steps: dict[str, str]) -> None:
    assert list(steps) == ["arch/espcn.py", "arch/registry.py", "tests/arch/test_espcn.py"]


def test_the_entry_is_todays_list_and_the_new_one(steps: dict[str, str]) -> None:
    source = (ROOT / "arch" / "registry.py").read_text(encoding="utf-8")
    (line,) = (line for line in source.splitlines() if line.startswith("ARCHITECTURES"))
    assert line.replace(")", ", ESPCNArch)") in steps["arch/registry.py"]


def test_the_test_of_the_page_passes(followed: ModuleType, tmp_path: Path) -> None:
    arguments = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path / "test_espcn.py"),
    ]
    assert pytest.main(arguments) == pytest.ExitCode.OK


def test_loads_for_other_nodes_too(followed: ModuleType) -> None:
    """As ComfyUI's own loader does it, from spandrel's registry."""
    spandrels = MAIN_REGISTRY.copy()
    registry.install(spandrels)
    state_dict = followed.ESPCN(followed.ESPCNConfig(scale=4)).state_dict()
    claims = [support.architecture.id for support in spandrels if support.detect(state_dict)]
    assert claims == ["ESPCN"]
    loaded = ModelLoader(registry=spandrels).load_from_state_dict(state_dict)
    assert (loaded.architecture.id, loaded.scale) == ("ESPCN", 4)
    assert "ESPCN" not in [support.architecture.id for support in MAIN_REGISTRY]
