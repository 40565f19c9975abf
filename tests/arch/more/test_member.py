"""What holds for every architecture of `arch.more`, from its entry in the list alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from spandrel import MAIN_REGISTRY
from torch import Tensor

from fdat_dense_iso.arch import ModelLoadError, describe, load_model
from fdat_dense_iso.arch.more import MEMBERS, MODULES
from fdat_dense_iso.arch.more.member import Member, MemberConfig
from fdat_dense_iso.arch.registry import ARCHITECTURES, extended_registry
from fdat_dense_iso.upscale import upscale_image
from tests.helpers.parity import picture, sample, weight

PARITY = Path(__file__).parent / "parity"
HEAVY = {"TSCUNet"}  # it pads every picture to 128 pixels at least
EXAMPLES = [
    pytest.param(member, config, id=f"{member.title}-{i}")
    for member in MEMBERS
    for i, config in enumerate(member.examples)
]
FIRST = [pytest.param(member, member.examples[0], id=member.title) for member in MEMBERS]


def run(examples: list[Any]) -> list[Any]:
    """Those that a test runs; the heavy ones are slow."""
    return [
        pytest.param(*one.values, id=one.id, marks=pytest.mark.slow)
        if one.values[0].title in HEAVY
        else one
        for one in examples
    ]


CASES = [
    pytest.param(
        member,
        case,
        id=f"{name}-{case['made_by']}",
        marks=[pytest.mark.slow] if case.get("slow") else [],
    )
    for name, member in zip(MODULES, MEMBERS, strict=True)
    for case in json.loads((PARITY / f"{name}.json").read_text(encoding="utf-8"))
]


def trained(case: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict that the authors' class had. A shared tensor has the name of the first."""
    tensors = {}
    for name, shape in case["tensors"].items():
        shared, sides = (shape[0], shape[1:]) if isinstance(shape[0], str) else (name, shape)
        tensors[name] = weight(shared, tuple(sides))
    return tensors | {
        name: torch.tensor(one["values"], dtype=getattr(torch, one["dtype"])).reshape(one["shape"])
        for name, one in case["constants"].items()
    }


def random_weights(member: type[Member], config: MemberConfig) -> dict[str, Tensor]:
    state_dict = member().build(config).state_dict()
    floats = {k: v for k, v in state_dict.items() if v.is_floating_point() and "init_pos" not in k}
    return state_dict | {k: weight(k, tuple(v.shape)).float() for k, v in floats.items()}


@pytest.mark.parametrize(("member", "case"), CASES)
def test_results_are_those_of_the_authors_class(member: type[Member], case: dict) -> None:
    """In float64 to 1e-9, and in float32 through `load_model` to 1e-4, both of the largest value."""
    state_dict, image = trained(case), picture(case["picture"])
    expected = torch.tensor(case["sample"], dtype=torch.float64)
    architecture, options = member(), case.get("options", {})
    assert architecture.detect(state_dict)
    tensors = architecture.prepare(state_dict)
    network = architecture.build(architecture.infer(tensors, **options)).double().eval()
    network.load_state_dict(tensors)
    model = load_model(state_dict, **options)
    assert model.architecture.id == architecture.id
    with torch.inference_mode():
        exact = network(image)
        single = model.model(image.float())
    assert list(exact.shape) == case["result"]
    assert (sample(exact) - expected).abs().max() <= 1e-9 * case["largest"]
    assert (sample(single) - expected).abs().max() <= 1e-4 * case["largest"]


@pytest.mark.parametrize(("member", "config"), EXAMPLES)
def test_the_configuration_is_told_from_the_tensors(
    member: type[Member], config: MemberConfig
) -> None:
    state_dict = member().build(config).state_dict()
    options = dict(member.example_options)
    model = load_model(state_dict, **options)
    assert model.architecture.id == member().id
    assert member().infer(state_dict, **options) == config
    assert (model.scale, model.input_channels) == (config.scale, config.in_channels)


Weights = dict[str, Tensor]


def named(start: str, weights: Weights) -> Weights:
    return {start + key: value for key, value in weights.items()}


WRAPPERS: dict[str, Callable[[Weights, Weights], dict[str, Any]]] = {  # averaged and raw weights
    "alone": lambda mean, raw: mean,
    "params": lambda mean, raw: {"params": mean},
    "params_ema": lambda mean, raw: {"params": raw, "params_ema": mean},
    "state_dict": lambda mean, raw: {"state_dict": mean, "epoch": 3},
    "state_dict of net_g": lambda mean, raw: {"state_dict": named("net_g.", mean)},
    "model": lambda mean, raw: {"model": mean, "optimizer": {"state": {}}},
    "model.module.": lambda mean, raw: {"model": named("module.", mean)},
    "net_g": lambda mean, raw: {"net_g": mean, "iter": 3},
    "module.": lambda mean, raw: named("module.", mean),
    "ema beside": lambda mean, raw: {"model": raw, "ema": named("module.", mean)},
    "compiled": lambda mean, raw: {"params_ema": named("_orig_mod.", mean)},
    "networks beside": lambda mean, raw: {
        **named("generator.", raw),
        **named("generator_ema.", mean),
        "discriminator.0.weight": torch.zeros(3, 3),
    },
}


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.title)
def test_wrappers(member: type[Member]) -> None:
    """Those of tests/arch/test_weights.py that its architectures, which share this, don't try."""
    average = random_weights(member, member.examples[0])
    raw = {key: torch.zeros_like(value) for key, value in average.items()}
    for wrapped in WRAPPERS.values():
        model = load_model(wrapped(average, raw), **member.example_options)
        assert model.architecture.id == member().id
        found = model.model.state_dict()
        assert all(
            torch.equal(found[key], value) for key, value in average.items() if "Meta" not in key
        )


@pytest.mark.parametrize(("member", "case"), CASES)
def test_saved_again_it_is_the_same(member: type[Member], case: dict, tmp_path: Path) -> None:
    """As a safetensors file of the loaded network's own tensors, which are folded."""
    options = case.get("options", {})
    model = load_model(trained(case), **options)
    save_file(model.model.state_dict(), tmp_path / "again.safetensors")
    again = load_model(tmp_path / "again.safetensors", **options)
    assert (again.architecture.id, again.scale) == (model.architecture.id, model.scale)
    image = picture(case["picture"]).float()
    with torch.inference_mode():
        assert torch.equal(again.model(image), model.model(image))


@pytest.mark.parametrize(("member", "config"), EXAMPLES)
def test_no_other_detector_claims_it(member: type[Member], config: MemberConfig) -> None:
    """spandrel's among them: other loaders ask those first, but for those that it comes before."""
    state_dict = member().build(config).state_dict()
    registry = extended_registry(MAIN_REGISTRY).architectures("detection")
    claims = [support.architecture.id for support in registry if support.detect(state_dict)]
    assert claims[0] == member().id
    assert set(claims[1:]) <= set(member.before)


@pytest.mark.parametrize(("member", "config"), run(EXAMPLES))
def test_any_size(member: type[Member], config: MemberConfig) -> None:
    network = member().build(config).eval()
    with torch.inference_mode():
        for height, width in ((1, 1), (2, 5), (13, 6)):
            result = network(torch.rand(2, config.in_channels, height, width))
            assert result.shape == (
                2,
                config.out_channels,
                height * config.scale,
                width * config.scale,
            )
            assert result.isfinite().all()


@pytest.mark.parametrize(("member", "config"), run(FIRST))
def test_tiles_equal_the_whole_picture_where_nothing_is_taken_from_it(
    member: type[Member], config: MemberConfig
) -> None:
    model = load_model(random_weights(member, config), **member.example_options)
    image = picture((1, 3, 40, 150)).float().movedim(1, -1)
    whole = upscale_image(model, image, mode="whole")
    tiles = upscale_image(model, image, mode="tile", tile=96, overlap=32)
    assert whole.shape == (1, 40 * config.scale, 150 * config.scale, 3)
    difference = (tiles - whole).abs().amax((0, 1, 3))
    # of one tile alone, and at least 42 pixels from where it ends
    alone = torch.cat([difference[: 54 * config.scale], difference[96 * config.scale :]])
    if member().statistics(config):
        assert alone.max() > 1e-4
        assert "tiles change the result" in describe(model)
    else:
        assert alone.max() <= 1e-4


@pytest.mark.parametrize(("member", "config"), run(FIRST))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(member: type[Member], config: MemberConfig, dtype: torch.dtype) -> None:
    if dtype == torch.float16 and not member.half:
        pytest.skip("this architecture says that it does not take fp16")
    if dtype == torch.float16 and member.title in HEAVY:
        pytest.skip("convolutions in fp16 take minutes on a CPU")
    network = member().build(config).eval()
    network.load_state_dict(random_weights(member, config))
    image = picture((1, config.in_channels, 24, 24)).float()
    with torch.inference_mode():
        expected = network(image)
        found = network.to(dtype)(image.to(dtype)).float()
    error = (found - expected).abs().mean() / expected.abs().mean()
    assert error <= (0.005 if dtype == torch.float16 else 0.04)


@pytest.mark.parametrize(("member", "config"), FIRST)
def test_damaged_files_are_refused(member: type[Member], config: MemberConfig) -> None:
    state_dict = member().build(config).state_dict()
    for name in list(state_dict)[:: max(1, len(state_dict) // 8)]:
        damaged = {k: v for k, v in state_dict.items() if k != name}
        needless = "Meta" in name or name.endswith("num_batches_tracked")
        if not needless and name not in member().prepare(damaged):
            with pytest.raises(ModelLoadError):
                load_model(damaged)
    with pytest.raises(ModelLoadError, match=r"extra|not an upscaling model"):
        load_model({**state_dict, "extra.weight": torch.zeros(3)})


def test_the_list_alone_registers() -> None:
    assert ARCHITECTURES[-len(MEMBERS) :] == MEMBERS
    files = {path.stem for path in PARITY.glob("*.json")}
    assert files == set(MODULES)
