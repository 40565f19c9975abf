"""From a checkpoint of any known architecture to a spandrel descriptor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from spandrel import (
    MAIN_REGISTRY,
    ImageModelDescriptor,
    ModelDescriptor,
    UnsupportedModelError,
    canonicalize_state_dict,
)
from torch import Tensor

from .errors import ModelLoadError
from .files import read_checkpoint, read_sidecar
from .registry import own_architectures

OWN_IDS = {"FDAT", "DenseIsoViT"}
COMPILED_PREFIXES = ("_orig_mod.", "module.")


def load_model(source: str | Path | Mapping[str, Any], **options: Any) -> ImageModelDescriptor:
    """Load an upscaling or restoration model of FDAT, Dense-Iso-ViT or any architecture that spandrel knows.

    Args:
        source: path of a .safetensors, .pth, .pt or .ckpt file, or a state dict (left as it is).
        options: what the tensors can't tell, for this package's architectures only. FDAT: ``scale``. Dense-Iso-ViT:
            those of `arch.dense_iso_options`, which a JSON file of the checkpoint's name beside it and the metadata of
            a safetensors file may hold too; in this order of precedence.

    Returns:
        The model on the CPU in float32 and eval mode: ``descriptor(image)`` takes (1, C, H, W) in [0, 1].

    Raises:
        ModelLoadError: the file can't be read, isn't an image model, is damaged, or an option doesn't apply.
    """
    sidecar: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    if isinstance(source, Mapping):
        name, content = "state dict", source
    else:
        name = Path(source).name
        content, metadata = read_checkpoint(source)
        sidecar = read_sidecar(source)
    state_dict = _tensors_of(name, content)
    try:
        descriptor = _load(state_dict, content, options, sidecar, metadata)
    except UnsupportedModelError as error:
        raise ModelLoadError(
            f"{name}: not an upscaling model known here. {_summary(state_dict)} Supported: FDAT, Dense-Iso-ViT and "
            f"spandrel's architectures ({', '.join(sorted({a.architecture.id for a in MAIN_REGISTRY} - OWN_IDS))})"
        ) from error
    except Exception as error:
        if isinstance(error, ModelLoadError):
            raise ModelLoadError(f"{name}: {error}") from error
        reason = " ".join(str(error).split())
        raise ModelLoadError(f"{name}: looks like a known architecture but does not fit it: {reason}") from error
    if not isinstance(descriptor, ImageModelDescriptor):
        raise ModelLoadError(
            f"{name}: {descriptor.architecture.name} is an inpainting model that needs a mask; use a model that takes "
            "an image alone"
        )
    return descriptor.eval()


def _load(
    state_dict: dict[str, Tensor],
    content: Mapping[str, Any],
    options: dict[str, Any],
    sidecar: dict[str, Any],
    metadata: dict[str, str],
) -> ModelDescriptor:
    fdat, dense_iso_vit = own_architectures()
    if fdat.detect(state_dict):
        if unknown := set(options) - {"scale"}:
            raise ModelLoadError(f"FDAT has no such option: {', '.join(sorted(unknown))}; it has: scale")
        return fdat.load(state_dict, **options)
    if dense_iso_vit.detect(dict(content)):  # unwraps by itself: it knows which of several sets of weights to take
        return dense_iso_vit.load(dict(content), sidecar=sidecar, metadata=metadata, **options)
    if options:
        raise ModelLoadError(f"the options {', '.join(options)} are for FDAT and Dense-Iso-ViT, which this is not")
    return MAIN_REGISTRY.load(state_dict)


def _tensors_of(name: str, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Unwrap containers and prefixes, drop what is no tensor, refuse what can't be weights."""
    state_dict: Mapping[str, Any] = content
    if not any(isinstance(value, Tensor) for value in content.values()):
        state_dict = canonicalize_state_dict(dict(content))
    tensors = {str(key): value for key, value in state_dict.items() if isinstance(value, Tensor)}
    for prefix in COMPILED_PREFIXES * 2:
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    if not tensors:
        found = ", ".join(map(str, list(content)[:6])) or "nothing"
        raise ModelLoadError(f"{name}: holds no tensors (found: {found}); a state dict was expected")
    for key, value in tensors.items():
        if value.is_floating_point() and value.element_size() > 1 and not torch.isfinite(value).all():
            raise ModelLoadError(f"{name}: the tensor {key!r} holds NaN or infinite values; the checkpoint is damaged")
    return dict(canonicalize_state_dict(tensors))


def _summary(state_dict: dict[str, Tensor]) -> str:
    first = ", ".join(f"{key} {tuple(value.shape)}" for key, value in list(state_dict.items())[:4])
    tensors = "1 tensor" if len(state_dict) == 1 else f"{len(state_dict)} tensors"
    return f"Found {tensors}, starting with {first}."
