"""`arch.install` on copies of spandrel's real registry, with and without its FDAT, and beside other
packs."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from spandrel import MAIN_REGISTRY, Architecture, ArchRegistry, ArchSupport, ModelLoader

from fdat_dense_iso.arch import install, load_model
from fdat_dense_iso.arch.dense_iso.architecture import DenseIsoViTArch
from fdat_dense_iso.arch.fdat.architecture import FDATArch
from fdat_dense_iso.arch.fdat.network import FDAT
from fdat_dense_iso.arch.registry import ARCHITECTURES, extended_registry
from tests.helpers.fdat_cases import random_fdat
from tests.helpers.paths import MODELS
from tests.helpers.spandrels_fdat import spandrels_fdat


def ids(registry: Iterable[ArchSupport]) -> list[str]:
    return [support.architecture.id for support in registry]


def without(registry: ArchRegistry, *unwanted: str) -> ArchRegistry:
    """A registry like that of an older spandrel."""
    result = ArchRegistry()
    result.add(*(support for support in registry if support.architecture.id not in unwanted))
    return result


@pytest.fixture
def registry() -> ArchRegistry:
    return MAIN_REGISTRY.copy()


def test_adds_dense_iso_vit_and_keeps_spandrels_fdat(registry: ArchRegistry) -> None:
    theirs = spandrels_fdat().FDATArch
    before = list(registry)
    install(registry)
    own = [architecture().id for architecture in ARCHITECTURES]
    assert ids(registry) == [*ids(before), *(name for name in own if name != "FDAT")]
    assert list(registry)[: len(before)] == before
    assert isinstance(registry["FDAT"].architecture, theirs)
    assert isinstance(registry["DenseIsoViT"].architecture, DenseIsoViTArch)


def test_the_order_of_detection_of_others_stays(registry: ArchRegistry) -> None:
    before = registry.architectures("detection")
    install(registry)
    assert [s for s in registry.architectures("detection") if s in before] == before


def test_adds_fdat_where_spandrel_has_none() -> None:
    registry = without(MAIN_REGISTRY, "FDAT")
    install(registry)
    assert isinstance(registry["FDAT"].architecture, FDATArch)
    loaded = ModelLoader(registry=registry).load_from_state_dict(random_fdat().state_dict())
    assert isinstance(loaded.model, FDAT)


def test_is_idempotent(registry: ArchRegistry) -> None:
    install(registry)
    first = list(registry)
    install(registry)
    assert list(registry) == first


def test_main_registry_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert install.__defaults__ == (MAIN_REGISTRY,)


class Foreign(Architecture):
    """Another pack's architecture with an id of ours."""

    def __init__(self, name: str) -> None:
        super().__init__(id=name, detect=lambda state_dict: False)

    def load(self, state_dict):
        raise NotImplementedError


@pytest.mark.parametrize("name", ["FDAT", "DenseIsoViT"])
def test_another_pack_was_there_first(name: str) -> None:
    registry = without(MAIN_REGISTRY, "FDAT")
    foreign = ArchSupport.from_architecture(Foreign(name))
    registry.add(foreign)
    install(registry)
    assert registry[name] is foreign
    assert len(set(ids(registry))) == len(ids(registry))


def test_an_error_leaves_the_registry_as_it_was(
    monkeypatch: pytest.MonkeyPatch, registry: ArchRegistry
) -> None:
    from fdat_dense_iso.arch import registry as registry_module

    def circular(architecture: Architecture, _before: tuple = ()) -> ArchSupport:
        other = "DenseIsoViT" if architecture.id != "DenseIsoViT" else "FDAT"
        return ArchSupport(architecture, architecture.detect, before=(other,))  # type: ignore[arg-type]

    registry = without(MAIN_REGISTRY, "FDAT")
    before = list(registry)

    class Circular:
        from_architecture = staticmethod(circular)

    monkeypatch.setattr(registry_module, "ArchSupport", Circular)
    with pytest.raises(ValueError, match="Circular"):
        install(registry)
    assert list(registry) == before


def test_core_style_loading_of_both(registry: ArchRegistry) -> None:
    """What core's loader does: `ModelLoader().load_from_state_dict(...)`, then `.patcher` is set on
    the result."""
    from fdat_dense_iso.arch.dense_iso.config import DenseIsoViTConfig, pixel_shuffle_head
    from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT

    install(registry)
    loader = ModelLoader(registry=registry)
    head = pixel_shuffle_head(fusion_width=8, widths=(8, 8, 8, 8))
    config = DenseIsoViTConfig(
        dims=(16, 24), depths=(1, 1), heads=(2, 2), hidden=(16, 24), head=head
    )
    network = DenseIsoViT(config).eval()
    dense = loader.load_from_state_dict(network.state_dict()).eval()
    dense.patcher = object()
    assert dense.architecture.id == "DenseIsoViT"
    image = torch.rand(1, 3, 70, 40)
    assert dense(image).shape == (1, 3, 70 * dense.scale, 40 * dense.scale)


@pytest.mark.parametrize("file", sorted(MODELS.glob("*.safetensors")), ids=lambda file: file.stem)
def test_bundled_models_by_tensors_alone(registry: ArchRegistry, file: Path) -> None:
    """Core's loader sees neither metadata nor sidecar; what it loads makes the same pixels."""
    install(registry)
    theirs = ModelLoader(registry=registry).load_from_state_dict(load_file(file)).eval()
    ours, image = load_model(file), torch.rand(1, 3, 70, 90)
    with torch.inference_mode():
        assert (theirs(image) - ours(image)).abs().max() <= 1e-4  # of 255 levels one is 4e-3


def test_extra_arches_are_used_where_they_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module, extra = ModuleType("spandrel_extra_arches"), ArchRegistry()
    extra.add(ArchSupport.from_architecture(Foreign("SRFormer")))
    module.EXTRA_REGISTRY = extra  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", module)
    assert "SRFormer" in ids(extended_registry(MAIN_REGISTRY))
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    assert "SRFormer" not in ids(extended_registry(MAIN_REGISTRY))
