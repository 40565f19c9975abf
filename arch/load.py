"""Loads a checkpoint of any known architecture as a spandrel descriptor."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
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

from .dense_iso.architecture import DenseIsoViTArch
from .dense_iso.reading.evidence import NoResemblanceError
from .dense_iso.reading.options import OPTIONS
from .dense_iso.reading.recognise import refusal
from .errors import ModelLoadError
from .fdat.architecture import FDATArch
from .files import read_checkpoint, read_sidecar
from .guards import usual_defaults
from .info import remember_file
from .registry import ARCHITECTURES, extended_registry

COMPILED_PREFIXES = ("_orig_mod.", "module.")
QUANTISED_TYPES = (torch.int8, torch.uint8, torch.int16)  # index tensors have larger types


def load_model(
    source: str | PathLike[str] | Mapping[str, Any], **options: Any
) -> ImageModelDescriptor:
    """Load an upscaling or restoration model: FDAT, Dense-Iso-ViT or any that spandrel knows.

    Args:
        source: path of a .safetensors, .pth, .pt or .ckpt file, or a state dict (not modified).
        options: what the tensors can't tell, for this package's architectures only. FDAT:
            ``scale``. Dense-Iso-ViT: those of `arch.dense_iso.reading.options`; they precede those
            in a JSON file beside the checkpoint, and these the metadata of a safetensors file.
            Values may be text, as `parse_options` returns them.

    Returns:
        The model on the CPU in float32 and eval mode: ``descriptor(image)`` takes (1, C, H, W) in
        [0, 1].

    Raises:
        ModelLoadError: the file can't be read, isn't an image model, is damaged, or an option
            doesn't apply.
    """
    if not isinstance(source, Mapping | str | PathLike):
        raise ModelLoadError(
            f"found a {type(source).__name__}; the path of a checkpoint or a state dict was expected"
        )
    source = source if isinstance(source, Mapping) else Path(source)
    name = source.name if isinstance(source, Path) else "state dict"
    try:
        with usual_defaults():
            content, metadata = (
                (dict(source), {}) if isinstance(source, Mapping) else read_checkpoint(source)
            )
            descriptor = _load(content, metadata, source, options)
    except UnsupportedModelError as error:
        own = {made.id: made.name for made in (architecture() for architecture in ARCHITECTURES)}
        others = sorted({support.architecture.id for support in MAIN_REGISTRY} - set(own))
        raise ModelLoadError(
            f"{name}: not an upscaling model known here. {error} Supported: "
            f"{', '.join(own.values())} and spandrel's architectures ({', '.join(others)})"
        ) from error
    except ModelLoadError as error:
        raise (
            error if str(error).startswith(name) else ModelLoadError(f"{name}: {error}")
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModelLoadError(
            f"{name}: looks like a known architecture but does not fit it: {reason}"
        ) from error
    if not isinstance(descriptor, ImageModelDescriptor):
        raise ModelLoadError(
            f"{name}: {descriptor.architecture.name} is an inpainting model that needs a mask; use a model that takes "
            "an image alone"
        )
    if not isinstance(source, Mapping):
        remember_file(descriptor, source, metadata)
    return descriptor.eval()


def _load(
    content: dict[str, Any],
    metadata: dict[str, str],
    source: Path | Mapping[str, Any],
    options: dict[str, Any],
) -> ModelDescriptor:
    sidecar, unreadable = {}, None
    try:
        sidecar = {} if isinstance(source, Mapping) else read_sidecar(source)
    except ModelLoadError as error:
        # raised below only if this is a Dense-Iso-ViT: other models may have a JSON file of any
        # kind
        unreadable = error
    known = {name: value for name, value in options.items() if name in OPTIONS}
    refused = refusal(content, options=known, sidecar=sidecar, metadata=metadata)
    if refused is None:  # the content is not unwrapped: it may hold several sets of weights
        if unreadable is not None:
            raise unreadable
        return DenseIsoViTArch().load(content, sidecar=sidecar, metadata=metadata, **options)
    why = "" if isinstance(refused, NoResemblanceError) else f" As a Dense-Iso-ViT: {refused}."
    state_dict = _tensors_of(content)
    fdat = FDATArch()
    if fdat.detect(state_dict):
        if unknown := set(options) - {"scale"}:
            raise ModelLoadError(
                f"FDAT has no such option: {', '.join(sorted(unknown))}; it has: scale"
            )
        return fdat.load(state_dict, scale=_scale(options.get("scale")))
    if options:
        raise ModelLoadError(
            f"the options {', '.join(options)} are for FDAT and Dense-Iso-ViT, which this is not.{why or f' {refused}'}"
        )
    try:
        return extended_registry(MAIN_REGISTRY).load(state_dict)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(_summary(state_dict) + why) from error


def _scale(given: Any) -> int | None:
    if given is None or isinstance(given, int):
        return given
    if not str(given).isdecimal():
        raise ModelLoadError(f"the option scale is a whole number, not {given!r}")
    return int(given)


def _tensors_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Unwrap containers and prefixes, drop what is not a tensor, refuse what can't be a weight."""
    state_dict: Mapping[str, Any] = content
    if not any(isinstance(value, Tensor) for value in content.values()):
        state_dict = canonicalize_state_dict({str(key): value for key, value in content.items()})
    tensors = {str(key): value for key, value in state_dict.items() if isinstance(value, Tensor)}
    for prefix in COMPILED_PREFIXES * 2:
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    if not tensors:
        found = ", ".join(map(str, list(content)[:6])) or "nothing"
        raise ModelLoadError(f"holds no tensors (found: {found}); a state dict was expected")
    for key, value in tensors.items():
        _check_tensor(key, value)
    return dict(canonicalize_state_dict(tensors))


def _check_tensor(key: str, value: Tensor) -> None:
    if value.layout is not torch.strided or value.is_meta or value.is_complex():
        raise ModelLoadError(
            f"the tensor {key!r} is {value.layout}, {value.dtype}, on {value.device}; no usable weight"
        )
    if value.dtype in QUANTISED_TYPES and value.ndim > 1:
        raise ModelLoadError(
            f"the tensor {key!r} is {value.dtype}: quantised or packed weights; floating-point ones were expected"
        )
    if value.untyped_storage().nbytes() < value.numel() * value.element_size():
        raise ModelLoadError(
            f"the tensor {key!r} claims {tuple(value.shape)} but stores less; the checkpoint is damaged"
        )
    if (
        value.is_floating_point()
        and not (value.float() if value.element_size() == 1 else value).isfinite().all()
    ):
        raise ModelLoadError(
            f"the tensor {key!r} holds NaN or infinite values; the checkpoint is damaged"
        )


def _summary(state_dict: dict[str, Tensor]) -> str:
    first = ", ".join(f"{key} {tuple(value.shape)}" for key, value in list(state_dict.items())[:4])
    tensors = "1 tensor" if len(state_dict) == 1 else f"{len(state_dict)} tensors"
    return f"Found {tensors}, starting with {first}."
