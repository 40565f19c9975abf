"""No detector of this package claims a network of spandrel, of its extra architectures or of another
of ours, whole or with a tensor missing; and none of theirs claims one of ours.

Networks are built of their classes' defaults, without memory: detectors look at names and shapes.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from spandrel import MAIN_REGISTRY, Architecture, ArchRegistry
from torch import Tensor, nn

from fdat_dense_iso.arch import ModelLoadError, load_model
from fdat_dense_iso.arch.dense_iso.architecture import DenseIsoViTArch
from fdat_dense_iso.arch.fdat.architecture import FDATArch
from fdat_dense_iso.arch.more import MEMBERS
from fdat_dense_iso.arch.more.member import Member
from fdat_dense_iso.arch.registry import ARCHITECTURES

ARGUMENTS: dict[str, dict[str, Any]] = {  # what classes can't do without
    "SPAN": {"num_in_ch": 3, "num_out_ch": 3},
    "MMRRDBNet_test": {"num_in_ch": 3, "num_out_ch": 3, "num_block": 1},
    "SAFMN": {"dim": 8},
    "SAFMN_BCIE": {"dim": 8},
    "NAFNet": {"enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
    "UnetUpsampler": {"dim": 8, "image_size": 64, "input_image_size": 16, "style_network": {}},
    "IPT": {"num_heads": 2, "num_layers": 1, "n_feats": 8},
    "SwinIR": {"window_size": 8},
    "Swin2SR": {"window_size": 8},
    "SRFormer": {
        "embed_dim": 12,
        "depths": (1,),
        "num_heads": (2,),
        "window_size": 8,
        "img_size": 16,
    },
    # what makes them small
    "Uformer": {"depths": [1] * 9},
    "KBNet_l": {"num_blocks": [1] * 4},
    "KBNet_s": {"enc_blk_nums": [1] * 4, "dec_blk_nums": [1] * 4, "middle_blk_num": 1},
    "CRAFT": {"depths": [1], "num_heads": [6]},
    "DAT": {"depth": [1], "num_heads": [2]},
    "HAT": {"depths": (1,), "num_heads": (2,)},
    "GRL": {"depths": [1], "num_heads_window": [2], "num_heads_stripe": [2]},
    "RCAN": {"n_resgroups": 1, "n_resblocks": 1, "n_feats": 16},
}
ON_THE_CPU = ("IPT", "RCAN")
"""Classes that can't be built without memory."""


def state_dicts(architecture: Architecture) -> Iterator[dict[str, Tensor]]:
    """Those of the classes of an architecture of spandrel."""
    module = importlib.import_module(type(architecture).__module__)
    classes = {c for c in vars(module).values() if inspect.isclass(c) and issubclass(c, nn.Module)}
    assert classes
    extra = module.__name__.startswith("spandrel_extra_arches")
    for one in sorted(classes, key=lambda one: one.__name__):
        with torch.device("cpu" if extra or one.__name__ in ON_THE_CPU else "meta"):
            network = one(**ARGUMENTS.get(one.__name__, {}))
        yield {
            key: torch.zeros((), dtype=value.dtype).expand(value.shape)
            for key, value in network.state_dict().items()
        }


def damaged(state_dict: dict[str, Tensor], count: int) -> Iterator[dict[str, Tensor]]:
    """The state dict, and some copies that each lack a tensor."""
    yield state_dict
    for name in list(state_dict)[:: max(len(state_dict) // count, 1)]:
        yield {key: value for key, value in state_dict.items() if key != name}


@pytest.fixture(autouse=True)
def drawn_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constructors ask for the numbers of ``linspace``, which tensors without memory don't have."""
    monkeypatch.setattr(torch, "linspace", functools.partial(torch.linspace, device="cpu"))


def check(architecture: Architecture) -> None:
    own = [make() for make in ARCHITECTURES]
    others = [one for one in own if one.id != architecture.id]
    for whole in state_dicts(architecture):
        assert architecture.id == "FDAT" or architecture.detect(whole)
        for state_dict in damaged(whole, 3):
            claims = [one.id for one in others if claimed(one, state_dict)]
            assert not claims


def claimed(architecture: Architecture, state_dict: dict[str, Tensor]) -> bool:
    try:
        return architecture.detect(state_dict)
    except (KeyError, IndexError, ValueError):  # which `load_model` takes for no
        return False


@pytest.mark.parametrize("name", [support.architecture.id for support in MAIN_REGISTRY])
def test_spandrels_networks_are_claimed_by_none_of_ours(name: str) -> None:
    check(MAIN_REGISTRY[name].architecture)


def test_extra_networks_are_claimed_by_none_of_ours() -> None:
    extra: ArchRegistry = pytest.importorskip("spandrel_extra_arches").EXTRA_REGISTRY
    for support in extra:
        check(support.architecture)


def test_extra_networks_load() -> None:
    """As ComfyUI loads them, but from Python and the command line."""
    pytest.importorskip("spandrel_extra_arches")
    from spandrel_extra_arches.architectures.SRFormer import SRFormer

    sizes = {"embed_dim": 12, "depths": (1, 1), "num_heads": (2, 2), "window_size": 8}
    network = SRFormer(**sizes, img_size=16, upscale=2, upsampler="pixelshuffle").eval()
    model = load_model({"params_ema": network.state_dict()})
    assert (model.architecture.id, model.scale) == ("SRFormer", 2)
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model(image), network(image).clamp(0, 1))
    from spandrel_extra_arches.architectures.MAT import MAT

    with pytest.raises(ModelLoadError, match="MAT is an inpainting model that needs a mask"):
        load_model(MAT().state_dict())


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.title)
def test_ours_with_a_tensor_missing_are_claimed_by_no_other(member: type[Member]) -> None:
    """But by those that it is asked before: such files are refused by name. Whole ones are tried by
    tests/arch/more/test_member.py."""
    registered = [support.architecture for support in MAIN_REGISTRY]
    own = [make() for make in (FDATArch, DenseIsoViTArch, *MEMBERS) if make is not member]
    for config in member.examples:
        state_dict = member().build(config).state_dict()
        for part in list(damaged(state_dict, 5))[1:]:
            claims = {one.id for one in [*registered, *own] if claimed(one, part)}
            assert claims <= set(member.before)
