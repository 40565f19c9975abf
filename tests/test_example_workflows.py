"""The example workflows fit the nodes as they are now."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from PIL import Image

from tests.helpers.workflow_files import ACTIVE, FOLDER, NOTES, WORKFLOWS, api_graph, read_workflow
from tools.node_schemas import node_schemas

SCHEMAS = {schema.node_id: schema for schema in node_schemas()}


def test_every_use_has_its_example() -> None:
    uses = ("image", "video", "seamless_texture", "with_mask", "hires_fix")
    assert set(WORKFLOWS) >= {"restore_then_upscale", *(f"upscale_{use}" for use in uses)}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_picture(name: str) -> None:
    """The host's list of templates shows it, if it is a JPEG, in a square of about 240 pixels."""
    file = FOLDER / f"{name}.jpg"
    with Image.open(file) as picture:
        assert picture.format == "JPEG" and picture.width == picture.height >= 2 * 240
    assert file.stat().st_size < 100_000


@pytest.mark.parametrize("name", WORKFLOWS)
def test_note_says_what_to_do_first(name: str) -> None:
    workflow = read_workflow(name)
    (note,) = [node for node in workflow["nodes"] if node["type"] in NOTES]
    first = note["widgets_values_named"]["text"].splitlines()[0]
    loader = next(node for node in workflow["nodes"] if node["type"] == "LoadImage")
    assert f"photograph of yours in *{loader.get('title', 'Load Image')}*" in first
    assert first.endswith("then press *Run*.")


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
DRAWN = {"FDATDenseIsoLoader": 176, "FDATDenseIsoUpscale": 524, "FDATDenseIsoUpscaleVideo": 588}
TITLE = 30
SLOT = 20  # from one socket to the next
Box = tuple[float, float, float, float]
Point = tuple[float, float]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_nodes_have_room(name: str) -> None:
    """Nodes 2.0 makes a node as high as its contents; none may cover another or leave its group."""
    workflow = read_workflow(name)
    boxes = drawn_boxes(workflow)
    groups = [(x, y, x + w, y + h) for x, y, w, h in (g["bounding"] for g in workflow["groups"])]
    for number, box in boxes.items():
        others = [other for key, other in boxes.items() if key != number]
        assert not any(meet(box, other) for other in others), number
        assert all(holds(group, box) for group in groups if meet(box, group)), number


@pytest.mark.parametrize("name", WORKFLOWS)
def test_wires_run_beside_nodes(name: str) -> None:
    """One sees where each begins and ends: none passes behind a node, its own ones included."""
    workflow = read_workflow(name)
    boxes = drawn_boxes(workflow)
    for link in workflow["links"]:
        for x, y in wire(workflow, link):
            behind = [number for number, box in boxes.items() if meet((x, y, x, y), box)]
            assert not behind, (link, behind)


def drawn_boxes(workflow: dict[str, Any]) -> dict[int, Box]:
    """Left, top, right and bottom of every node by its number."""
    boxes = {}
    for node in workflow["nodes"]:
        (left, top), (width, height) = node["pos"], node["size"]
        height = max(height + TITLE, DRAWN.get(node["type"], 0))
        boxes[node["id"]] = (left, top - TITLE, left + width, top - TITLE + height)
    return boxes


def wire(workflow: dict[str, Any], link: list[Any]) -> list[Point]:
    """Points of a link: the curve that the interface draws, or, where it has bends ("reroutes"),
    the lines between them."""
    number, source, slot, target, index, _ = link
    nodes = {node["id"]: node for node in workflow["nodes"]}
    (x, y), (width, _) = nodes[source]["pos"], nodes[source]["size"]
    start = (x + width, y + SLOT * (slot + 0.7))
    x, y = nodes[target]["pos"]
    sockets = [entry["name"] for entry in nodes[target]["inputs"] if "widget" not in entry]
    row = sockets.index(nodes[target]["inputs"][index]["name"])
    end = (x, y + SLOT * (row + 0.7))
    extra = workflow["extra"]
    bends = {bend["id"]: bend for bend in extra.get("reroutes", [])}
    last = {one["id"]: one["parentId"] for one in extra.get("linkExtensions", [])}.get(number)
    corners = [end]
    while last is not None:
        corners.insert(0, tuple(bends[last]["pos"]))
        last = bends[last].get("parentId")
    corners.insert(0, start)
    share = 0.25 * math.dist(start, end) if len(corners) == 2 else 0.0
    return [
        curve(one, other, share, step / 100)
        for one, other in pairwise(corners)
        for step in range(1, 100)
    ]


def curve(start: Point, end: Point, share: float, at: float) -> Point:
    """A point of the cubic Bézier curve whose handles reach ``share`` to the right of its start and
    to the left of its end."""
    weights = ((1 - at) ** 3, 3 * at * (1 - at) ** 2, 3 * at**2 * (1 - at), at**3)
    points = (start, (start[0] + share, start[1]), (end[0] - share, end[1]), end)
    x, y = (sum(w * point[axis] for w, point in zip(weights, points)) for axis in (0, 1))
    return x, y


def meet(one: Box, other: Box) -> bool:
    left, top, right, bottom = one
    return left < other[2] and other[0] < right and top < other[3] and other[1] < bottom


def holds(one: Box, other: Box) -> bool:
    left, top, right, bottom = other
    return one[0] <= left and one[1] <= top and right <= one[2] and bottom <= one[3]
