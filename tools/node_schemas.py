"""The nodes without ComfyUI: `nodes.py` imported with stand-ins for the host's modules."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

PACK = "fdat_dense_iso"

Texts = dict[str, Any]
"""As in a host's ``nodeDefs.json``: display_name, description, inputs by id, outputs by
position."""


class Recorder:
    """Stands for any class or namespace of the host: a call gives an object that holds what it was
    called with."""

    def __getattr__(self, name: str) -> Recorder:
        if name.startswith("__"):
            raise AttributeError(name)
        return Recorder()

    def __call__(self, *args: Any, **fields: Any) -> SimpleNamespace:
        return SimpleNamespace(**({"id": args[0]} if args else {}), **fields)


class _Everything:
    def __contains__(self, name: object) -> bool:
        return True


@contextlib.contextmanager
def imported_nodes() -> Iterator[ModuleType]:
    """The module `nodes`, imported anew; ``sys.modules`` is as before afterwards."""
    api, io = ModuleType("comfy_api.latest"), Recorder()
    io.ComfyNode = type("ComfyNode", (), {})  # type: ignore[attr-defined]
    io.Schema = type("Schema", (SimpleNamespace,), {"__dataclass_fields__": _Everything()})  # type: ignore[attr-defined]
    api.io, api.ComfyExtension = io, object  # type: ignore[attr-defined]
    api.InputImpl = api.ui = Recorder()  # type: ignore[attr-defined]
    host = Recorder()
    host.model_names = list  # type: ignore[attr-defined]
    host.telling = lambda node: contextlib.nullcontext()  # type: ignore[attr-defined]
    places: dict[str, Any] = {
        "comfy_api": ModuleType("comfy_api"),
        "comfy_api.latest": api,
        f"{PACK}.host": host,
        f"{PACK}.node_inputs": None,
        f"{PACK}.nodes": None,
    }
    before = {name: sys.modules.pop(name, None) for name in places}
    sys.modules |= {name: module for name, module in places.items() if module is not None}
    try:
        yield importlib.import_module(f"{PACK}.nodes")
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def node_schemas() -> list[SimpleNamespace]:
    """What every node's ``define_schema`` gives."""
    with imported_nodes() as nodes:
        classes = [one for one in vars(nodes).values() if isinstance(one, type)]
        return [node.define_schema() for node in classes if hasattr(node, "define_schema")]


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
