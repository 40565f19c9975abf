"""Dense-Iso-ViT in a real ComfyUI: a large picture through core's node and this pack's, and the
loader's options."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file

from fdat_dense_iso.arch import load_model
from fdat_dense_iso.arch.dense_iso.config import DenseIsoViTConfig, pixel_shuffle_head
from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT
from fdat_dense_iso.upscale import upscale_image
from tests.comfyui.graphs import (
    CORE_LOADER,
    CORE_UPSCALER,
    LOADER,
    UPSCALER,
    assert_same,
    graph,
    saved,
    to_tensor,
)
from tests.comfyui.server import Client, Graph, PromptRejected

pytestmark = pytest.mark.comfyui

SIDE = 1024
# Core cuts tiles of 512 pixels with 32 in common: 0-512, 480-992, 960-1024. Windows of 64 pixels
# start at multiples of 48, in the tiles too, since those start at multiples of 480. But the last
# window of a tile is shifted back to fit, in the first tile to 448: it takes over from the one at
# 432 in the middle of what they share, from pixel 468 on, and up to pixel 512 two tiles are
# blended. The second tile ends likewise. Everywhere else both nodes run the same windows.
TILE_BORDERS = ((468, 512), (948, 992))


@pytest.fixture(scope="module")
def checkpoint(client: Client) -> str:
    """The file name of a x4 Dense-Iso-ViT for windows of 64 pixels, small enough for a few
    seconds."""
    torch.manual_seed(0)
    head = pixel_shuffle_head(fusion_width=8, widths=(8, 8, 4, 4))
    model = DenseIsoViT(DenseIsoViTConfig(dims=(8, 16), depths=(1,), heads=(2, 2), head=head))
    with torch.no_grad():
        for parameter in (
            model.parameters()
        ):  # as initialised it would be little more than bilinear interpolation
            if parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
        model.get_parameter("head.5.weight").mul_(0.2)
    save_file(model.state_dict(), client.host.models / "windows_of_64.safetensors")
    return "windows_of_64.safetensors"


def both_nodes(picture: str, checkpoint: str, loader: str, result: Path) -> Graph:
    workflow = graph(picture, loader, checkpoint, CORE_UPSCALER)
    ours = {"upscale_model": ["loader", 0], "image": ["picture", 0]}
    workflow["ours"] = {"class_type": UPSCALER, "inputs": ours}
    compared = {"first": ["ours", 0], "second": ["upscaler", 0], "path": str(result)}
    workflow["save"] = {"class_type": "OtherPackCompare", "inputs": compared}
    return workflow


@pytest.mark.parametrize("loader", [CORE_LOADER, LOADER])
def test_large_picture_through_cores_node_and_ours(
    client: Client, checkpoint: str, picture: numpy.ndarray, loader: str, tmp_path: Path
) -> None:
    large = numpy.tile(picture, (14, 10, 1))[:SIDE, :SIDE]
    outcome = client.run(
        both_nodes(client.upload("large.png", large), checkpoint, loader, tmp_path / "both.npz")
    )
    assert outcome.status == "success", outcome.error
    with numpy.load(tmp_path / "both.npz") as both:
        difference, deviation = both["difference"], float(both["deviation"])
    (tmp_path / "both.npz").unlink()
    assert difference.shape == (4 * SIDE, 4 * SIDE)
    assert deviation > 0.03  # nothing could be seen in a flat picture
    kept = numpy.ones(4 * SIDE, dtype=bool)
    for start, end in TILE_BORDERS:
        kept[4 * start : 4 * end] = False
    assert difference[numpy.ix_(kept, kept)].max() <= 1e-3
    assert difference.max() > 1e-2  # the borders of core's tiles can be seen


@pytest.mark.parametrize("options", ["", "gated_half=first; heads=4", "skip=none"])
def test_options_of_the_loader(
    client: Client, dense_iso: str, picture: numpy.ndarray, options: str
) -> None:
    workflow = graph(client.upload("picture.png", picture), LOADER, dense_iso, UPSCALER)
    workflow["loader"]["inputs"]["options"] = options
    (pixels,) = saved(client, client.run(workflow))
    known = dict(pair.strip().split("=") for pair in options.split(";") if pair)
    model = load_model(client.host.models / dense_iso, **known)
    assert_same(pixels, upscale_image(model, to_tensor(picture)))


def test_options_from_another_node(client: Client, dense_iso: str, picture: numpy.ndarray) -> None:
    """Linked values are unknown when the host validates a graph."""
    workflow = graph(client.upload("picture.png", picture), LOADER, dense_iso, UPSCALER)
    workflow["loader"]["inputs"]["options"] = ["text", 0]
    workflow["text"] = {"class_type": "PrimitiveString", "inputs": {"value": "gated_half=third"}}
    outcome = client.run(workflow)
    assert outcome.error_node == "loader"
    assert "gated_half='third': expected one of second, first" in outcome.error


@pytest.mark.parametrize(
    ("options", "message"), [("heads", "write NAME=VALUE"), ("colour=red", "unknown option")]
)
def test_bad_options_are_refused_before_any_work(
    client: Client, dense_iso: str, picture: numpy.ndarray, options: str, message: str
) -> None:
    workflow = graph(client.upload("picture.png", picture), LOADER, dense_iso, UPSCALER)
    workflow["loader"]["inputs"]["options"] = options
    with pytest.raises(PromptRejected) as refusal:
        client.queue(workflow)
    (found,) = refusal.value.node_errors["loader"]
    assert message in found
    assert client.idle()
