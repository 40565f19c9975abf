"""Checkpoints of Dense-Iso-ViT in any spelling: recovered exactly, refused, or remarked on; never
silently wrong."""

from __future__ import annotations

import json
import logging
import math
import random
import re
from collections import Counter

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from fdat_dense_iso.arch.dense_iso.architecture import DenseIsoViTArch
from fdat_dense_iso.arch.dense_iso.checkpoint import infer_config
from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT
from fdat_dense_iso.arch.dense_iso.reading.evidence import AmbiguousCheckpointError
from fdat_dense_iso.arch.dense_iso.reading.options import METADATA_KEY
from fdat_dense_iso.arch.dense_iso.reading.recognise import is_dense_iso_vit, recognise
from fdat_dense_iso.arch.errors import ModelLoadError
from tests.helpers.dense_iso_variants import DROPPED, INEXACT, READ, VARIANTS, build, randomise
from tests.helpers.dense_iso_variants.orders import TwiceRegistered

StateDict = dict[str, Tensor]

ORDERS = {
    "definition": lambda state_dict: dict(state_dict),  # torch.save
    "name": lambda state_dict: dict(sorted(state_dict.items())),  # safetensors.torch.load_file
    "hash": lambda state_dict: load(
        save({key: tensor.contiguous() for key, tensor in state_dict.items()})
    ),
}
NAMELESS = {
    "odd names"
}  # names that say nothing: read in the order of definition, refused in any other
SMALL = [name for name in READ if not name.startswith("published")]


def difference(state_dict: dict, module: nn.Module, options: dict) -> tuple[float, list[str]]:
    """Largest difference of the outputs, relative to the largest output, and the remarks beyond
    plain assumptions."""
    recognised = recognise(state_dict, options=options)
    network = DenseIsoViT(recognised.config).eval()
    network.load_state_dict(recognised.weights)
    image = torch.rand(1, 3, recognised.config.window, recognised.config.window)
    with torch.no_grad():
        try:
            expected = module(image)
        except (
            RuntimeError
        ):  # a wrong window, which the module's own position embedding does not take
            return math.inf, [
                remark for remark in recognised.remarks() if not remark.startswith("assumed")
            ]
        error = float((network(image) - expected).abs().max() / expected.abs().max().clamp_min(1))
    return error, [remark for remark in recognised.remarks() if not remark.startswith("assumed")]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", SMALL)
def test_variant_is_recovered(name: str, order: str) -> None:
    module, options = build(name)
    if name in NAMELESS and order != "definition":
        with pytest.raises(AmbiguousCheckpointError, match="order"):
            recognise(ORDERS[order](module.state_dict()), options=options)
        return
    error, _ = difference(ORDERS[order](module.state_dict()), module, options)
    assert error < 1e-5 or name in INEXACT


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", DROPPED)
def test_what_can_not_be_read_is_refused(name: str, order: str) -> None:
    module, options = build(name)
    with pytest.raises(ModelLoadError, match=DROPPED[name]):
        recognise(ORDERS[order](module.state_dict()), options=options)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("published")])
def test_readings_of_the_published_size(name: str) -> None:
    module, options = build(name)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    assert (
        parameters
        == {"published, first reading": 23_845_507, "published, second reading": 23_851_651}[name]
    )
    error, remarks = difference(ORDERS["hash"](module.state_dict()), module, options)
    assert error < 1e-5 and not remarks


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
    "beside a loss": lambda s: {
        "state_dict": {
            **{"loss.vgg." + k: v for k, v in OTHER.items()},
            **{"net_g." + k: v for k, v in s.items()},
        },
        "hyper_parameters": {"lr": 1e-4},
    },
    "beside a discriminator and metrics": lambda s: {
        **{"G." + k: v for k, v in s.items()},
        **{"D." + k: v for k, v in OTHER.items()},
        "val_psnr.total": torch.tensor(3.0),
    },
    "beside its average and a discriminator": lambda s: {
        **{"model." + k: v * 0 if v.is_floating_point() else v for k, v in s.items()},
        **{"ema_model.module." + k: v for k, v in s.items()},
        **{"discriminator." + k: v for k, v in OTHER.items()},
    },
}
OTHER = {  # of a discriminator with spectral normalisation
    "0.weight": torch.ones(4, 3, 3, 3),
    "0.bias": torch.ones(4),
    "2.weight_orig": torch.ones(8, 4, 3, 3),
    "2.weight_u": torch.ones(8),
    "2.weight_v": torch.ones(36),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("name", ["lucid", "MultiheadAttention", "HuggingFace"])
def test_containers_and_prefixes(name: str, wrapping: str) -> None:
    module, options = build(name)
    error, _ = difference(WRAPPINGS[wrapping](dict(module.state_dict())), module, options)
    assert error < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files(dtype: torch.dtype) -> None:
    module, options = build("timm")
    module = module.to(dtype).float()
    error, _ = difference(
        {key: tensor.to(dtype) for key, tensor in module.state_dict().items()}, module, options
    )
    assert error < 1e-5


def random_name(rng: random.Random) -> str:
    return (
        "".join(
            rng.choice("abcdefghijklmnopqrstuvwxyz0123456789_") for _ in range(rng.randint(2, 7))
        ).strip("_")
        or "z"
    )


def renamed(state_dict: StateDict, style: str, rng: random.Random) -> StateDict:
    """Names without meaning, the structure as far as ``style`` keeps it."""
    known: dict[str, str] = {}

    def new_name(old: str, fresh: str) -> str:
        while fresh in known.values() and old not in known:
            fresh += rng.choice("abcdefgh")
        return known.setdefault(old, fresh)

    numbers = rng.sample(range(60), 60) if style == "numbered words" else []
    leaves = ["weight", "bias", "in_proj_weight", "in_proj_bias"]
    result = {}
    for key, tensor in state_dict.items():
        parts = key.split(".")
        module, leaf = (parts[:-1], parts[-1]) if parts[-1] in leaves else (parts, "")
        if style == "words":
            module = [
                part if part.isdigit() else new_name(part, random_name(rng)) for part in module
            ]
        elif style == "numbered words":
            module = [
                part if part.isdigit() else new_name(part, f"m{numbers[len(known) % 60]}")
                for part in module
            ]
        elif style == "every module":
            module = [
                new_name(".".join(parts[: i + 1]), random_name(rng)) for i in range(len(module))
            ]
        elif style == "underscores":
            module = ["_".join(module)]
        elif style == "flat":
            module = [new_name(".".join(module), random_name(rng))]
        elif style == "flat numbers":
            module = [new_name(".".join(module), f"layer{rng.randint(0, 400)}")]
        elif style == "leaves":
            leaf = new_name(leaf, random_name(rng)) if leaf else leaf
        result[".".join([*module, leaf] if leaf else module)] = tensor
    return result


STYLES = [
    "words",
    "numbered words",
    "every module",
    "underscores",
    "flat",
    "flat numbers",
    "leaves",
]


def test_fuzzed_names_are_never_silently_wrong() -> None:
    outcomes: Counter[str] = Counter()
    silent = []
    for seed in range(252):  # some variants can't be told without their names at all
        rng = random.Random(seed)
        name = rng.choice([name for name in SMALL if name not in INEXACT])
        order, style = rng.choice(list(ORDERS)), STYLES[seed % len(STYLES)]
        module, options = build(name, seed)
        state_dict = ORDERS[order](renamed(dict(module.state_dict()), style, rng))
        try:
            error, remarks = difference(state_dict, module, options)
        except ModelLoadError:
            outcomes["refused"] += 1
            continue
        if error < 1e-5:
            outcomes["exact"] += 1
        elif remarks:
            outcomes["warned"] += 1
        else:
            silent.append((seed, name, order, style, error))
    assert not silent
    assert outcomes["exact"] >= 70, outcomes


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
        (
            lambda s: {k: v for k, v in s.items() if "path_" not in k},
            "no depthwise 3x3 convolution",
        ),
        (
            lambda s: {k: v for k, v in s.items() if "patch" not in k},
            "0 convolutions from 3 channels",
        ),
        (lambda s: {"model": 3}, "no dictionary with at least"),
        (
            lambda s: {**s, "head.0.weight": torch.full_like(s["head.0.weight"], torch.nan)},
            "not finite",
        ),
    ],
)
def test_refusals_say_what_and_how(make, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        recognise(make(dict(build("timm")[0].state_dict())))


def test_prefix_option_leaves_other_networks_out() -> None:
    module, options = build("timm")
    state_dict = {"net." + key: tensor for key, tensor in module.state_dict().items()}
    state_dict["second.conv.weight"] = torch.zeros(4, 3, 3, 3)
    with pytest.raises(
        ModelLoadError,
        match=r"under 'net' are a Dense-Iso-ViT.* prefix='net', and leaves out 'second'",
    ):
        recognise(state_dict, options=options)
    error, _ = difference(state_dict, module, {**options, "prefix": "net."})
    assert error < 1e-5


def test_of_two_networks_that_no_word_tells_apart_none_is_taken() -> None:
    module, options = build("timm")
    state_dict = {"one." + key: tensor / 2 for key, tensor in module.state_dict().items()}
    state_dict |= {"two." + key: tensor for key, tensor in module.state_dict().items()}
    with pytest.raises(
        ModelLoadError, match="under 'one' or 'two' are a Dense-Iso-ViT: the option prefix"
    ):
        recognise(state_dict, options=options)
    error, _ = difference(state_dict, module, {**options, "prefix": "two"})
    assert error < 1e-5


@pytest.mark.parametrize("order", ["definition", "name"])
def test_stages_under_two_names_are_read_once(order: str) -> None:
    torch.manual_seed(0)
    module = TwiceRegistered().eval()
    randomise(module)
    recognised = recognise(ORDERS[order](module.state_dict()), options={"heads": 2})
    assert any("there twice taken once" in remark for remark in recognised.remarks())
    error, _ = difference(ORDERS[order](module.state_dict()), module, {"heads": 2})
    assert error < 1e-5


def test_meaningless_names_in_meaningless_order_are_refused() -> None:
    module, options = build("timm")
    shuffled = ORDERS["hash"](renamed(dict(module.state_dict()), "every module", random.Random(0)))
    with pytest.raises(ModelLoadError, match="order='file'"):
        recognise(shuffled, options=options)
    assert is_dense_iso_vit(shuffled)


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


def test_colours_of_the_file_are_remarked_on() -> None:
    state_dict = {**build("timm")[0].state_dict(), "mean": torch.full((1, 3, 1, 1), 0.5)}
    assert "colours shifted or scaled as mean say" in recognise(state_dict).remarks()


def test_error_names_the_tensors() -> None:
    state_dict = near_miss("extra vector")
    with pytest.raises(ModelLoadError) as caught:
        recognise(state_dict)
    assert re.search(r"extra \(8,\)", str(caught.value))
