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
import torch
from spandrel import MAIN_REGISTRY, ModelLoader

from fdat_dense_iso.arch import ModelLoadError, describe, load_model, more, parse_options, registry
from fdat_dense_iso.upscale import upscale_image
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


@pytest.fixture
def followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the page as ``fdat_dense_iso.arch.more.fsrcnn``, listed as the page says."""
    name = "fdat_dense_iso.arch.more.fsrcnn"
    (tmp_path / "fsrcnn.py").write_text(code_blocks()["arch/more/fsrcnn.py"], encoding="utf-8")
    monkeypatch.setattr(more, "__path__", [*more.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    module = importlib.import_module(name)
    architectures = (*registry.ARCHITECTURES, module.ARCHITECTURE)
    for file in ("registry", "load", "options"):
        monkeypatch.setattr(f"fdat_dense_iso.arch.{file}.ARCHITECTURES", architectures)
    yield module
    del sys.modules[name], more.fsrcnn  # type: ignore[attr-defined]


def test_the_page_names_two_places_and_the_entry_fits_the_list() -> None:
    steps = code_blocks()
    assert list(steps) == ["arch/more/fsrcnn.py", "arch/more/__init__.py"]
    entry = steps["arch/more/__init__.py"]
    assert re.fullmatch(r'    "\w+",\n', entry)
    source = (ROOT / "arch" / "more" / "__init__.py").read_text(encoding="utf-8")
    assert re.search(r"MODULES = \(\n(    \"\w+\",\n)+\)", source)


def test_it_loads_with_its_option_and_runs_in_tiles(followed: ModuleType) -> None:
    config = followed.FSRCNNArch.examples[0]
    state_dict = followed.FSRCNN(config).state_dict()
    wrapped = {"params": {f"module.{key}": value for key, value in state_dict.items()}}
    with pytest.raises(ModelLoadError, match="pass the option scale="):
        load_model(wrapped)
    with pytest.raises(ModelLoadError, match="FSRCNN has no such option: heads; it has: scale"):
        load_model(wrapped, heads=3)
    model = load_model(wrapped, **parse_options("scale=3"))
    assert {"Architecture: FSRCNN", "Scale: x3", "Channels: 1 (grey)"} <= set(
        describe(model).splitlines()
    )
    image = torch.rand(1, 20, 60, 3, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = upscale_image(model, image, mode="whole")
        tiles = upscale_image(model, image, mode="tile", tile=40, overlap=20)
    difference = (tiles - whole).abs().amax((0, 1, 3))
    assert difference[: 20 * 3].max() <= 1e-5 and difference[40 * 3 :].max() <= 1e-5


def test_it_is_named_as_supported(followed: ModuleType) -> None:
    with pytest.raises(ModelLoadError, match=r"Supported: FDAT, .*FSRCNN"):
        load_model({"a": torch.zeros(3)})


def test_loads_for_other_nodes_too(followed: ModuleType) -> None:
    """As ComfyUI's own loader does it, from spandrel's registry."""
    spandrels = MAIN_REGISTRY.copy()
    registry.install(spandrels)
    state_dict = followed.FSRCNN(followed.FSRCNNArch.examples[0]).state_dict()
    claims = [support.architecture.id for support in spandrels if support.detect(state_dict)]
    assert claims == ["FSRCNN"]
    with pytest.raises(ModelLoadError, match="pass the option scale="):  # which others can't pass
        ModelLoader(registry=spandrels).load_from_state_dict(state_dict)
    assert "FSRCNN" not in [support.architecture.id for support in MAIN_REGISTRY]
