"""The video node with other devices beside the host's, in a real ComfyUI on a CPU: workers on the
CPU stand for them. Where the host has no Ray, or one device alone, it says so and goes on."""

from __future__ import annotations

import re
import subprocess

import numpy
import pytest

from tests.comfyui.server import Client, find_python
from tests.comfyui.test_videos import graph, nearest, saved  # noqa: F401

pytest.importorskip("av")
from tests.helpers.video_cases import Clip

pytestmark = pytest.mark.comfyui

CLIP = Clip(frames=200)


def has_ray(client: Client) -> bool:
    """Whether the host's interpreter can import it."""
    program = "import importlib.util as u, sys; sys.exit(u.find_spec('ray') is None)"
    command = [find_python(client.host.checkout), "-c", program]
    return subprocess.run(command, check=False).returncode == 0


def run(client: Client, model: str, **options: object) -> tuple[object, str]:
    """The result, and what the log says meanwhile."""
    before = len(client.host.log())
    found = saved(client, client.run(graph(client, CLIP, model, **options)))
    return found, client.host.log()[before:]


def test_other_workers_help(client: Client, fdat: str) -> None:
    if not has_ray(client):
        pytest.skip("this host has no Ray")
    alone, _ = run(client, fdat, ensemble=8)  # so that it lasts longer than Ray takes to start
    together, said = run(client, fdat, ensemble=8, devices="cpu:2")
    assert "works alone" not in said
    here, elsewhere = map(
        int, re.findall(r"did (\d+) parts of the video, other devices (\d+)", said)[0]
    )
    assert here and elsewhere
    assert together.times == alone.times
    for one, other in zip(together.luma, alone.luma, strict=True):
        assert numpy.array_equal(one, other)


def test_one_device_goes_on_alone(client: Client, nearest: str) -> None:  # noqa: F811
    found, said = run(client, nearest, devices="all")
    assert len(found.times) == CLIP.frames
    assert "works alone: there is no other device" in said


def test_without_ray(client: Client, nearest: str) -> None:  # noqa: F811
    if has_ray(client):
        pytest.skip("this host has Ray")
    found, said = run(client, nearest, devices="cpu:1")
    assert len(found.times) == CLIP.frames
    assert "pip install -r requirements-cluster.txt" in said


def test_devices_that_are_not_there(client: Client, nearest: str) -> None:  # noqa: F811
    outcome = client.run(graph(client, CLIP, nearest, devices="cuda:7"))
    assert outcome.status == "error"
    assert "cuda:7 is not available here" in outcome.error
