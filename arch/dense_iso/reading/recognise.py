"""Any checkpoint of Dense-Iso-ViT to a network: recognise tensors, settle what they leave open, say
what is assumed."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import ModelLoadError
from ..checkpoint import check_shapes, described_tensors, infer_config, without_wrapper
from ..config import DenseIsoViTConfig
from ..meta import META_KEY
from .answers import complete, override
from .beside import match_stored, network_beside_others
from .evidence import AmbiguousCheckpointError
from .layers import Checkpoint, Notes, read_checkpoint
from .match import Asked, Match
from .options import Answers, settle

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Recognised:
    """A checkpoint in this project's terms.

    Attributes:
        config: the complete configuration.
        weights: tensors in this project's naming, float32.
        found: (role, names in the file), one entry per kind of layer; empty where the names are
            this project's.
        settled: (name, value, source) of everything that tensors can't tell and that matters for
            this network.
        notes: on which grounds equal shapes were told apart.
    """

    config: DenseIsoViTConfig
    weights: dict[str, Tensor]
    found: list[tuple[str, str]]
    settled: list[tuple[str, Any, str]]
    notes: Notes

    def remarks(self) -> list[str]:
        """Everything that was not certain, for tags and log."""
        remarks = [
            f"assumed {name}={_text(value)}"
            for name, value, source in self.settled
            if source == "default"
        ]
        remarks += [f"by file order: {what}" for what in sorted(self.notes.by_file_order)]
        remarks += [f"guessed: {what}" for what in sorted(self.notes.guessed)]
        return remarks + self.notes.chosen


def recognise(
    state_dict: Mapping[str, Any],
    *,
    options: Mapping[str, Any] | None = None,
    sidecar: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Recognised:
    """Find a Dense-Iso-ViT in a state dict of any spelling.

    Args:
        state_dict: tensors by name, or dictionaries around them.
        options, sidecar, metadata: see `options.settle`.

    Raises:
        NotDenseIsoViTError: it is not this network; the message says what did not fit.
        AmbiguousCheckpointError: it is, but names and order do not tell equal layers apart.
        ModelLoadError: an option is impossible or a weight is not finite.
    """
    answers = settle(options, sidecar, metadata)
    described = described_tensors(state_dict)
    if described is not None:
        config, settled = override(infer_config(described), answers)
        del described[META_KEY]
        weights = {name: tensor.detach().to(torch.float32) for name, tensor in described.items()}
        check_shapes(config, weights)
        _check_finite(weights)
        return Recognised(config, weights, [], settled, Notes())
    found = _match(state_dict, answers)
    quantised = [
        f"{name} ({tensor.dtype})"
        for name, tensor in found.weights.items()
        if not tensor.is_floating_point()
    ]
    if quantised:
        raise ModelLoadError(
            f"weights are quantised or packed: {quantised[:3]}; floating-point ones were expected"
        )
    weights = {name: tensor.detach().to(torch.float32) for name, tensor in found.weights.items()}
    config, settled = complete(found, answers, weights)
    for name in ("window", "depths"):  # what names and shapes told
        if not answers.assumed(name) and answers[name] != getattr(config, name):
            raise ModelLoadError(
                f"{answers.sources[name]} {name}={answers[name]} contradicts the tensors, which say "
                f"{getattr(config, name)}; leave it out"
            )
    check_shapes(config, weights)
    _check_finite(weights)
    return Recognised(config, weights, found.found, settled, found.notes)


def _check_finite(weights: Mapping[str, Tensor]) -> None:
    broken = [
        name
        for name, tensor in weights.items()
        if not tensor.is_meta and not tensor.isfinite().all()
    ]
    if broken:
        raise ModelLoadError(
            f"weights are not finite (NaN or infinite) in {broken[:3]}; the file is damaged"
        )


def refusal(
    state_dict: Mapping[str, Any], **sources: Mapping[str, Any] | None
) -> ModelLoadError | None:
    """Why `recognise` would not take this for a Dense-Iso-ViT; None where it is one, ambiguous ones
    included.

    One that is refused for what the sources say alone is one: `recognise` then tells what is wrong
    with them.

    Args:
        state_dict: as for `recognise`.
        sources: its options, sidecar and metadata.
    """
    refused = _refusal(state_dict, sources)
    return (
        None
        if refused is None or (any(sources.values()) and _refusal(state_dict, {}) is None)
        else refused
    )


def _refusal(
    state_dict: Mapping[str, Any], sources: Mapping[str, Mapping[str, Any] | None]
) -> ModelLoadError | None:
    try:
        if described_tensors(state_dict) is not None:  # whatever is wrong with it, it says so itself
            return None
        found = _match(state_dict, settle(**sources))
        check_shapes(DenseIsoViTConfig(**found.fields), found.weights)
    except AmbiguousCheckpointError:
        return None
    except ModelLoadError as error:
        return error
    except Exception as error:  # a detector answers, whatever it is given
        return ModelLoadError(f"{type(error).__name__}: {error}")
    return None


def is_dense_iso_vit(state_dict: Mapping[str, Any]) -> bool:
    """Whether `recognise` would know this network, ambiguous ones included. Never raises."""
    return refusal(state_dict) is None


def report(recognised: Recognised) -> None:
    """Write what was assumed to the log: a warning where a role was guessed, else a line of
    information."""
    remarks = recognised.remarks()
    if remarks:
        doubtful = recognised.notes.guessed or recognised.notes.by_file_order
        logger.log(
            logging.WARNING if doubtful else logging.INFO,
            "Dense-Iso-ViT: %s. Options, a sidecar JSON or metadata can say otherwise.",
            "; ".join(remarks),
        )


def _match(state_dict: Mapping[str, Any], answers: Answers) -> Match:
    notes = Notes()
    named = isinstance(state_dict, Mapping) and all(isinstance(key, str) for key in state_dict)
    if named and all(isinstance(value, Tensor) for value in state_dict.values()):
        try:
            config = infer_config(state_dict)
        except ModelLoadError:
            pass
        else:
            fields = {
                field.name: getattr(config, field.name) for field in dataclasses.fields(config)
            }
            if not config.position_embedding:
                del fields["window"]
            return Match(fields, without_wrapper(state_dict), [], notes)
    asked = Asked(**{field.name: answers[field.name] for field in dataclasses.fields(Asked)})

    def read(container: str | None, prefix: str | None, notes: Notes) -> Match:
        checkpoint = read_checkpoint(state_dict, notes, container=container, prefix=prefix)
        if answers["order"] != "auto":
            checkpoint = Checkpoint(checkpoint.layers, answers["order"] == "file")
        return match_stored(checkpoint, notes, asked)

    try:
        return read(answers["container"], answers["prefix"], notes)
    except ModelLoadError as refused:
        if answers["prefix"] is not None or isinstance(refused, AmbiguousCheckpointError):
            raise
        return network_beside_others(state_dict, answers["container"], read, refused)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
