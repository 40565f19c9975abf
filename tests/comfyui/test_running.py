"""Caching, progress, interrupts, and checkpoints and targets that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

from fdat_dense_iso.arch import load_model
from fdat_dense_iso.upscale import upscale_image
from tests.comfyui.graphs import (
    LOADER,
    TILES,
    UPSCALER,
    assert_same,
    graph,
    saved,
    to_tensor,
)
from tests.comfyui.server import Client, PromptRejected

pytestmark = pytest.mark.comfyui


def test_replaced_checkpoint_is_loaded_again(
    client: Client, fdat: str, picture: numpy.ndarray
) -> None:
    weights = load_file(client.host.models / fdat)
    replaced = client.host.models / "replaced.safetensors"
    workflow = graph(
        client.upload("picture.png", picture), LOADER, replaced.name, UPSCALER, **TILES
    )
    for bias in (0.4, 0.6):
        weights["upsampler.0.bias"].fill_(bias)
        save_file(weights, replaced)
        (pixels,) = saved(client, client.run(workflow))
        assert_same(pixels, upscale_image(load_model(replaced), to_tensor(picture), **TILES))


def progress(events: list[dict[str, Any]]) -> list[int]:
    """How many tile batches the upscaler had done; the host leaves out what comes too fast."""
    return [
        event["data"]["value"]
        for event in events
        if event["type"] == "progress" and event["data"]["node"] == "upscaler"
    ]


def test_second_run_is_cached(client: Client, fdat: str, picture: numpy.ndarray) -> None:
    name = client.upload("cached.png", picture)
    workflow = graph(name, LOADER, fdat, UPSCALER, **TILES)
    first, second = client.run(workflow), client.run(workflow)
    assert first.status == second.status == "success"
    assert second.cached >= {"picture", "loader", "upscaler"}


def test_progress_counts_to_the_end(client: Client, fdat: str, picture: numpy.ndarray) -> None:
    name = client.upload("progress.png", picture[:, ::-1].copy())
    workflow = graph(name, LOADER, fdat, UPSCALER, **TILES, batch=1)
    events = list(client.events(workflow))
    total = next(event["data"]["max"] for event in events if event["type"] == "progress")
    assert total > 3
    assert progress(events) == sorted(set(progress(events)))
    assert progress(events)[-1] == total


@pytest.mark.parametrize(
    "options",
    [{"mode": "tile", "tile": 24, "overlap": 8, "batch": 1}, {"mode": "exact"}],
    ids=["tile", "exact"],
)
def test_interrupt_in_mid_upscale_then_success(
    client: Client, fdat: str, picture: numpy.ndarray, options: dict[str, object]
) -> None:
    large = client.upload("large.png", numpy.tile(picture, (8, 8, 1)))
    events = []
    for event in client.events(graph(large, LOADER, fdat, UPSCALER, **options)):
        if progress([event]) and not progress(events):
            client.interrupt()
        events.append(event)
    assert events[-1]["type"] == "execution_interrupted"
    assert events[-1]["data"]["node_id"] == "upscaler"
    total = next(event["data"]["max"] for event in events if event["type"] == "progress")
    assert 0 < progress(events)[-1] < total / 2

    small = client.upload("small.png", picture)
    (pixels,) = saved(client, client.run(graph(small, LOADER, fdat, UPSCALER, **TILES)))
    model = load_model(client.host.models / fdat)
    assert_same(pixels, upscale_image(model, to_tensor(picture), **TILES))


class _Exploit:
    """A pickle that makes a folder when it is loaded unsafely."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.mkdir, (self.folder,)


def truncated(path: Path) -> None:
    save_file({"conv_first.weight": torch.zeros(16, 3, 3, 3)}, path)
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.touch()


def of_another_kind(path: Path) -> None:
    save_file({"encoder.layers.0.weight": torch.zeros(4, 4)}, path)


def pickle_with_code(path: Path) -> None:
    torch.save({"conv_first.weight": _Exploit(path.with_suffix(".exploited"))}, path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("truncated.safetensors", truncated),
        ("empty.safetensors", empty),
        ("another-kind.safetensors", of_another_kind),
        ("code.pth", pickle_with_code),
    ],
)
def test_bad_checkpoint_is_named_in_the_error(
    client: Client, fdat: str, picture: numpy.ndarray, name: str, write: Callable[[Path], None]
) -> None:
    write(client.host.models / name)
    uploaded = client.upload("picture.png", picture)
    outcome = client.run(graph(uploaded, LOADER, name, UPSCALER))
    assert outcome.status == "error"
    assert outcome.error_node == "loader"
    assert name in outcome.error
    assert "Traceback" not in outcome.error
    assert not (client.host.models / name).with_suffix(".exploited").exists()
    assert client.run(graph(uploaded, LOADER, fdat, UPSCALER)).status == "success"


def test_bad_target_is_refused_before_any_work(
    client: Client, fdat: str, picture: numpy.ndarray
) -> None:
    workflow = graph(
        client.upload("picture.png", picture), LOADER, fdat, UPSCALER, target="as large as possible"
    )
    with pytest.raises(PromptRejected) as refusal:
        client.queue(workflow)
    (message,) = refusal.value.node_errors["upscaler"]
    assert "as large as possible" in message
    assert client.idle()
