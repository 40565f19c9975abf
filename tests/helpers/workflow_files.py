"""The example workflows: reading them, and what the interface would send to the host to run
them."""

from __future__ import annotations

import json
from typing import Any

from tests.helpers.paths import ROOT

FOLDER = ROOT / "example_workflows"
WORKFLOWS = sorted(path.stem for path in FOLDER.glob("*.json"))
ACTIVE = 0  # a node's mode; others are muted or bypassed
NOTES = {"MarkdownNote", "Note"}  # the interface's own


def read_workflow(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def api_graph(workflow: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The API format, of the nodes that are not muted: {id: {class_type, inputs}}."""
    nodes = {
        node["id"]: node
        for node in workflow["nodes"]
        if node["mode"] == ACTIVE and node["type"] not in NOTES
    }
    graph: dict[str, dict[str, Any]] = {
        str(number): {
            "class_type": node["type"],
            "inputs": dict(node.get("widgets_values_named", {})),
        }
        for number, node in nodes.items()
    }
    for _, source, slot, target, index, _ in workflow["links"]:
        if source in nodes and target in nodes:
            graph[str(target)]["inputs"][nodes[target]["inputs"][index]["name"]] = [
                str(source),
                slot,
            ]
    return graph
