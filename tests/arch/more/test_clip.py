"""Networks of several frames on a clip of seven, at its ends and across a cut, against what the
trainers' classes made of the frames that they should see."""

from __future__ import annotations

import copy
import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from spandrel import MAIN_REGISTRY, ImageModelDescriptor
from torch import Tensor

from fdat_dense_iso.arch import describe, load_model
from fdat_dense_iso.arch.more import MEMBERS, MODULES
from fdat_dense_iso.arch.more.clip import ClipNetwork
from fdat_dense_iso.arch.more.member import Member
from fdat_dense_iso.arch.more.tfdat import TFDAT, TFDATArch, TFDATConfig
from fdat_dense_iso.arch.registry import extended_registry
from fdat_dense_iso.common.dry_run import LiveBytes
from fdat_dense_iso.upscale import upscale_frames, upscale_image
from tests.arch.more.test_member import PARITY, run, trained
from tests.helpers.parity import numbers, sample
from tests.upscale.rows.test_run import in_rows

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


def one_by_one(model: ImageModelDescriptor, pictures: list[Tensor], mode: str) -> list[Tensor]:
    results: list[Tensor] = []
    upscale_frames(model, pictures, lambda result: results.append(result.clone()), mode=mode)
    return results


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
    for mode in ("whole", "exact") if hasattr(model.model, "exact_engine") else ("whole",):
        results = one_by_one(model, pictures, mode)
        for found, one in zip(results, expected, strict=True):
            planes = found.permute(2, 0, 1)[None].contiguous()
            assert (sample(planes) - one.clamp(0, 1)).abs().max() <= 1e-4 * max(largest, 1)
        batch = upscale_image(model, torch.stack(pictures), mode=mode)
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


@pytest.mark.parametrize("config", TFDATArch.examples, ids=lambda config: f"x{config.scale}")
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 7), (40, 33)])
def test_tfdats_exact_engine(config: TFDATConfig, size: tuple[int, int]) -> None:
    """Against the network in float64, with several bands and a batch; its plan covers what it
    computes before FDAT's engine begins."""
    torch.manual_seed(0)
    network = TFDAT(config).eval()
    clip = torch.rand(2, config.frames * config.in_channels, *size)
    with torch.inference_mode():
        expected = copy.deepcopy(network).double()(clip.double())
    engine = network.exact_engine
    plan = engine.plan(2, *size, dtype=torch.float32, device="cpu", band=8)
    found = torch.full_like(expected, torch.nan)

    def write(top: int, rows: Tensor) -> None:
        found[:, :, top : top + rows.shape[2]] = rows

    engine.run(clip, plan, write)
    assert (found - expected).abs().max() <= 1e-5 * max(expected.abs().max(), 1)
    with torch.inference_mode(), LiveBytes() as live:
        engine.front(clip, plan.body)
    assert live.peak <= plan.front
    assert set(network.state_dict()) == set(TFDAT(config).state_dict())
    network.conv_after.register_forward_hook(lambda *_: None)
    assert not hasattr(network, "exact_engine")


def test_tfdats_exact_engine_in_rows(tmp_path: Path) -> None:
    """A single picture that is read in rows, with feature maps in files."""
    config = TFDATArch.examples[1]
    torch.manual_seed(0)
    model = load_model(TFDAT(config).state_dict())
    frame = torch.rand(40, 33, 3)
    found = in_rows(model, frame, tmp_path, mode="exact", precision="fp32")
    expected = upscale_image(model, frame[None], mode="exact", precision="fp32")[0]
    assert (found - expected).abs().max() <= 1e-6
