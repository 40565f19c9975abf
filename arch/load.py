"""Loads a checkpoint of any known architecture as a spandrel descriptor."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from spandrel import MAIN_REGISTRY, Architecture, ImageModelDescriptor, ModelDescriptor
from torch import Tensor

from ..common.printable import printable
from .checks import check_finite, check_kinds, check_precision
from .dense_iso.architecture import DenseIsoViTArch
from .dense_iso.reading.evidence import NoResemblanceError
from .dense_iso.reading.options import OPTIONS
from .dense_iso.reading.recognise import refusal
from .errors import ModelLoadError
from .fdat.relatives import relative
from .files import read_checkpoint, read_sidecar
from .guards import usual_defaults
from .info import remember_file
from .options import WHERE, reject_unknown
from .registry import ARCHITECTURES, extended_registry
from .twins import relative_of, twin_of
from .weights import weight_sets

logger = logging.getLogger(__name__)


def load_model(
    source: str | PathLike[str] | Mapping[str, Any], **options: Any
) -> ImageModelDescriptor:
    """Load an upscaling or restoration model: one of this package's, or any that spandrel knows.

    Args:
        source: path of a safetensors file or of one that torch.save wrote, or a state dict (not
            modified).
        options: what the tensors can't tell. ``container`` and ``prefix``, for every architecture,
            say which of several networks in the file is meant. The others are those of this
            package's architectures (`arch.options`); Dense-Iso-ViT's precede those in a JSON file
            beside the checkpoint, and these the metadata of a safetensors file. Values may be text,
            as `parse_options` returns them.

    Returns:
        The model on the CPU in float32 and eval mode: ``descriptor(image)`` takes (1, C, H, W) in
        [0, 1].

    Raises:
        ModelLoadError: the file can't be read, isn't an image model, is damaged, or an option
            doesn't apply.
    """
    path = None if isinstance(source, Mapping) else _path(source)
    name = "state dict" if path is None else printable(path.name)
    try:
        with usual_defaults():
            content, metadata = ({}, {}) if path is None else read_checkpoint(path)
            if isinstance(source, Mapping):
                content = {**source}
            descriptor = _load(content, metadata, path, options)
    except ModelLoadError as error:
        raise (
            error if str(error).startswith(name) else ModelLoadError(f"{name}: {error}")
        ) from error
    except Exception as error:  # damaged and hostile content can raise almost any
        raise ModelLoadError(f"{name}: can't be read: {type(error).__name__}: {error}") from error
    if not isinstance(descriptor, ImageModelDescriptor):
        raise ModelLoadError(
            f"{name}: {descriptor.architecture.name} is an inpainting model that needs a mask; use a model that takes "
            "an image alone"
        )
    if path is not None:
        remember_file(descriptor, path, metadata, options)
    return descriptor.eval()


def _path(source: object) -> Path:
    plain = fspath(source) if isinstance(source, PathLike) else source
    if not isinstance(plain, str):
        kind = type(source).__name__
        what = f"{kind} of {type(plain).__name__}" if plain is not source else kind
        raise ModelLoadError(
            f"found a {what}; the path of a checkpoint (text) or a state dict was expected"
        )
    return Path(plain)


def _load(
    content: dict[str, Any], metadata: dict[str, str], path: Path | None, options: dict[str, Any]
) -> ModelDescriptor:
    sidecar, unreadable, known_by_name = {}, None, None
    try:
        sidecar = {} if path is None else read_sidecar(path)
    except ModelLoadError as error:
        # raised below only if this is a Dense-Iso-ViT: other models may have a JSON file of any
        # kind
        unreadable = error
    known = {name: value for name, value in options.items() if name in OPTIONS}
    refused = refusal(content, options=known, sidecar=sidecar, metadata=metadata)
    if refused is None:
        if unreadable is not None:
            raise unreadable
        reject_unknown(options, DenseIsoViTArch())
        try:
            return DenseIsoViTArch().load(content, sidecar=sidecar, metadata=metadata, **options)
        except ModelLoadError as error:  # another architecture may know it
            refused, known_by_name = error, error
    sets = weight_sets(content, **{name: options.get(name) for name in WHERE})
    options = {name: value for name, value in options.items() if name not in WHERE}
    unusable: ModelLoadError | None = None
    for one in sets:
        try:
            check_kinds(one.tensors)
        except ModelLoadError as error:  # of what may be no network at all
            unusable = unusable or error
            continue
        failure: ModelLoadError | None = None
        for state_dict in one.levels():
            try:
                found = _claimed(state_dict, options)
            except ModelLoadError as error:
                failure = failure or error
                continue
            if found is not None:
                _tell(found, one.choice(sets))
                return found
        if failure is not None:  # it is the network that was meant: no other one instead
            raise known_by_name or failure
    if known_by_name is not None:
        raise known_by_name
    if unusable is not None:
        raise unusable
    why = "" if isinstance(refused, NoResemblanceError) else f" As a Dense-Iso-ViT: {refused}."
    if options:
        raise ModelLoadError(
            f"the options {', '.join(options)} are for {_own_names()}, which this is not."
            f"{why or f' {refused}'}"
        )
    raise ModelLoadError(
        f"not an upscaling model known here. {_summary(sets[0].named())}{why} {_supported()}"
    )


def _claimed(state_dict: dict[str, Tensor], options: dict[str, Any]) -> ModelDescriptor | None:
    """The model of the first architecture that knows these tensors and can load them, this
    package's first; None if none knows them.

    Raises:
        ModelLoadError: none that knows them can load them; it says why the first can't.
    """
    failures = []
    own = [make() for make in ARCHITECTURES if make is not DenseIsoViTArch]  # which was asked
    ids = {mine.id for mine in own}
    registered = [support.architecture for support in _registry("detection")]
    registered = [one for one in registered if type(one) not in ARCHITECTURES]
    # of the same name last: spandrel's FDAT, where ours can't load a file
    for architecture in [*own, *sorted(registered, key=lambda one: one.id in ids)]:
        if not _detects(architecture, state_dict):
            continue
        check_finite(state_dict)
        try:
            if architecture in own:
                reject_unknown(options, architecture)
                descriptor = architecture.load(dict(state_dict), **options)
            elif options:
                continue
            else:
                descriptor = architecture.load(dict(state_dict))
            check_precision(descriptor.model, state_dict)
        except Exception as error:  # whatever an architecture raises: another may know it
            failures.append((architecture, error))
        else:
            return descriptor
    if (what := relative(state_dict) or relative_of(state_dict)) is not None:
        raise ModelLoadError(
            f"it is {what}; that is not read here, nor by any architecture that is installed"
        )
    if not failures:
        return None
    architecture, error = failures[0]
    if isinstance(error, ModelLoadError):
        raise error
    reason = " ".join(str(error).split()) or type(error).__name__
    reason = reason.partition(": ")[2] if reason.startswith("Error(s) in loading") else reason
    if isinstance(error, KeyError):  # its message is the name alone
        reason = f"the tensor {reason} is missing; the checkpoint is damaged, or of a variant"
    raise ModelLoadError(
        f"looks like {architecture.name}, but does not fit it: {reason}"
    ) from error


def _detects(architecture: Architecture, state_dict: dict[str, Tensor]) -> bool:
    try:
        return architecture.detect(state_dict)
    except Exception as error:  # a detector of another pack
        logger.debug("%s could not tell: %s", architecture.id, error)
        return False


def _registry(order: str) -> list:
    return extended_registry(MAIN_REGISTRY).architectures(order)  # type: ignore[arg-type]


def _tell(descriptor: ModelDescriptor, remarks: list[str]) -> None:
    """Keep with the model what was chosen or assumed, and say it in the log."""
    twin = twin_of(descriptor.architecture.id)
    if twin is not None:
        remarks = [*remarks, f"guessed: {twin}"]
    if remarks:
        logger.log(logging.WARNING if twin else logging.INFO, "%s", printable("; ".join(remarks)))
        before = getattr(descriptor.model, "assumptions", ())
        descriptor.model.assumptions = [*before, *map(printable, remarks)]  # type: ignore


def _own_names() -> str:
    names = [make().name for make in ARCHITECTURES]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _supported() -> str:
    own = {make().id for make in ARCHITECTURES}
    others = sorted({s.architecture.id for s in _registry("insertion")} - own)
    logger.info("supported beside %s: %s", _own_names(), ", ".join(others))
    return f"Supported: {_own_names()}, and {len(others)} architectures of spandrel (see the log)"


def _summary(state_dict: dict[str, Tensor]) -> str:
    first = ", ".join(
        f"{key[:60]} {tuple(value.shape)}" for key, value in list(state_dict.items())[:4]
    )
    tensors = "1 tensor" if len(state_dict) == 1 else f"{len(state_dict)} tensors"
    return f"Found {tensors}, starting with {first}."
