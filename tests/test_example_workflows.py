"""The example workflows fit the nodes as they are now."""

from __future__ import annotations

import pytest

from tests.helpers.workflow_files import ACTIVE, FOLDER, WORKFLOWS, api_graph, read_workflow
from tools.node_schemas import node_schemas

SCHEMAS = {schema.node_id: schema for schema in node_schemas()}


def test_every_use_has_its_example() -> None:
    uses = ("image", "video", "seamless_texture", "with_mask", "hires_fix")
    assert set(WORKFLOWS) >= {"restore_then_upscale", *(f"upscale_{use}" for use in uses)}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_picture(name: str) -> None:
    """The host's list of templates shows it, if it is a JPEG."""
    assert (FOLDER / f"{name}.jpg").read_bytes().startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_nodes_are_those_of_now(name: str) -> None:
    ours = [node for node in read_workflow(name)["nodes"] if node["type"] in SCHEMAS]
    assert ours
    for node in ours:
        inputs = {one.id: one for one in SCHEMAS[node["type"]].inputs}
        assert {socket["name"] for socket in node["inputs"]} == set(inputs), (
            f"{node['type']}: save the workflow again"
        )
        assert len(node["outputs"]) == len(SCHEMAS[node["type"]].outputs)
        for widget, value in node["widgets_values_named"].items():
            options = getattr(inputs[widget], "options", [])
            # What a stand-in does not know: the host's lists, and which files a model may be.
            from_host = not isinstance(options, list) or not options or widget == "model_name"
            assert from_host or value in options, f"{node['type']} {widget}: {value!r}"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_links_join_outputs_to_inputs_of_their_type(name: str) -> None:
    workflow = read_workflow(name)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for number, source, slot, target, index, kind in workflow["links"]:
        output, entry = nodes[source]["outputs"][slot], nodes[target]["inputs"][index]
        assert number in output["links"] and entry["link"] == number
        assert kind in (output["type"], "*") and entry["type"] in (kind, "*")
    joined = {link[0] for link in workflow["links"]}
    assert joined == {
        entry["link"] for node in nodes.values() for entry in node.get("inputs", [])
    } - {None}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_what_runs_needs_nothing_that_is_muted(name: str) -> None:
    workflow = read_workflow(name)
    muted = {str(node["id"]) for node in workflow["nodes"] if node["mode"] != ACTIVE}
    graph = api_graph(workflow)
    assert graph and not muted & set(graph)
    for node in workflow["nodes"]:
        if str(node["id"]) in graph:
            wired = {entry["name"] for entry in node.get("inputs", []) if entry["link"] is not None}
            assert wired <= set(graph[str(node["id"])]["inputs"])


# in pixels, title and all inputs included, as Nodes 2.0 of ComfyUI's interface 1.58 draws them
DRAWN = {"FDATDenseIsoLoader": 176, "FDATDenseIsoUpscale": 496, "FDATDenseIsoUpscaleVideo": 548}
TITLE = 30


@pytest.mark.parametrize("name", WORKFLOWS)
def test_nodes_have_room(name: str) -> None:
    """Nodes 2.0 makes a node as high as its contents; none may cover another or leave its group."""
    workflow = read_workflow(name)
    boxes = {}
    for node in workflow["nodes"]:
        (left, top), (width, height) = node["pos"], node["size"]
        height = max(height + TITLE, DRAWN.get(node["type"], 0))
        boxes[node["id"]] = (left, top - TITLE, left + width, top - TITLE + height)
    groups = [(x, y, x + w, y + h) for x, y, w, h in (g["bounding"] for g in workflow["groups"])]
    for number, box in boxes.items():
        others = [other for key, other in boxes.items() if key != number]
        assert not any(meet(box, other) for other in others), number
        assert all(holds(group, box) for group in groups if meet(box, group)), number


def meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    left, top, right, bottom = one
    return left < other[2] and other[0] < right and top < other[3] and other[1] < bottom


def holds(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    left, top, right, bottom = other
    return one[0] <= left and one[1] <= top and right <= one[2] and bottom <= one[3]
