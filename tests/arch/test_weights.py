"""What training programs write around and beside weights, for architectures of three kinds: the
right tensors are taken, the averaged ones first, and that is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from spandrel.architectures.Compact import Compact
from spandrel.architectures.ESRGAN import ESRGAN
from torch import Tensor, nn

from fdat_dense_iso.arch import ModelLoadError, describe, load_model
from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT
from fdat_dense_iso.arch.weights import is_averaged, weight_sets
from tests.arch.dense_iso.test_meta import ODD
from tests.helpers.fdat_cases import small

StateDict = dict[str, Tensor]


def fdat() -> nn.Module:
    from fdat_dense_iso.arch.fdat.network import FDAT

    return FDAT(small("transpose+conv", 2))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "FDAT": fdat,
    "Dense-Iso-ViT": lambda: DenseIsoViT(ODD),
    "Compact": lambda: Compact(num_feat=8, num_conv=2, upscale=2),
    # whose own names all start with "model."
    "ESRGAN": lambda: ESRGAN(num_filters=8, num_blocks=1, scale=4),
}


@pytest.fixture(params=NETWORKS)
def weights(request: pytest.FixtureRequest) -> StateDict:
    torch.manual_seed(0)
    return dict(NETWORKS[request.param]().state_dict())


def halved(state_dict: StateDict) -> StateDict:
    """Other weights of the same network."""
    return {k: v / 2 if v.is_floating_point() else v for k, v in state_dict.items()}


def prefixed(prefix: str, state_dict: StateDict) -> StateDict:
    return {prefix + key: value for key, value in state_dict.items()}


def loaded(content: Any, **options: Any) -> tuple[StateDict, str]:
    """The tensors of the model, without what our wrappers put before their names, and what is said
    of it."""
    model = load_model(content, **options)
    tensors = model.model.state_dict()
    return {key.removeprefix("network."): value for key, value in tensors.items()}, describe(model)


def assert_same(found: StateDict, expected: StateDict) -> None:
    own = {key: value for key, value in expected.items() if value.is_floating_point()}
    # old ESRGAN files are loaded under newer names: values in order
    names = own if own.keys() <= found.keys() else None
    pairs = (
        [(found[key], own[key]) for key in names]
        if names
        else list(zip(found.values(), own.values(), strict=True))
    )
    assert all(torch.equal(a, b.to(a.dtype)) for a, b in pairs)


DISCRIMINATOR = {"0.weight": torch.ones(4, 3, 3, 3), "0.bias": torch.ones(4)}
ALONE = {  # one set of weights, and what is no network
    "net_g": lambda s: {"net_g": s, "iter": 3},
    "G beside D": lambda s: {"D": DISCRIMINATOR, "G": s},
    "ema alone": lambda s: {"ema": s},
    "weights": lambda s: {"weights": s},
    "three deep": lambda s: {"checkpoint": {"best": {"net": {"weights": s}}}},
    "net_g.": lambda s: prefixed("net_g.", s),
    "generator. beside discriminator.": lambda s: (
        prefixed("generator.", s) | prefixed("discriminator.", DISCRIMINATOR)
    ),
    "model.": lambda s: prefixed("model.", s),
    "ema_model.": lambda s: prefixed("ema_model.", s),
    "model.net.module.": lambda s: {"state_dict": prefixed("model.net.module.", s)},
    "n_averaged": lambda s: {"n_averaged": torch.tensor(7), **prefixed("module.", s)},
    "thop": lambda s: {
        **s,
        "total_ops": torch.zeros(1, dtype=torch.float64),
        "conv_first.total_params": torch.zeros(1, dtype=torch.float64),
    },
    "compiled": lambda s: prefixed("_orig_mod.module.", s),
    "optimizer": lambda s: {
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(9, 9)}}},
        "model": s,
        "rng": torch.get_rng_state(),
    },
}
AVERAGED = {  # raw weights, averaged ones -> file
    "model_ema": lambda raw, mean: {"model": raw, "model_ema": mean},
    "state_dict_ema": lambda raw, mean: {"state_dict": raw, "state_dict_ema": mean},
    "ema in a file of parts": lambda raw, mean: {"ema": {"decay": 0.99, "module": mean}, "g": raw},
    "G_ema": lambda raw, mean: {"D": DISCRIMINATOR, "G": raw, "G_ema": mean},
    "generator_ema.": lambda raw, mean: {
        "state_dict": prefixed("generator.", raw)
        | prefixed("generator_ema.", mean)
        | prefixed("discriminator.", DISCRIMINATOR)
    },
    "ema. beside none": lambda raw, mean: {**raw, **prefixed("ema.module.", mean)},
    "lucidrains": lambda raw, mean: {
        "initted": torch.tensor(True),
        "step": torch.tensor(3),
        **prefixed("online_model.", raw),
        **prefixed("ema_model.", mean),
    },
    "LitEma, without dots": lambda raw, mean: {
        **prefixed("model.", raw),
        **{"model_ema." + k.replace(".", ""): v for k, v in mean.items()},
        "model_ema.decay": torch.tensor(0.99),
        "model_ema.num_updates": torch.tensor(5),
    },
    "torch_ema, without names": lambda raw, mean: {
        "model": prefixed("module.", raw),
        "ema": {
            "decay": 0.99,
            "shadow_params": [v for v in mean.values() if v.is_floating_point()],
            "collected_params": None,
        },
    },
    "parameters alone": lambda raw, mean: {
        "params": raw,
        "params_ema": {k: v for k, v in mean.items() if "Meta" not in k},
    },
}


@pytest.mark.parametrize("case", ALONE)
def test_one_set_is_found(weights: StateDict, case: str) -> None:
    content = ALONE[case](weights)
    before = list(content)
    assert_same(loaded(content)[0], weights)
    assert list(content) == before


@pytest.mark.parametrize("case", AVERAGED)
def test_averages_come_first_and_that_is_told(weights: StateDict, case: str) -> None:
    content = AVERAGED[case](weights, halved(weights))
    found, said = loaded(content)
    assert_same(found, halved(weights))
    assert "averaged weights of " in said and " taken, not of " in said


def test_options_take_the_others() -> None:
    weights = dict(fdat().state_dict())
    content = {"params": weights, "params_ema": halved(weights)}
    assert_same(loaded(content, container="params")[0], weights)
    with pytest.raises(ModelLoadError, match="no container 'raw' with tensors; there are 'params'"):
        load_model(content, container="raw")
    flat = prefixed("net.", weights) | prefixed("net_ema.", halved(weights))
    assert_same(loaded(flat, prefix="net")[0], weights)
    with pytest.raises(ModelLoadError, match=r"no tensor's name starts with 'raw\.'"):
        load_model(flat, prefix="raw")


def test_the_average_is_taken_or_the_file_refused() -> None:
    """A damaged average is no reason to take the other weights without a word."""
    weights = dict(fdat().state_dict())
    damaged = {**weights, "conv_after.weight": torch.full((24, 24, 3, 3), torch.nan)}
    with pytest.raises(ModelLoadError, match="NaN"):
        load_model({"params": weights, "params_ema": damaged})


def test_a_part_with_such_a_name_is_no_other_network() -> None:
    """Nothing is told of a network whose own parts are called model and ema."""
    tensors = {
        f"{part}.{i}.weight": torch.rand(3, 3) for part in ("head", "model", "ema") for i in (0, 1)
    }
    first, *_ = weight_sets(tensors)
    assert list(first.tensors) == list(tensors)


@pytest.mark.parametrize(
    ("name", "averaged"),
    [("ema", True), ("netG_EMA", True), ("modelema", True), ("params-ema", True), ("swa", True),
     ("schema", False), ("cinema", False), ("demand", False), ("G", False), ("swap", False)],
)  # fmt: skip
def test_words_for_averages(name: str, averaged: bool) -> None:
    assert is_averaged(name) is averaged


def test_a_list_around_it(tmp_path: Path, weights: StateDict) -> None:
    torch.save([{"epoch": 3}, weights], tmp_path / "model.pth")
    taken, _ = loaded(tmp_path / "model.pth")
    assert all(torch.equal(taken[key], value) for key, value in weights.items() if key in taken)
    assert taken.keys() & weights.keys()
