"""The schemas of the nodes, read off `nodes.py` with stand-ins for the host's modules."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, patch

from tests.helpers.paths import ROOT

PACK = "pack_with_stand_ins"

Texts = dict[str, Any]
"""As in a host's ``nodeDefs.json``: display_name, description, inputs by id, outputs by
position."""


class Recorder:
    """Stands for any class or namespace of the host: a call gives an object that holds what it was
    called with."""

    def __getattr__(self, name: str) -> Recorder:
        return Recorder()

    def __call__(self, *args: Any, **fields: Any) -> SimpleNamespace:
        return SimpleNamespace(**({"id": args[0]} if args else {}), **fields)


class Everything:
    def __contains__(self, name: object) -> bool:
        return True


def node_schemas() -> list[SimpleNamespace]:
    """What every node's ``define_schema`` gives."""
    api, io = ModuleType("comfy_api.latest"), Recorder()
    io.ComfyNode = type("ComfyNode", (), {})  # type: ignore[attr-defined]
    io.Schema = type("Schema", (SimpleNamespace,), {"__dataclass_fields__": Everything()})  # type: ignore[attr-defined]
    api.io, api.ComfyExtension = io, object  # type: ignore[attr-defined]
    api.__getattr__ = lambda name: Recorder()  # type: ignore[method-assign]
    spec = importlib.util.spec_from_file_location(
        PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None
    stand_ins = {
        "comfy_api": ModuleType("comfy_api"),
        "comfy_api.latest": api,
        PACK: importlib.util.module_from_spec(spec),
        f"{PACK}.host": MagicMock(),
    }
    with patch.dict(sys.modules, stand_ins):
        modules = [
            importlib.import_module(f"{PACK}.{path.stem}")
            for path in sorted(ROOT.glob("nodes*.py"))
        ]
        classes = [
            value
            for module in modules
            for value in vars(module).values()
            if isinstance(value, type)
        ]
        return [
            node.define_schema()
            for node in dict.fromkeys(classes)
            if hasattr(node, "define_schema")
        ]


def texts(schema: SimpleNamespace) -> Texts:
    """The English texts of a node."""
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {one.id: {"name": one.id, "tooltip": one.tooltip} for one in schema.inputs},
        "outputs": {
            str(index): {"name": one.display_name, "tooltip": one.tooltip}
            for index, one in enumerate(schema.outputs)
        },
    }
