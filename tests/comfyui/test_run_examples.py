"""Every example workflow runs to its end on the bundled model. `browser.mjs` loads them as a user
does."""

from __future__ import annotations

import numpy
import pytest
from PIL import Image

from tests.comfyui.server import PACK, PACK_NAME, Client
from tests.helpers.workflow_files import ACTIVE, WORKFLOWS, api_graph, read_workflow

pytestmark = pytest.mark.comfyui


@pytest.mark.parametrize("name", WORKFLOWS)
def test_runs_to_its_end(client: Client, name: str) -> None:
    coffee = Image.open(PACK / "samples" / "coffee.png").convert("RGB").resize((150, 100))
    client.upload("example.png", numpy.asarray(coffee))
    outcome = client.run(api_graph(read_workflow(name)))
    assert outcome.status == "success", outcome.error
    shown = [entry for entries in outcome.images.values() for entry in entries]
    videos = [client.get("/view", **entry) for entry in shown if entry["filename"].endswith(".mp4")]
    pictures = [client.image(entry) for entry in shown if entry["filename"].endswith(".png")]
    assert videos or pictures
    assert all(video[4:8] == b"ftyp" and len(video) > 1000 for video in videos)
    assert not pictures or max(picture.std() for picture in pictures) > 20


def test_hires_fix_is_ready_for_a_checkpoint(client: Client) -> None:
    """Un-muted, with a file that is no real checkpoint: the host accepts the graph and fails in
    loading it alone."""
    folder = client.host.base / "models" / "checkpoints"
    folder.mkdir(exist_ok=True)
    (folder / "mine.safetensors").touch()
    workflow = read_workflow("upscale_hires_fix")
    for node in workflow["nodes"]:
        node["mode"] = ACTIVE
    graph = api_graph(workflow)
    loader = next(
        number for number, node in graph.items() if node["class_type"] == "CheckpointLoaderSimple"
    )
    graph[loader]["inputs"]["ckpt_name"] = "mine.safetensors"
    client.upload("example.png", numpy.full((64, 64, 3), 128, numpy.uint8))
    assert client.run(graph).error_node == loader


def test_templates_are_offered_with_their_pictures(client: Client) -> None:
    assert set(client.get_json("/workflow_templates")[PACK_NAME]) == set(WORKFLOWS)
    for name in WORKFLOWS:
        assert client.get_json(f"/api/workflow_templates/{PACK_NAME}/{name}.json") == read_workflow(
            name
        )
        assert client.get(f"/api/workflow_templates/{PACK_NAME}/{name}.jpg").startswith(
            b"\xff\xd8\xff"
        )
