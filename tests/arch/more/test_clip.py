"""Networks of several frames on a clip of seven, at its ends and across a cut, against what the
trainers' classes made of the frames that they should see."""

from __future__ import annotations

import json
from math import prod
from typing import Any

import pytest
import torch
from spandrel import MAIN_REGISTRY
from torch import Tensor

from fdat_dense_iso.arch import describe, load_model
from fdat_dense_iso.arch.more import MEMBERS, MODULES
from fdat_dense_iso.arch.more.clip import ClipNetwork
from fdat_dense_iso.arch.more.member import Member
from fdat_dense_iso.arch.registry import extended_registry
from fdat_dense_iso.upscale import upscale_frames, upscale_image
from tests.arch.more.test_member import PARITY, run, trained
from tests.helpers.parity import numbers, sample

OWN = dict(zip(MODULES, MEMBERS, strict=True))
CASES = [
    pytest.param(OWN[name], case, id=name, marks=[pytest.mark.slow] if case.get("slow") else [])
    for name in ("tfdat", "tscunet", "temporalspan")
    for case in json.loads((PARITY / f"{name}.json").read_text(encoding="utf-8"))
    if "clip" in case
]
CLIPS = [
    pytest.param(member, member.examples[0], id=member.title)
    for member in MEMBERS
    if issubclass(type(member().build(member.examples[0])), ClipNetwork)
]
# which frames are seen for each: mirrored at the ends, and a cut before frame 4
SEEN = [
    [2, 1, 0, 1, 2],
    [1, 0, 1, 2, 3],
    [0, 1, 2, 3, 3],
    [1, 2, 3, 3, 3],
    [4, 4, 4, 5, 6],
    [4, 4, 5, 6, 5],
    [4, 5, 6, 5, 4],
]


def two_scenes(shape: list[int]) -> list[Tensor]:
    """Seven frames (1, C, H, W) float64: each a picture, with a little of its own."""

    def of(name: str) -> Tensor:
        return torch.from_numpy(numbers(name, prod(shape))).reshape(1, *shape)

    return [0.5 + 0.45 * of(f"scene {i > 3:d}") + 0.04 * of(f"frame {i}") for i in range(7)]


@pytest.mark.parametrize(("member", "case"), CASES)
def test_seven_frames_with_a_cut(member: type[Member], case: dict[str, Any]) -> None:
    """In float64 the network on what it should see, to 1e-9 of the largest value; in float32 as
    frames and as a batch, whose results are clamped, to 1e-4."""
    state_dict, frames = trained(case), two_scenes(case["clip"]["shape"])
    architecture = member()
    tensors = architecture.prepare(state_dict)
    network = architecture.build(architecture.infer(tensors)).double().eval()
    network.load_state_dict(tensors)
    largest = case["clip"]["largest"]
    expected = [torch.tensor(one, dtype=torch.float64) for one in case["clip"]["samples"]]
    with torch.inference_mode():
        for seen, one in zip(SEEN, expected, strict=True):
            exact = network(torch.stack([frames[i] for i in seen], 1))
            assert (sample(exact) - one).abs().max() <= 1e-9 * largest
    model = load_model(state_dict)
    pictures = [frame[0].float().permute(1, 2, 0) for frame in frames]
    results: list[Tensor] = []
    upscale_frames(model, pictures, lambda p: results.append(p.clone()), mode="whole")
    for found, one in zip(results, expected, strict=True):
        planes = found.permute(2, 0, 1)[None].contiguous()
        assert (sample(planes) - one.clamp(0, 1)).abs().max() <= 1e-4 * max(largest, 1)
    batch = upscale_image(model, torch.stack(pictures), mode="whole")
    assert (batch - torch.stack(results)).abs().max() <= 1e-5


@pytest.mark.parametrize(("member", "config"), run(CLIPS))
def test_a_picture_is_repeated(
    member: type[Member], config: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """As core's node passes it: through spandrel's descriptor."""
    model = load_model(member().build(config).state_dict(), **member.example_options)
    image = torch.rand(1, config.in_channels, 24, 32)
    with torch.inference_mode():
        found = model(image)
        clip = model.model(image.repeat(1, config.frames, 1, 1)).clamp(0, 1)
    assert torch.equal(found, clip)
    assert "one picture, which is repeated" in caplog.text
    assert f"{config.frames} successive frames" in describe(model)
    with pytest.raises(ValueError, match="were expected"):
        model.model(torch.rand(1, 2, 24, 32))


@pytest.mark.parametrize(("member", "config"), CLIPS)
def test_other_loaders_find_it(member: type[Member], config: Any) -> None:
    """Those that ask spandrel's registry: FDAT and SCUNet of spandrel would claim the files."""
    state_dict = member().build(config).state_dict()
    assert extended_registry(MAIN_REGISTRY).load(state_dict).architecture.id == member().id


def test_relatives_of_one_frame_are_not_claimed() -> None:
    """SCUNet and SPAN of spandrel, and FDAT, whose tensors are named alike."""
    from spandrel.architectures.SCUNet import SCUNet
    from spandrel.architectures.SPAN import SPAN

    from fdat_dense_iso.arch.fdat.network import FDAT

    for network in (SCUNet(dim=64, config=[1] * 7), SPAN(num_in_ch=3, num_out_ch=3), FDAT()):
        state_dict = network.state_dict()
        assert not any(one.values[0]().detect(state_dict) for one in CLIPS)
