"""Real files of checkpoints by other authors through `load_model`: as written, and as safetensors
in both orders."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load, save, save_file
from spandrel import ImageModelDescriptor
from torch import Tensor, nn

from fdat_dense_iso.arch import ModelLoadError, load_model, parse_options
from fdat_dense_iso.arch.dense_iso.reading.recognise import recognise
from tests.helpers.dense_iso_variants import UNORDERED, VARIANTS, build, randomise
from tests.helpers.dense_iso_variants.orders import Net, OneLevel, one_shuffle
from tests.helpers.pickles import pickles

StateDict = dict[str, Tensor]

FILES = {
    "definition.pth": torch.save,
    "by_name.safetensors": lambda state_dict, path: save_file(contiguous(state_dict), path),
    "by_hash.pth": lambda state_dict, path: torch.save(load(save(contiguous(state_dict))), path),
}
SAMPLE = ["MultiheadAttention", "sequence first", "odd names"]


def contiguous(state_dict: StateDict) -> StateDict:
    return {key: tensor.contiguous() for key, tensor in state_dict.items()}


def difference(model: ImageModelDescriptor, module: nn.Module) -> float:
    """Largest difference of the outputs for an image of one window, relative to the largest
    output."""
    side = model.model.window
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = module(image), model.model(image)
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1))


@pickles
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", SAMPLE)
def test_file_is_read_exactly(name: str, file: str, tmp_path: Path) -> None:
    """All variants are tried in memory, in the same orders, by test_match."""
    module, options = build(name)
    FILES[file](dict(module.state_dict()), tmp_path / file)
    if name in UNORDERED and file != "definition.pth":
        with pytest.raises(ModelLoadError, match=r"nothing tells .* apart"):
            load_model(tmp_path / file, **options)
        return
    model = load_model(tmp_path / file, **options)
    assert model.architecture.id == "DenseIsoViT"
    assert difference(model, module) < 1e-5


@pickles
@pytest.mark.parametrize("file", FILES)
def test_an_output_called_out_may_be_attentions(file: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Net(OneLevel, one_shuffle()).eval()
    randomise(module)
    FILES[file](dict(module.state_dict()), tmp_path / file)
    if file == "definition.pth":
        assert difference(load_model(tmp_path / file, heads=2), module) < 1e-5
    else:
        with pytest.raises(ModelLoadError, match="nothing tells attention and GDFN apart"):
            load_model(tmp_path / file, heads=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("published")])
def test_published_size_through_both_kinds_of_file(name: str, tmp_path: Path) -> None:
    module, _ = build(name)
    networks = []
    for file in ("definition.pth", "by_name.safetensors"):
        FILES[file](dict(module.state_dict()), tmp_path / file)
        networks.append(load_model(tmp_path / file).model.state_dict())
        (tmp_path / file).unlink()
    recognised = recognise(module.state_dict())
    for network in networks:
        for key, tensor in recognised.weights.items():
            assert torch.equal(network["network." + key], tensor), key


def surroundings(state_dict: StateDict) -> dict[str, dict]:
    """What training frameworks store around the weights."""
    zeros = {key: torch.zeros_like(tensor) for key, tensor in state_dict.items()}
    moments = {
        i: {"exp_avg": tensor, "step": torch.tensor(3.0)} for i, tensor in enumerate(zeros.values())
    }
    optimizer = {
        "state": moments,
        "param_groups": [{"lr": 1e-4, "params": list(range(len(zeros)))}],
    }
    compiled = {"_orig_mod.module." + key: tensor for key, tensor in state_dict.items()}
    return {
        "BasicSR": {
            "params": zeros,
            "params_ema": state_dict,
            "iter": 500000,
            "note": "best",
            "psnr": numpy.float64(28.41),
        },
        "compiled and distributed": {
            "params_ema": compiled,
            "optimizer": optimizer,
            "epoch": 3,
            "best": None,
        },
        "distributed and compiled": {
            "state_dict": {"module._orig_mod." + k: v for k, v in state_dict.items()}
        },
        "Lightning": {
            "state_dict": {"model.net." + k: v for k, v in state_dict.items()},
            "optimizer_states": [optimizer],
            "hyper_parameters": {"lr": 1e-4, "dims": [8, 12, 16]},
            "pytorch-lightning_version": "2.4.0",
            "callbacks": {},
        },
        "timm": {
            "state_dict": zeros,
            "state_dict_ema": state_dict,
            "args": argparse.Namespace(lr=1e-4),
            "epoch": 9,
        },
        "DeepSpeed": {
            "module": state_dict,
            "ds_config": {"zero": 0},
            "lr_scheduler": {"last_epoch": 3},
        },
        "Accelerate": {
            "model": {"module": state_dict},
            "rng": torch.get_rng_state(),
            "steps": torch.tensor(7),
        },
    }


@pickles
@pytest.mark.parametrize("kind", surroundings({}))
def test_whole_training_states(kind: str, tmp_path: Path) -> None:
    module, options = build("timm")
    torch.save(surroundings(dict(module.state_dict()))[kind], tmp_path / "training.pth")
    assert difference(load_model(tmp_path / "training.pth", **options), module) < 1e-5


def test_typed_options_come_before_sidecar_before_metadata(tmp_path: Path) -> None:
    module, _ = build("timm")
    path = tmp_path / "model.safetensors"

    def epsilon(text: str = "") -> float:
        return load_model(path, **parse_options(text)).model.network.config.norm_eps

    save_file(contiguous(module.state_dict()), path)
    assert epsilon() == 1e-5
    save_file(contiguous(module.state_dict()), path, {"norm_eps": "1e-3"})
    assert epsilon() == 1e-3
    path.with_suffix(".json").write_text('{"norm_eps": 1e-4, "heads": [2, 3, 2]}')
    assert epsilon() == 1e-4
    assert epsilon("norm_eps=1e-6; heads=2,3,2") == 1e-6


@pytest.mark.parametrize(
    ("sidecar", "metadata", "message"),
    [
        ({"skip": "zzz"}, {}, "skip"),
        ({"heads": "banana"}, {}, "heads"),
        ({}, {"dense_iso_vit": "{broken"}, "not JSON"),
        ({}, {"head_activation": "sigmoidal"}, "head_activation"),
        ({"container": "elsewhere"}, {}, "elsewhere"),
        ({"window": 128}, {}, r"sidecar window=128 contradicts the tensors, which say 16"),
    ],
)
def test_what_is_wrong_beside_the_weights_is_said(
    tmp_path: Path, sidecar: dict, metadata: dict, message: str
) -> None:
    """It must not fall through to spandrel's registry, which would load the network without any of
    it."""
    module, _ = build("timm")
    path = tmp_path / "model.safetensors"
    save_file(contiguous(module.state_dict()), path, metadata)
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    with pytest.raises(ModelLoadError, match=message):
        load_model(path)


def test_quantised_weights_are_refused() -> None:
    module, _ = build("timm")
    with pytest.raises(ModelLoadError, match="quantised"):
        load_model(
            {name: (50 * tensor).to(torch.int8) for name, tensor in module.state_dict().items()}
        )


def one_list(state_dict: StateDict) -> StateDict:
    """Both stages of equal width in one list of blocks."""
    names = {f"part{i}.{j}.": f"blocks.{2 * i + j}." for i in range(2) for j in range(2)}
    return {
        next((new + k[8:] for old, new in names.items() if k.startswith(old)), k): v
        for k, v in state_dict.items()
    }


FILE_OPTIONS = {  # option: variant, what the file holds, value
    "container": ("timm", lambda s: {"old": {k: v / 2 for k, v in s.items()}, "mine": s}, "mine"),
    "prefix": (
        "timm",
        lambda s: {"more.0.weight": torch.zeros(4, 3, 3), **{"n." + k: v for k, v in s.items()}},
        "n.",
    ),
    "depths": ("no transitions, x8", one_list, "2,2"),
}


@pickles
@pytest.mark.parametrize("option", FILE_OPTIONS)
def test_options_about_the_file_reach_the_loader(option: str, tmp_path: Path) -> None:
    """They decide whether it is a Dense-Iso-ViT at all."""
    name, content, value = FILE_OPTIONS[option]
    module, options = build(name)
    torch.save(content(dict(module.state_dict())), tmp_path / "model.pth")
    model = load_model(tmp_path / "model.pth", **options, **parse_options(f"{option}={value}"))
    assert difference(model, module) < 1e-5
    assert not any(tag.startswith("guessed") for tag in model.tags)
    if option == "container":  # without it the first one is taken, and said to be
        model = load_model(tmp_path / "model.pth", **options)
        assert difference(model, module) > 1e-3 and any(
            "option container" in tag for tag in model.tags
        )
    elif option != "depths":  # which are even here, and so guessed
        with pytest.raises(ModelLoadError):
            load_model(tmp_path / "model.pth", **options)


@pickles
def test_the_refusal_says_what_did_not_fit(tmp_path: Path) -> None:
    state_dict = {**build("timm")[0].state_dict(), "extra": torch.zeros(5)}
    torch.save(state_dict, tmp_path / "model.pth")
    for options in ({}, {"heads": 2}):
        with pytest.raises(
            ModelLoadError,
            match=r"As a Dense-Iso-ViT: tensors that this network does not have: \[extra",
        ):
            load_model(tmp_path / "model.pth", **options)
