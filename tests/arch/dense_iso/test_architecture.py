"""Detection: no architecture of spandrel is taken for a Dense-Iso-ViT, and none takes a
Dense-Iso-ViT for its own."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
import spandrel.architectures
import torch
from spandrel import MAIN_REGISTRY, canonicalize_state_dict
from torch import Tensor, nn

from fdat_dense_iso.arch.dense_iso.reading.recognise import is_dense_iso_vit
from fdat_dense_iso.arch.registry import ARCHITECTURES
from tests.helpers.dense_iso_variants import SMALL, build
from tests.helpers.dense_iso_variants.outcomes import sampled

OWN_IDS = {"DenseIsoViT"}
SMALLER = {"depths": [1, 1], "num_heads": [2, 2], "embed_dim": 16}
# what constructors need beyond their defaults, or what keeps those small that can't be built
# without memory
ARGUMENTS: dict[str, dict] = {
    "UnetUpsampler": {"dim": 16, "image_size": 64, "input_image_size": 16,
                      "style_network": {"dim_in": 16, "dim_out": 16, "depth": 1}},
    "DAT": {"embed_dim": 16, "depth": [1, 1], "num_heads": [2, 2], "upscale": 4},
    "DRCT": {"depths": (1, 1), "num_heads": (2, 2), "embed_dim": 16, "gc": 4, "upscale": 4},
    "FDAT": {"embed_dim": 16, "num_groups": 1, "depth_per_group": 1, "num_heads": 2},
    "GRL": {"depths": [1], "num_heads_window": [2], "num_heads_stripe": [2], "embed_dim": 16},
    "HAT": {"depths": (1, 1), "num_heads": (2, 2), "embed_dim": 24, "upscale": 4},
    "IPT": {"num_layers": 1, "n_feats": 8, "num_heads": 2, "patch_size": 12},
    "MMRRDBNet_test": {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1},
    "MoSR": {"n_block": 2, "dim": 16},
    "RCAN": {"n_resgroups": 1, "n_resblocks": 1, "n_feats": 16},
    "RGT": {"embed_dim": 16, "depth": [1, 1], "num_heads": [2, 2], "upscale": 4},
    "SAFMN": {"dim": 16},
    "SAFMN_BCIE": {"dim": 16},
    "SCUNet": {"config": [1, 1, 1, 1, 1, 1, 1], "dim": 16},
    "SPAN": {"num_in_ch": 3, "num_out_ch": 3},
    "Swin2SR": {**SMALLER, "upscale": 4, "upsampler": "pixelshuffle"},
    "SwinIR": {**SMALLER, "upscale": 4, "upsampler": "pixelshuffle"},
    "Uformer": {"depths": [1] * 9, "embed_dim": 8},
}  # fmt: skip


def spandrel_classes() -> list[type[nn.Module]]:
    found = []
    for module in pkgutil.iter_modules(spandrel.architectures.__path__):
        if not module.name.startswith("_"):
            package = importlib.import_module(f"spandrel.architectures.{module.name}")
            exported = [getattr(package, name) for name in package.__all__]
            found += [e for e in exported if isinstance(e, type) and issubclass(e, nn.Module)]
    return found


CLASSES = spandrel_classes()


def state_dict_of(network: type[nn.Module]) -> dict[str, Tensor]:
    arguments = ARGUMENTS.get(network.__name__)
    if arguments is not None:
        return network(**arguments).state_dict()
    with torch.device("meta"):
        return network().state_dict()


def test_every_architecture_is_in_the_table() -> None:
    packages = {network.__module__.split(".")[2] for network in CLASSES}
    assert len(packages) == len(
        [entry for entry in MAIN_REGISTRY if entry.architecture.id not in OWN_IDS]
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("network", CLASSES, ids=lambda network: network.__name__)
def test_no_other_architecture_is_detected(network: type[nn.Module]) -> None:
    state_dict = state_dict_of(network)
    assert len(state_dict) > 3
    assert not is_dense_iso_vit(state_dict)
    # nor by the detectors of this package's other architectures
    claims = {made.id for made in (make() for make in ARCHITECTURES) if made.detect(state_dict)}
    assert claims == ({"FDAT"} if network.__name__ == "FDAT" else set())


@pytest.mark.parametrize("name", sampled(SMALL, 4))
def test_variants_are_claimed_by_nobody_else(name: str) -> None:
    state_dict = canonicalize_state_dict(dict(build(name)[0].state_dict()))
    claims = {entry.architecture.id for entry in MAIN_REGISTRY if entry.detect(state_dict)}
    assert claims <= OWN_IDS
    assert is_dense_iso_vit(state_dict)
