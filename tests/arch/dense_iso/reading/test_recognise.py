"""The reader's entry: containers, prefixes, options, near misses, and what it says of them."""

from __future__ import annotations

import json
import logging
import re

import pytest
import torch
from torch import Tensor

from fdat_dense_iso.arch.dense_iso.architecture import DenseIsoViTArch
from fdat_dense_iso.arch.dense_iso.checkpoint import infer_config
from fdat_dense_iso.arch.dense_iso.reading.options import METADATA_KEY
from fdat_dense_iso.arch.dense_iso.reading.recognise import is_dense_iso_vit, recognise
from fdat_dense_iso.arch.errors import ModelLoadError
from tests.helpers.dense_iso_variants import build, randomise
from tests.helpers.dense_iso_variants.orders import TwiceRegistered
from tests.helpers.dense_iso_variants.outcomes import ORDERS, outcome, sampled

StateDict = dict[str, Tensor]


WRAPPINGS = {
    "state_dict": lambda s: {"epoch": 3, "state_dict": s},
    "model": lambda s: {
        "model": s,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []},
    },
    "params": lambda s: {"params": s},
    "averaged beside plain": lambda s: {
        "params": {k: v * 0 for k, v in s.items()},
        "params_ema": s,
    },
    "ema": lambda s: {"model": {k: v * 0 for k, v in s.items()}, "ema": s, "step": 7},
    "deep": lambda s: {"checkpoint": {"nets": {"generator": s}}},
    "module.": lambda s: {"module." + k: v for k, v in s.items()},
    "model.": lambda s: {"model." + k: v for k, v in s.items()},
    "_orig_mod.": lambda s: {"_orig_mod." + k: v for k, v in s.items()},
    "compiled inside": lambda s: {"net._orig_mod.module." + k: v for k, v in s.items()},
    "averaged model": lambda s: {
        "n_averaged": torch.tensor(5),
        **{"module." + k: v for k, v in s.items()},
    },
    "two copies": lambda s: {
        "initted": torch.tensor(True),
        "step": torch.tensor(9),
        **{"online_model." + k: v * 0 for k, v in s.items()},
        **{"ema_model." + k: v for k, v in s.items()},
    },
    "two copies, one wrapped": lambda s: {
        "state_dict": {
            **{"net." + k: v * 0 for k, v in s.items()},
            **{"net_ema.module." + k: v for k, v in s.items()},
        }
    },
}
OTHER = {  # of a discriminator with spectral normalisation
    "0.weight": torch.ones(4, 3, 3, 3),
    "0.bias": torch.ones(4),
    "2.weight_orig": torch.ones(8, 4, 3, 3),
    "2.weight_u": torch.ones(8),
    "2.weight_v": torch.ones(36),
}


BESIDE = {  # other networks
    "net_g": lambda s: {
        "state_dict": {
            **{"loss.vgg." + k: v for k, v in OTHER.items()},
            **{"net_g." + k: v for k, v in s.items()},
        },
        "hyper_parameters": {"lr": 1e-4},
    },
    "G": lambda s: {
        **{"G." + k: v for k, v in s.items()},
        **{"D." + k: v for k, v in OTHER.items()},
        "val_psnr.total": torch.tensor(3.0),
    },
    "ema_model": lambda s: {
        **{"model." + k: v * 0 if v.is_floating_point() else v for k, v in s.items()},
        **{"ema_model.module." + k: v for k, v in s.items()},
        **{"discriminator." + k: v for k, v in OTHER.items()},
    },
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("name", sampled(["lucid", "MultiheadAttention"], 2))
def test_containers_and_prefixes(name: str, wrapping: str) -> None:
    module, options = build(name)
    assert outcome(WRAPPINGS[wrapping](dict(module.state_dict())), module, options)[0] == "exact"


@pytest.mark.parametrize("prefix", BESIDE)
def test_networks_beside_others_are_told_by_their_names(prefix: str) -> None:
    module, options = build("lucid")
    state_dict = BESIDE[prefix](dict(module.state_dict()))
    found, remarks = outcome(state_dict, module, options)
    assert found == "exact"
    assert any(f"of '{'state_dict: ' * (prefix == 'net_g')}{prefix}." in text for text in remarks)
    assert outcome(state_dict, module, {**options, "prefix": prefix})[0] == "exact"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files(dtype: torch.dtype) -> None:
    module, options = build("timm")
    module = module.to(dtype).float()
    state_dict = {key: tensor.to(dtype) for key, tensor in module.state_dict().items()}
    assert outcome(state_dict, module, options)[0] == "exact"


def near_miss(change: str) -> StateDict:
    state_dict = dict(build("timm")[0].state_dict())
    blocks = [
        key.removesuffix("norm1.weight") for key in state_dict if key.endswith("norm1.weight")
    ]
    if change == "class token":
        state_dict["cls_token"] = torch.zeros(1, 1, 8)
        state_dict["pos_embed"] = torch.zeros(1, 17, 8)
    elif change == "relative position bias":
        state_dict |= {
            block + "attn.relative_position_bias_table": torch.zeros(49, 2) for block in blocks
        }
    elif change == "extra vector":
        state_dict["extra"] = torch.zeros(8)
    elif change == "extra layer":
        state_dict["extra.weight"], state_dict["extra.bias"] = torch.zeros(8, 8), torch.zeros(8)
    elif change == "extra norm":
        state_dict["extra.weight"], state_dict["extra.bias"] = torch.zeros(9), torch.zeros(9)
    elif change == "missing bias":
        del state_dict["stages.1.1.attn.qkv.bias"]
    elif change == "missing norm":
        del state_dict["stages.1.1.norm2.weight"], state_dict["stages.1.1.norm2.bias"]
    elif change == "no depthwise":
        state_dict = {key: tensor for key, tensor in state_dict.items() if "path_" not in key}
    elif change == "larger depthwise":
        state_dict |= {
            key: torch.zeros(tensor.shape[0], 1, 5, 5)
            for key, tensor in state_dict.items()
            if tensor.shape[1:2] == (1,)
        }
    elif change == "no head":
        state_dict = {
            key: tensor for key, tensor in state_dict.items() if not key.startswith("head.")
        }
    elif change == "grayscale output":
        state_dict["head.9.weight"], state_dict["head.9.bias"] = (
            torch.zeros(1, 6, 3, 3),
            torch.zeros(1),
        )
    elif change == "batch norm":
        state_dict |= {block + "norm1.running_mean": torch.zeros(8) for block in blocks}
    elif change == "missing transition":
        del state_dict["proj.0.weight"], state_dict["proj.0.bias"]
    elif change == "temperature":
        state_dict |= {block + "attn.temperature": torch.ones(2, 1, 1) for block in blocks}
    return state_dict


NEAR_MISSES = [
    "class token",
    "relative position bias",
    "extra vector",
    "extra layer",
    "extra norm",
    "missing bias",
    "missing norm",
    "no depthwise",
    "larger depthwise",
    "no head",
    "grayscale output",
    "batch norm",
    "missing transition",
    "temperature",
]


@pytest.mark.parametrize("change", NEAR_MISSES)
def test_near_misses_are_refused(change: str) -> None:
    state_dict = near_miss(change)
    assert not is_dense_iso_vit(state_dict)
    with pytest.raises(ModelLoadError):
        recognise(state_dict)


def test_the_near_miss_without_a_change_is_accepted() -> None:
    assert is_dense_iso_vit(near_miss("nothing"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: {**s, "teacher.weight": torch.zeros(5, 7)}, "option prefix"),
        (lambda s: {**s, "norm1": torch.zeros(3, 8, 1)}, "tensors that this network does not have"),
        (lambda s: {**s, "refine.weight": torch.zeros(3, 3, 3, 3)}, "from colours to colours"),
        (lambda s: {**s, "patch.weight_g": torch.zeros(8)}, "no plain weight; remove it"),
        (
            lambda s: {k: v for k, v in s.items() if "path_" not in k},
            "no depthwise 3x3 convolution",
        ),
        (
            lambda s: {k: v for k, v in s.items() if "patch" not in k},
            "0 convolutions from 3 channels",
        ),
        (lambda s: {"model": 3}, "holds no tensors"),
        (
            lambda s: {**s, "head.0.weight": torch.full_like(s["head.0.weight"], torch.nan)},
            "not finite",
        ),
    ],
)
def test_refusals_say_what_and_how(make, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        recognise(make(dict(build("timm")[0].state_dict())))


def test_of_two_networks_that_no_word_tells_apart_none_is_taken() -> None:
    module, options = build("timm")
    state_dict = {"one." + key: tensor / 2 for key, tensor in module.state_dict().items()}
    state_dict |= {"two." + key: tensor for key, tensor in module.state_dict().items()}
    with pytest.raises(ModelLoadError, match="2 convolutions from 3 channels"):
        recognise(state_dict, options=options)
    assert outcome(state_dict, module, {**options, "prefix": "two"})[0] == "exact"


@pytest.mark.parametrize("order", ["definition", "name"])
def test_stages_under_two_names_are_refused(order: str) -> None:
    torch.manual_seed(0)
    module = TwiceRegistered().eval()
    randomise(module)
    with pytest.raises(ModelLoadError):
        recognise(ORDERS[order](module.state_dict()), options={"heads": 2})


def test_precedence_of_answers() -> None:
    state_dict = dict(build("timm")[0].state_dict())

    def epsilon(**sources) -> float:
        return recognise(state_dict, **sources).config.norm_eps

    sources = {
        "metadata": {"norm_eps": "1e-3", "unrelated": "text"},
        "sidecar": {"norm_eps": 1e-4, "author": "someone"},
        "options": {"norm_eps": 1e-6},
    }
    assert epsilon() == 1e-5
    assert epsilon(metadata=sources["metadata"]) == 1e-3
    assert epsilon(metadata={METADATA_KEY: json.dumps({"norm_eps": 2e-3})}) == 2e-3
    assert epsilon(metadata=sources["metadata"], sidecar=sources["sidecar"]) == 1e-4
    assert epsilon(**sources) == 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": 3}, "unknown options head; Dense-Iso-ViT knows heads"),
        ({"gated_half": "third"}, "option gated_half='third': expected one of second, first"),
        ({"norm": "rms"}, "unknown options norm"),
        ({"head_activation": "gelu@everywhere"}, "as in gelu@fusion"),
        ({"depths": "1,2"}, "depths=.* for 6 blocks|contradicts"),
        ({"heads": "x"}, "option heads='x': expected whole numbers, as in 6,8,6,8$"),
        ({"heads": 2.5}, r"option heads=2\.5: expected whole numbers"),
        ({"window": "wide"}, "option window='wide': expected whole numbers"),
        ({"norm_eps": "tiny"}, "option norm_eps='tiny': expected a number, as in 1e-5$"),
        ({"heads": "2,3"}, "heads has 2 entries for 3 stages"),
        ({"heads": "3,3,3"}, "3 heads do not divide the width 8"),
        ({"head_activation": "gelu,none"}, "2 entries for 6 convolutions"),
        ({"align_corners": "perhaps"}, "expected true or false"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        recognise(dict(build("timm")[0].state_dict()), options=options)


def test_what_was_assumed_is_in_tags_and_log(caplog: pytest.LogCaptureFixture) -> None:
    state_dict = dict(build("timm with stage norms")[0].state_dict())
    with caplog.at_level(logging.INFO):
        tags = DenseIsoViTArch().load(state_dict, heads=(2, 3, 2)).tags
    for name in ("gated_half=second", "head_activation=none", "stage_norm_routing=both", "align_corners=False",
                 "norm_eps=1e-05", "value_range=0..1", "qkv_layout=3hd"):  # fmt: skip
        assert f"assumed {name}" in tags
        assert f"assumed {name}" in caplog.text
    assert not any("heads" in tag for tag in tags)


@pytest.mark.parametrize(
    "name", ["timm with stage norms", "Restormer", "head by head", "one stage"]
)
def test_converted_weights_are_in_own_naming(name: str) -> None:
    module, options = build(name)
    recognised = recognise(module.state_dict(), options=options)
    config = infer_config(recognised.weights)
    assert (config.dims, config.depths, config.hidden) == (
        recognised.config.dims,
        recognised.config.depths,
        recognised.config.hidden,
    )


def test_source_is_left_alone() -> None:
    state_dict = dict(build("MultiheadAttention")[0].state_dict())
    before = {key: tensor.clone() for key, tensor in state_dict.items()}
    DenseIsoViTArch().load(state_dict)
    assert list(state_dict) == list(before)
    assert all(torch.equal(state_dict[key], before[key]) for key in before)


@pytest.mark.parametrize("entry", [{"residual": "image"}, {"swap_paths": True}])
@pytest.mark.parametrize("source", ["sidecar", "metadata"])
def test_answers_that_are_no_longer_read_are_refused(source: str, entry: dict) -> None:
    """They once changed the result; without a word it would be another one."""
    (name,) = entry
    with pytest.raises(ModelLoadError, match=f"{source} {name}=.* is no longer read"):
        recognise(dict(build("timm")[0].state_dict()), **{source: entry})


def test_the_first_path_on_the_second_half() -> None:
    module, options = build("timm")
    swapped = dict(module.state_dict())
    for key in [key for key in swapped if ".path_1." in key]:
        other = key.replace("path_1", "path_2")
        swapped[key], swapped[other] = swapped[other], swapped[key]
    assert outcome(swapped, module, options)[0] == "wrong"
    answer = {**options, "gated_half": "second swapped"}
    assert outcome(swapped, module, answer)[0] == "exact"


def test_error_names_the_tensors() -> None:
    state_dict = near_miss("extra vector")
    with pytest.raises(ModelLoadError) as caught:
        recognise(state_dict)
    assert re.search(r"extra \(8,\)", str(caught.value))
