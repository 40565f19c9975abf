"""What the host tells the interface of the nodes."""

from __future__ import annotations

import pytest

from tests.comfyui.graphs import (
    LOADER,
    UPSCALER,
)
from tests.comfyui.server import PACK, PACK_NAME, Client

pytestmark = pytest.mark.comfyui


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
