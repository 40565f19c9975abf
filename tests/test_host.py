"""What of the host's side can be tried without a host: warnings shown on a node."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest

HOST_MODULES = (
    *("comfy", "comfy.model_management", "comfy.model_patcher", "comfy.utils", "comfy.cli_args"),
    *("folder_paths", "server"),
)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What nodes show."""
    return []


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, shown: list[tuple[str, str]]) -> Iterator[ModuleType]:
    for name in HOST_MODULES:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for name in HOST_MODULES[1:5]:
        monkeypatch.setattr(sys.modules["comfy"], name[6:], sys.modules[name], raising=False)
    for name, values in {
        "comfy.model_patcher": {"ModelPatcher": object},
        "comfy.cli_args": {"LatentPreviewMethod": None, "args": None},
        "server": {
            "nodes": SimpleNamespace(
                NODE_CLASS_MAPPINGS={"LoadVideo": SimpleNamespace(CATEGORY="video")}
            ),
            "PromptServer": SimpleNamespace(
                instance=SimpleNamespace(
                    send_sync=lambda event, data: shown.append((data["node"], data["text"]))
                )
            ),
        },
    }.items():
        for key, value in values.items():
            monkeypatch.setattr(sys.modules[name], key, value, raising=False)
    assert "fdat_dense_iso.host" not in sys.modules
    yield importlib.import_module("fdat_dense_iso.host")
    del sys.modules["fdat_dense_iso.host"], sys.modules["fdat_dense_iso"].host


def test_warnings_are_shown_on_the_node(host: ModuleType, shown: list[tuple[str, str]]) -> None:
    """Each once and all together, as the host shows the last text alone; nothing afterwards."""
    ours, theirs = logging.getLogger("fdat_dense_iso.upscale.session"), logging.getLogger("others")
    with host.telling("7") as said:
        ours.info("a detail")
        ours.warning("the mask is %s", "empty")
        theirs.warning("of another pack")
        ours.warning("the mask is %s", "empty")
        ours.warning("and so on")
    ours.warning("later")
    assert shown == [("7", "the mask is empty"), ("7", "the mask is empty\nand so on")]
    assert host.note(said) == {"fdat_dense_iso_note": ["the mask is empty", "and so on"]}
    with host.telling(None) as said:  # an old host
        ours.warning("said")
    assert len(shown) == 2 and said == ["said"]
    assert host.note([]) is None


def test_menus_are_those_of_the_host(host: ModuleType) -> None:
    assert host.category("LoadVideo", "image/video") == "video"
    assert host.category("UpscaleModelLoader", "loaders") == "loaders"  # a host without it


def test_what_a_node_shows_has_600_characters(
    host: ModuleType, shown: list[tuple[str, str]]
) -> None:
    with host.telling("7"):
        logging.getLogger(host.__package__).warning("not kept: %s", "name\x1b[31m " * 999)
    host.announce("7", "taken: " + "x" * 9999)
    assert len(shown) == 2
    assert all(len(text) <= 600 and text.isprintable() for _, text in shown)
