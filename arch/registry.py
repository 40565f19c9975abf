"""Adds this package's architectures to spandrel's registry, so that other loaders find them.

A new architecture is one file in `arch.more` and one entry of its list:
docs/adding-an-architecture.md.
"""

from __future__ import annotations

from collections.abc import Callable

from spandrel import MAIN_REGISTRY, ArchId, Architecture, ArchRegistry, ArchSupport

from .dense_iso.architecture import DenseIsoViTArch
from .fdat.architecture import FDATArch
from .more import MEMBERS

ARCHITECTURES: tuple[Callable[[], Architecture], ...] = (FDATArch, DenseIsoViTArch, *MEMBERS)
"""In the order in which they are registered, after those that a registry has already."""


def install(registry: ArchRegistry = MAIN_REGISTRY) -> None:
    """Add `ARCHITECTURES` to ``registry``: of today's spandrel it lacks Dense-Iso-ViT alone.

    Idempotent: an architecture whose id is registered already (by spandrel, by another pack, by an
    earlier call) is left as it is. Atomic: after an error the registry is what it was.
    """
    own = [
        ArchSupport.from_architecture(
            architecture(), tuple(ArchId(name) for name in getattr(architecture, "before", ()))
        )
        for architecture in ARCHITECTURES
    ]
    registry.add(*own, ignore_duplicates=True)


def extended_registry(registry: ArchRegistry = MAIN_REGISTRY) -> ArchRegistry:
    """A copy of ``registry`` with this package's architectures in it, and with those of
    spandrel_extra_arches where that is installed (ComfyUI registers them by itself)."""
    extended = registry.copy()
    install(extended)
    try:
        from spandrel_extra_arches import EXTRA_REGISTRY  # type: ignore
    except ImportError:
        return extended
    extended.add(*EXTRA_REGISTRY, ignore_duplicates=True)
    return extended
