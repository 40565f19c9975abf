"""Fixtures for tests in a real ComfyUI: one host for all of them, with small random checkpoints.

`COMFYUI_ROOT` names the checkout (default `~/ComfyUI`), `COMFYUI_PYTHON` the interpreter that runs
it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy
import pytest
import torch
from safetensors.torch import save_file

from tests.comfyui.server import Client, Host, HostUnavailable, find_checkout, find_python


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    try:
        checkout = find_checkout()
        python = find_python(checkout)
    except HostUnavailable as reason:
        pytest.skip(f"no ComfyUI to test with: {reason}")
    host = Host(checkout, python, tmp_path_factory.mktemp("comfyui"))
    with host as client:
        yield client


@pytest.fixture(scope="session")
def picture() -> numpy.ndarray:
    """A (75, 110, 3) uint8 picture with smooth colours, edges and noise; no side is a multiple of
    8."""
    random = numpy.random.default_rng(0)
    rows, columns = numpy.mgrid[0:75, 0:110]
    phases = numpy.stack([rows / 9, columns / 13, (rows + columns) / 5], axis=-1)
    stripes = ((columns // 11 + rows // 7) % 2)[..., None]
    pixels = (
        0.5 + 0.2 * numpy.sin(phases) + 0.2 * (stripes - 0.5) + random.normal(0, 0.03, phases.shape)
    )
    return (255 * pixels.clip(0, 1)).astype(numpy.uint8)


@pytest.fixture(scope="session")
def aligned_picture(picture: numpy.ndarray) -> numpy.ndarray:
    """(88, 128, 3): tiles of 48 with overlap 8 start at multiples of 8, whether a model asks for
    that or not."""
    return numpy.pad(picture, ((0, 13), (0, 18), (0, 0)), "wrap")


@pytest.fixture(scope="session")
def fdat(client: Client) -> str:
    """The file name of a x2 FDAT with random weights, made by spandrel's own class."""
    from spandrel.architectures.FDAT import FDAT

    torch.manual_seed(0)
    model = FDAT(
        scale=2,
        embed_dim=16,
        num_groups=1,
        depth_per_group=1,
        num_heads=2,
        mid_dim=16,
        upsampler_type="pixelshuffledirect",
    )
    with (
        torch.no_grad()
    ):  # as initialised it gives almost black pictures, in which no error could be seen
        model.get_parameter("upsampler.0.weight").mul_(15)
        model.get_parameter("upsampler.0.bias").fill_(0.5)
    return _save(client, "fdat.safetensors", model)


@pytest.fixture(scope="session")
def dense_iso(client: Client) -> str:
    """The file name of a small x4 Dense-Iso-ViT with random weights, in this project's naming."""
    from fdat_dense_iso.arch.dense_iso.config import DenseIsoViTConfig, pixel_shuffle_head
    from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT

    torch.manual_seed(0)
    head = pixel_shuffle_head(fusion_width=16, widths=(16, 16, 16, 16))
    model = DenseIsoViT(DenseIsoViTConfig(window=32, dims=(16, 32), depths=(1,), head=head))
    with torch.no_grad():  # as initialised it gives little more than bilinear interpolation
        model.get_parameter("head.5.weight").mul_(1000)
    return _save(client, "dense_iso.safetensors", model)


def _save(client: Client, name: str, model: torch.nn.Module) -> str:
    save_file(model.state_dict(), client.host.models / name)
    return name


@pytest.fixture(autouse=True)
def log_of_the_test(client: Client, request: pytest.FixtureRequest) -> Iterator[None]:
    """Show what the host printed during a test that failed."""
    start = len(client.host.log())
    yield
    request.node.add_report_section("teardown", "ComfyUI log", client.host.log(start))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left_out = [
        report
        for report in terminalreporter.stats.get("skipped", [])
        if "comfyui" in getattr(report, "keywords", ())  # a file that was left out has none
    ]
    if left_out:
        reason = left_out[0].longrepr[2].removeprefix("Skipped: ")
        terminalreporter.write_line(f"{len(left_out)} tests marked comfyui were left out: {reason}")
