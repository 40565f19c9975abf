"""Networks that look like FDAT: said what they are, and left to another architecture that knows
them. Tensors are named as their trainers name them (traiNNer-redux; FDAT-RD's converter)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from spandrel import MAIN_REGISTRY, Architecture, ArchSupport, ImageModelDescriptor
from torch import Tensor, nn

from fdat_dense_iso.arch import ModelLoadError, load_model
from fdat_dense_iso.arch.fdat.architecture import FDATArch
from tests.helpers.fdat_cases import random_fdat, small

StateDict = dict[str, Tensor]


def fdat(**fields: object) -> StateDict:
    return dict(random_fdat(small("pixelshuffle", 2, **fields)).state_dict())


def fdat_rd() -> StateDict:
    """Blocks spatial, channel, dictionary; windows of 10 x 30."""
    state_dict = fdat(group_block_pattern=("spatial", "channel", "channel"))
    for group in range(2):
        block = f"groups.{group}.blocks.2."
        state_dict = {
            key: value
            for key, value in state_dict.items()
            if not key.startswith((f"{block}attn.", f"{block}conv.", f"{block}inter."))
        }
        state_dict |= {
            f"groups.{group}.blocks.0.attn.bias": torch.zeros(3, 300, 300),
            f"{block}attn.dictionary": torch.zeros(64, 24),
            f"{block}attn.r_q.weight": torch.zeros(24, 24),
        }
    return state_dict


def tfdat() -> StateDict:
    return fdat() | {
        "flow_net.enc.0.weight": torch.zeros(8, 6, 3, 3),
        "temporal_fuse.0.weight": torch.zeros(24, 48, 1, 1),
    }


def early_lhan() -> StateDict:
    kept = {key: value for key, value in fdat().items() if not key.startswith("upsampler.")}
    return kept | {
        "upsampler.conv_pre.weight": torch.zeros(12, 24, 3, 3),
        "upsampler.conv_post.weight": torch.zeros(3, 3, 3, 3),
    }


def rectangular() -> StateDict:
    return fdat() | {f"groups.{g}.blocks.0.attn.bias": torch.zeros(3, 128, 128) for g in range(2)}


RELATIVES: dict[str, tuple[Callable[[], StateDict], str]] = {
    "FDAT-RD": (fdat_rd, "it is FDAT-RD"),
    "early LHAN": (early_lhan, "it is the first version of LHAN"),
    "rectangular windows": (rectangular, "windows of 128 positions"),
}


@pytest.mark.parametrize("name", RELATIVES)
def test_says_what_it_is(name: str) -> None:
    make, message = RELATIVES[name]
    assert not FDATArch().detect(make())
    with pytest.raises(ModelLoadError, match=f"{message}.*not read here"):
        load_model(make())


def test_tfdat_is_left_to_its_own_architecture() -> None:
    assert not FDATArch().detect(tfdat())
    with pytest.raises(ModelLoadError, match="looks like TFDAT"):
        load_model(tfdat() | {"flow_net.flow_pred.weight": torch.zeros(2, 8, 3, 3)})


class Knowing(Architecture[nn.Module]):
    """Another pack's architecture that knows a relative, registered after FDAT."""

    def __init__(self, key: str) -> None:
        super().__init__(id="Knowing", detect=lambda state_dict: key in state_dict)

    def load(self, state_dict: StateDict) -> ImageModelDescriptor:
        network = nn.Conv2d(3, 3, 1)
        return ImageModelDescriptor(
            network,
            network.state_dict(),
            architecture=self,
            purpose="Restoration",
            tags=[],
            supports_half=True,
            supports_bfloat16=True,
            scale=1,
            input_channels=3,
            output_channels=3,
        )


@pytest.mark.parametrize("name", [*RELATIVES, "a damaged FDAT"])
def test_another_architecture_that_knows_it_loads_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = {**fdat(), "more": torch.zeros(3)}
    state_dict = RELATIVES[name][0]() if name in RELATIVES else damaged
    registry = MAIN_REGISTRY.copy()
    registry.add(ArchSupport.from_architecture(Knowing("conv_after.weight")))
    monkeypatch.setattr("fdat_dense_iso.arch.load.MAIN_REGISTRY", registry)
    assert load_model(state_dict).architecture.id == "Knowing"


def test_a_dense_iso_vit_that_can_not_be_read_is_left_to_others_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.arch.dense_iso.test_meta import saved

    damaged = {key: value for key, value in saved().items() if key != "head.5.bias"}
    with pytest.raises(ModelLoadError, match=r"head\.5\.bias: found nothing"):
        load_model(damaged)
    registry = MAIN_REGISTRY.copy()
    registry.add(ArchSupport.from_architecture(Knowing("patch_embedding.weight")))
    monkeypatch.setattr("fdat_dense_iso.arch.load.MAIN_REGISTRY", registry)
    assert load_model(damaged).architecture.id == "Knowing"


def test_a_detector_that_fails_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(state_dict: StateDict) -> bool:
        raise KeyError("x")

    registry = MAIN_REGISTRY.copy()
    registry.add(ArchSupport(Knowing("x"), broken, before=("Compact",)))  # type: ignore[arg-type]
    registry.add(
        ArchSupport.from_architecture(
            type("Late", (Knowing,), {"__init__": lambda self: Architecture.__init__(
                self, id="Late", detect=lambda state_dict: "y" in state_dict)})()
        )
    )  # fmt: skip
    monkeypatch.setattr("fdat_dense_iso.arch.load.MAIN_REGISTRY", registry)
    assert load_model({"y": torch.zeros(3)}).architecture.id == "Late"
