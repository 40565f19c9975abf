"""The buffer that tells what tensors cannot: written by everything that saves, read by every loader."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from spandrel import MAIN_REGISTRY, ModelLoader
from torch import Tensor

from fdat_dense_iso.arch import ModelLoadError, describe, load_model
from fdat_dense_iso.arch.dense_iso.checkpoint import infer_config
from fdat_dense_iso.arch.dense_iso.config import DenseIsoViTConfig, HeadLayer, pixel_shuffle_head
from fdat_dense_iso.arch.dense_iso.meta import META_KEY, decode, encode
from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT
from fdat_dense_iso.arch.registry import extended_registry
from tests.helpers.paths import MODELS

HEAD = tuple(
    dataclasses.replace(layer, activation=name)
    for layer, name in zip(
        pixel_shuffle_head(fusion_width=8, widths=(8,) * 4),
        ("gelu", "silu", "none", "relu", "leaky_relu_0.2", "none"),
    )
)
ODD = DenseIsoViTConfig(
    window=16,
    dims=(8, 12),
    depths=(1, 2),
    heads=(4, 3),
    stage_norms=(True,),
    stage_norm_routing="head",
    head=HEAD,
    gated_half="first",
    norm_eps=1e-6,
    skip="bicubic",
    align_corners=True,
    value_range="-1..1",
)
CONFIGS = {
    "odd": ODD,
    "one convolution": dataclasses.replace(
        ODD, position_embedding=False, head=(HeadLayer(channels=3 * 16**2, shuffle=16),)
    ),
    "published": DenseIsoViTConfig(),
}


def saved(config: DenseIsoViTConfig = ODD) -> dict[str, Tensor]:
    """The state dict of a network whose every tensor has an effect."""
    torch.manual_seed(0)
    network = DenseIsoViT(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return dict(network.state_dict())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_whole_configuration_is_in_the_state_dict(name: str) -> None:
    with torch.device("meta"):
        state_dict = DenseIsoViT(CONFIGS[name]).state_dict()
    assert infer_config(state_dict) == CONFIGS[name]
    assert (
        infer_config({f"network.{key}": value for key, value in state_dict.items()})
        == CONFIGS[name]
    )


def wrapped(kind: str) -> dict:
    state_dict, other = saved(), saved()
    other["patch_embedding.weight"] = torch.zeros_like(other["patch_embedding.weight"])
    return {
        "plain": state_dict,
        "compiled": {f"_orig_mod.module.{key}": value for key, value in state_dict.items()},
        "container": {"epoch": 3, "optimizer": {"state": {}}, "params": state_dict},
        "average beside": {"params": other, "params_ema": state_dict},
        "average in front": {"params_ema": state_dict, "params": other},
        "prefixes": {f"net.{key}": value for key, value in other.items()}
        | {f"net_ema.{key}": value for key, value in state_dict.items()},
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["plain", "compiled", "container", "average beside", "average in front", "prefixes"],
)
def test_found_whatever_is_around_it(kind: str) -> None:
    network = load_model(wrapped(kind)).model.network
    assert network.config == ODD
    assert torch.equal(network.patch_embedding.weight, saved()["patch_embedding.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_checkpoint_that_was_cast_as_a_whole(dtype: torch.dtype) -> None:
    state_dict = {key: value.to(dtype) for key, value in saved().items()}
    assert load_model(state_dict).model.network.config == ODD


def test_nothing_is_assumed_and_every_loader_gives_the_same_pixels() -> None:
    image = torch.rand(1, 3, 20, 27)
    ours, theirs = load_model(saved()), ModelLoader(registry=extended_registry(MAIN_REGISTRY))
    assert "Assumed" not in describe(ours)
    with torch.inference_mode():
        expected = DenseIsoViT(ODD).eval()
        expected.load_state_dict(saved())
        window = torch.rand(1, 3, 16, 16)
        assert (ours(window) - expected(window).clamp(0, 1)).abs().max() < 1e-5
        assert torch.equal(theirs.load_from_state_dict(saved())(image), ours(image))


def test_options_come_first_then_sidecar_then_metadata(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(saved(), path, {"dense_iso_vit": json.dumps({"heads": [2, 2], "skip": "none"})})
    assert load_model(path).model.network.config == dataclasses.replace(
        ODD, heads=(2, 2), skip="none"
    )
    path.with_suffix(".json").write_text(json.dumps({"heads": 4, "gated_half": "second"}))
    expected = dataclasses.replace(ODD, heads=(4, 4), gated_half="second", skip="none")
    assert load_model(path).model.network.config == expected
    loaded = load_model(path, heads="1,1", head_activation="relu@fusion").model.network.config
    assert loaded.heads == (1, 1) and loaded.gated_half == "second"
    assert [layer.activation for layer in loaded.head] == ["relu", *["none"] * 5]
    with pytest.raises(ModelLoadError, match="5 heads do not divide"):
        load_model(path, heads=5)


@pytest.mark.parametrize(
    "key", ["patch_embedding.bias", "position_embedding", "stages.1.norm.weight", "head.5.bias"]
)
def test_a_file_that_lacks_a_tensor_is_refused(key: str) -> None:
    """Without the buffer each of these would be another configuration, and another picture."""
    state_dict = saved()
    del state_dict[key]
    with pytest.raises(ModelLoadError, match=rf"damaged.*{key}: found nothing"):
        load_model(state_dict)


WRONG_VALUES = {
    "text": ("window", "16"),
    "a fraction": ("heads", [4.0, 3.0]),
    "a truth": ("heads", [True, True]),
    "no truth": ("patch_bias", "false"),
    "a number for a truth": ("align_corners", 3),
    "zero": ("patch_size", 0),
    "infinite": ("norm_eps", float("inf")),
    "beyond infinity": ("norm_eps", 10**400),
    "no list": ("depths", 1),
    "null": ("dims", None),
}


def broken(kind: str) -> Tensor:
    content = json.loads(bytes(encode(ODD).tolist()))
    if kind == "newer":
        content["version"] = 2
    elif kind == "unknown field":
        content["config"]["registers"] = 4
    elif kind == "missing field":
        del content["config"]["heads"]
    elif kind == "impossible":
        content["config"]["heads"] = [5, 3]
    elif kind == "huge depth":
        content["config"]["depths"] = [10**9, 1]
    elif kind == "huge width":
        content["config"]["dims"] = [10**12, 10**12]
    elif kind in WRONG_VALUES:
        name, value = WRONG_VALUES[kind]
        content["config"][name] = value
    elif kind == "a list":
        content = [1, 2]
    if kind == "no JSON":
        return torch.full((9,), 200, dtype=torch.uint8)
    if kind == "sparse":
        return encode(ODD).to_sparse()
    if kind == "empty":
        return torch.empty(0, dtype=torch.uint8)
    if kind == "not a number":
        return torch.full((9,), float("nan"))
    return torch.tensor(list(json.dumps(content).encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    "kind",
    ["newer", "unknown field", "missing field", "impossible", "huge depth", "huge width",
     "a list", "no JSON", "empty", "not a number", "sparse", *WRONG_VALUES],
)  # fmt: skip
def test_damaged_buffers_are_refused(kind: str) -> None:
    with pytest.raises(ModelLoadError, match=META_KEY):
        load_model({**saved(), META_KEY: broken(kind)})
    with pytest.raises(ModelLoadError, match=META_KEY):
        decode(broken(kind))


def test_the_buffer_describes_the_network_whatever_is_loaded_into_it() -> None:
    other = DenseIsoViT(dataclasses.replace(ODD, heads=(2, 2)))
    other.load_state_dict(saved())
    assert decode(other.MetaDenseIsoViT).heads == (2, 2)
    del (state_dict := saved())[META_KEY]
    other.load_state_dict(state_dict)  # files from before there was one


def test_an_average_that_takes_it_for_a_weight_saves_it_whole() -> None:
    average = torch.optim.swa_utils.AveragedModel(
        DenseIsoViT(ODD),
        use_buffers=True,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9),
    )
    network = DenseIsoViT(ODD)
    for _ in range(5):
        average.update_parameters(network)
    assert not torch.equal(average.module.MetaDenseIsoViT, network.MetaDenseIsoViT)
    assert load_model(average.state_dict()).model.network.config == ODD


@pytest.mark.parametrize("kind", ["containers", "a wrapped one", "prefixes"])
def test_an_average_of_parameters_alone_comes_first(kind: str) -> None:
    raw = saved()
    average = {name: tensor * 0.5 for name, tensor in raw.items() if name != META_KEY}
    content = {
        "containers": {"params": raw, "params_ema": average},
        "a wrapped one": {
            "model": {f"module.{name}": tensor for name, tensor in raw.items()},
            "ema": {"decay": 0.99, **{f"module.{name}": t for name, t in average.items()}},
        },
        "prefixes": {f"net.{name}": tensor for name, tensor in raw.items()}
        | {f"net_ema.{name}": tensor for name, tensor in average.items()},
    }[kind]
    network = load_model(content).model.network
    assert network.config == ODD
    assert torch.equal(network.patch_embedding.weight, average["patch_embedding.weight"])


def test_the_option_container_takes_the_plain_weights() -> None:
    raw = saved()
    average = {name: tensor * 0.5 for name, tensor in raw.items() if name != META_KEY}
    content = {"params": raw, "params_ema": average}
    for options, expected in (({}, average), ({"container": "params"}, raw)):
        network = load_model(content, **options).model.network
        assert torch.equal(network.patch_embedding.weight, expected["patch_embedding.weight"])


@pytest.mark.parametrize("value", ["{}", b"{}", [1, 2], None])
def test_only_a_tensor_is_taken_for_it(value: object) -> None:
    with pytest.raises(ModelLoadError, match=f"{META_KEY} is a .*not a tensor"):
        load_model({**saved(), META_KEY: value})


def test_the_bundled_model_has_it() -> None:
    with safe_open(MODELS / "dense_iso_demo_x4.safetensors", "pt") as file:
        config = decode(file.get_tensor(META_KEY))
        answers = json.loads(file.metadata()["dense_iso_vit"])
    assert list(config.heads) == answers["heads"] and config.norm_eps == answers["norm_eps"]
    assert [layer.activation for layer in config.head] == answers["head_activation"]
