"""Networks of several frames in a real ComfyUI: the nodes of this pack give them neighbours, and
core's node repeats each picture."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file

from tests.comfyui.server import Client, Graph
from tests.helpers.parity import weight

pytest.importorskip("av")
from fdat_dense_iso.arch import load_model
from fdat_dense_iso.arch.more.temporalspan import TemporalSPANArch, TemporalSPANConfig
from fdat_dense_iso.video import Encoding, VideoFile, VideoJob
from tests.arch.more.test_clip import SEEN
from tests.comfyui.test_videos import saved
from tests.helpers.video_cases import Clip, probe, write_clip

pytestmark = pytest.mark.comfyui

NAME = "temporal.safetensors"
LOSSLESS = {"crf": 0, "pixel_format": "yuv444p"}


class TwoScenes(Clip):
    """A clip that is upside down, and darker, from its fifth frame on."""

    def planes(self, number: int) -> list[numpy.ndarray]:
        planes = super().planes(number)
        return planes if number < 4 else [plane[::-1] * 6 // 10 for plane in planes]


CLIP = TwoScenes(frames=7, height=35, width=51, pixel_format="yuv444p")


@pytest.fixture(scope="session")
def temporal(client: Client) -> str:
    """A TemporalSPAN of random weights, x2, whose results are pictures of some contrast."""
    network = TemporalSPANArch().build(TemporalSPANConfig(width=16, history=4, scale=2))
    tensors = {k: weight(k, tuple(v.shape)).float() for k, v in network.state_dict().items()}
    tensors["upsampler.0.weight"] *= 0.4
    tensors["upsampler.0.bias"] += 0.5
    save_file(tensors, client.host.models / NAME)
    return NAME


def upscaled(network: torch.nn.Module, frames: list[torch.Tensor], seen: list[int]) -> torch.Tensor:
    """What the network makes of frames (H, W, 3), the middle one of those seen."""
    clip = torch.stack([frames[i] for i in seen]).permute(0, 3, 1, 2)[None]
    with torch.inference_mode():
        return network(clip)[0].clamp(0, 1).permute(1, 2, 0)


def batch_of(client: Client, frames: list[torch.Tensor]) -> tuple[Graph, str]:
    """Nodes that load pictures as one batch, and the name of the last one."""
    nodes: Graph = {}
    for number, frame in enumerate(frames):
        name = client.upload(f"frame{number}.png", (frame * 255).round().byte().numpy())
        nodes[f"load{number}"] = {"class_type": "LoadImage", "inputs": {"image": name}}
        if number:
            before = f"batch{number - 1}" if number > 1 else "load0"
            both = {"image1": [before, 0], "image2": [f"load{number}", 0]}
            nodes[f"batch{number}"] = {"class_type": "ImageBatch", "inputs": both}
    return nodes, f"batch{len(frames) - 1}"


def frames_of(path: Path) -> list[torch.Tensor]:
    with VideoFile(path) as video:
        return [item.rgb() for item in video if hasattr(item, "rgb")]


def in_8_bit(frames: list[torch.Tensor]) -> list[torch.Tensor]:
    """As a PNG holds them."""
    return [(frame * 255).round() / 255 for frame in frames]


def graph(client: Client, model: str) -> Graph:
    write_clip(client.host.base / "input" / "scenes.mp4", CLIP)
    return {
        "loader": {"class_type": "FDATDenseIsoLoader", "inputs": {"model_name": model}},
        "video": {"class_type": "LoadVideo", "inputs": {"file": "scenes.mp4"}},
        "save": {
            "class_type": "SaveVideo",
            "inputs": {
                "video": ["upscaler", 0],
                "filename_prefix": "clips",
                "format": "auto",
                "codec": "auto",
            },
        },
    }


@pytest.mark.parametrize("pictures", [False, True], ids=["file", "pictures in memory"])
def test_video_node(client: Client, temporal: str, tmp_path: Path, pictures: bool) -> None:
    workflow = graph(client, temporal)
    workflow["upscaler"] = {
        "class_type": "FDATDenseIsoUpscaleVideo",
        "inputs": {"upscale_model": ["loader", 0], "video": ["video", 0], **LOSSLESS},
    }
    source = client.host.base / "input" / "scenes.mp4"
    frames = frames_of(source)
    if pictures:
        frames = in_8_bit(frames)
        nodes, last = batch_of(client, frames)
        workflow |= nodes
        workflow["create"] = {
            "class_type": "CreateVideo",
            "inputs": {"images": [last, 0], "fps": 25.0},
        }
        workflow["upscaler"]["inputs"]["video"] = ["create", 0]
    found = saved(client, client.run(workflow))
    network = load_model(client.host.models / temporal).model
    results = iter([upscaled(network, frames, seen) for seen in SEEN])

    def upscale(drawn, deliver, *, progress) -> None:  # type: ignore[no-untyped-def]
        for _ in drawn:
            deliver(next(results))

    with VideoFile(source) as video:
        job = VideoJob(video, tmp_path / "out.mp4", size=(70, 102), encoding=Encoding(**LOSSLESS))
        job.run(upscale)
    expected = probe(tmp_path / "out.mp4")
    for one, other in zip(found.luma, expected.luma, strict=True):
        assert one.shape == (70, 102) and one.std() > 5
        assert abs(one.astype(int) - other).max() <= 1


def test_batch_of_pictures_and_core_node(client: Client, temporal: str) -> None:
    """The picture node takes a batch for a video; core's node sees one picture at a time."""
    for node, seen in (
        ("FDATDenseIsoUpscale", SEEN),
        ("ImageUpscaleWithModel", [[i] * 5 for i in range(7)]),
    ):
        workflow = graph(client, temporal)
        frames = in_8_bit(frames_of(client.host.base / "input" / "scenes.mp4"))
        nodes, last = batch_of(client, frames)
        workflow |= nodes
        workflow["upscaler"] = {
            "class_type": node,
            "inputs": {"upscale_model": ["loader", 0], "image": [last, 0]},
        }
        workflow["save"] = {
            "class_type": "SaveImage",
            "inputs": {"images": ["upscaler", 0], "filename_prefix": node},
        }
        outcome = client.run(workflow)
        assert outcome.status == "success", outcome.error
        network = load_model(client.host.models / temporal).model
        for entry, ones in zip(outcome.images["save"], seen, strict=True):
            expected = upscaled(network, frames, ones).numpy() * 255
            assert abs(client.image(entry).astype(float) - expected).max() <= 1.1
