"""This package's architectures in spandrel's registry, so that other loaders find them."""

from __future__ import annotations

from spandrel import MAIN_REGISTRY, Architecture, ArchRegistry, ArchSupport

from .dense_iso_vit import DenseIsoViTArch
from .fdat import FDATArch


def own_architectures() -> tuple[FDATArch, DenseIsoViTArch]:
    """Fresh instances, in the order in which this package's loader asks them."""
    return FDATArch(), DenseIsoViTArch()


def install(registry: ArchRegistry = MAIN_REGISTRY) -> None:
    """Add Dense-Iso-ViT, and FDAT where the registry has none, to ``registry``.

    Idempotent: an architecture whose id is registered already (by spandrel, by another pack, by an earlier call) is
    left as it is. Atomic: after an error the registry is what it was.
    """
    own: list[Architecture] = list(own_architectures())
    registry.add(*(ArchSupport.from_architecture(arch) for arch in own), ignore_duplicates=True)
