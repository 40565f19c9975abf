"""What the host tells the interface of the nodes."""

from __future__ import annotations

import pytest

from tests.comfyui.graphs import CORE_LOADER, CORE_UPSCALER, LOADER, UPSCALER
from tests.comfyui.server import PACK, PACK_NAME, Client

pytestmark = pytest.mark.comfyui

INFO, VIDEO = "FDATDenseIsoModelInfo", "FDATDenseIsoUpscaleVideo"


@pytest.mark.parametrize("node", [LOADER, UPSCALER])
def test_node_describes_itself(client: Client, node: str) -> None:
    description = client.get_json(f"/object_info/{node}")[node]
    assert description["python_module"] == f"custom_nodes.{PACK_NAME}"
    assert description["description"]
    inputs = {**description["input"]["required"], **description["input"].get("optional", {})}
    without_tooltip = [
        name
        for name, (_, *options) in inputs.items()
        if not (options and options[0].get("tooltip"))
    ]
    assert without_tooltip == []
    assert all(description["output_tooltips"])


@pytest.mark.parametrize(
    ("node", "sibling"),
    [(LOADER, CORE_LOADER), (INFO, CORE_LOADER), (UPSCALER, CORE_UPSCALER), (VIDEO, "LoadVideo")],
)
def test_nodes_stand_beside_the_hosts_own(client: Client, node: str, sibling: str) -> None:
    found = [client.get_json(f"/object_info/{name}")[name]["category"] for name in (node, sibling)]
    assert found[0] == found[1]


@pytest.mark.parametrize("node", [LOADER, UPSCALER, VIDEO])
def test_what_hardly_anybody_changes_is_folded(client: Client, node: str) -> None:
    """Where the host knows of that: ComfyUI 0.3.64 and 0.8.0 do not."""
    description = client.get_json(f"/object_info/{node}")[node]["input"]
    inputs = {**description["required"], **description.get("optional", {})}
    folded = {name for name, (_, *options) in inputs.items() if options[0].get("advanced")}
    version = tuple(map(int, client.host.version.split(".")[:2]))
    if version <= (0, 8):
        assert not folded
    elif version >= (0, 33):
        open_ = {"model_name", "upscale_model", "image", "video", "mode", "target", "seamless"}
        assert set(inputs) - folded <= open_ | {"mask", "codec", "crf"}


@pytest.mark.parametrize("node", [LOADER, UPSCALER])
def test_help_page_is_served(client: Client, node: str) -> None:
    page = client.get(f"/extensions/{PACK_NAME}/docs/{node}.md").decode()
    assert page.startswith("# ")


def test_bundled_models_are_offered(client: Client) -> None:
    bundled = {path.name for path in (PACK / "models").glob("*.safetensors")}
    _, options = client.get_json(f"/object_info/{LOADER}")[LOADER]["input"]["required"][
        "model_name"
    ]
    assert bundled
    assert bundled <= set(options["options"])


def test_pack_loads_without_a_complaint(client: Client) -> None:
    log = client.host.log()
    assert PACK_NAME in log
    assert "IMPORT FAILED" not in "".join(line for line in log.splitlines() if PACK_NAME in line)
