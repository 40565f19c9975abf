"""Any checkpoint of Dense-Iso-ViT to a network: recognise tensors, settle what they leave open, say
what is assumed."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ....common.printable import printable
from ...errors import ModelLoadError
from ...weights import WeightSet, weight_sets
from ..checkpoint import check_shapes, infer_config
from ..config import DenseIsoViTConfig
from ..meta import META_KEY
from .answers import complete, override
from .evidence import AmbiguousCheckpointError, NoResemblanceError
from .layers import Notes, check_size, read_layers
from .match import Match, match
from .options import Answers, settle

logger = logging.getLogger(__name__)
Source = Mapping[str, Any] | None

FEWEST_TENSORS = 12
MOST_MODULES = 200  # blocks and what is beside them, in own naming


@dataclasses.dataclass(frozen=True)
class Recognised:
    """A checkpoint in this project's terms and naming, float32."""

    config: DenseIsoViTConfig
    weights: dict[str, Tensor]
    found: list[tuple[str, str]]  # (role, names in the file); empty in own naming
    settled: list[tuple[str, Any, str]]  # (name, value, source) of what tensors can't tell
    notes: Notes  # on which grounds equal shapes were told apart

    def remarks(self) -> list[str]:
        """Everything that was not certain, for tags and log."""
        remarks = []
        for name, value, source in self.settled:
            if source == "default":
                items = value if isinstance(value, tuple | list) else [value]
                remarks.append(f"assumed {name}={','.join(map(str, items))}")
        remarks += [f"by file order: {what}" for what in sorted(self.notes.by_file_order)]
        remarks += [f"guessed: {what}" for what in sorted(self.notes.guessed)]
        return [printable(remark) for remark in remarks + self.notes.chosen]


def recognise(
    state_dict: Mapping[str, Any],
    *,
    options: Source = None,
    sidecar: Source = None,
    metadata: Source = None,
) -> Recognised:
    """Find a Dense-Iso-ViT in a state dict of any spelling, or in dictionaries around one; for the
    sources of answers see `options.settle`. ModelLoadError: there is none, nothing tells equal
    layers apart, an option is impossible, or a weight is not finite."""
    answers = settle(options, sidecar, metadata)
    sets = _sets(state_dict, answers)
    if described := next((one for one in sets if META_KEY in one.tensors), None):
        own, notes = described.tensors, Notes(chosen=described.choice(sets))
        found, settle_rest = Match(infer_config(own), own, [], notes), override
    else:
        found, settle_rest = _match(sets, answers), complete
    weights = {name: tensor for name, tensor in found.weights.items() if name != META_KEY}
    if types := {n: e.dtype for n, e in weights.items() if not e.is_floating_point()}:
        raise ModelLoadError(f"weights are quantised or packed, not floating-point: {types}"[:300])
    weights = {name: tensor.detach().to(torch.float32) for name, tensor in weights.items()}
    config, settled = settle_rest(found, answers, weights)
    for name in ("window", "depths"):  # what names and shapes told
        if not answers.assumed(name) and answers[name] != getattr(config, name):
            what = f"{answers.sources[name]} {name}={answers[name]} contradicts the tensors"
            raise ModelLoadError(f"{what}, which say {getattr(config, name)}; leave it out")
    check_shapes(config, weights)
    for name, tensor in weights.items():
        if not tensor.is_meta and not tensor.isfinite().all():
            raise ModelLoadError(f"{name} is not finite (NaN or infinite); the file is damaged")
    return Recognised(config, weights, found.found, settled, found.notes)


def refusal(state_dict: Mapping[str, Any], **sources: Source) -> ModelLoadError | None:
    """Why `recognise`, given the same, would not take this for a Dense-Iso-ViT; None where it is
    one, also an ambiguous one, or one refused for what the sources say."""
    refused = None
    for given in (sources, {}) if any(sources.values()) else ({},):
        try:
            answers = settle(**given)
            sets = _sets(state_dict, answers)
            if not any(META_KEY in one.tensors for one in sets):  # else it says what is wrong
                _match(sets, answers)
        except AmbiguousCheckpointError:
            return None
        except ModelLoadError as error:
            refused = refused or error
        except Exception as error:  # a detector answers, whatever it is given
            refused = refused or ModelLoadError(f"{type(error).__name__}: {error}")
        else:
            return None
    return refused


def is_dense_iso_vit(state_dict: Mapping[str, Any]) -> bool:
    """Whether `recognise` would know this network, ambiguous ones included. Never raises."""
    return refusal(state_dict) is None


def report(recognised: Recognised) -> None:
    """Write what was assumed to the log: a warning where a role was guessed, else information."""
    if remarks := recognised.remarks():
        doubtful = recognised.notes.guessed or recognised.notes.by_file_order
        level = logging.WARNING if doubtful else logging.INFO
        text = "Dense-Iso-ViT: %s. Options, a sidecar JSON or metadata can say otherwise."
        logger.log(level, text, "; ".join(remarks))


def _sets(content: Mapping[str, Any], answers: Answers) -> list[WeightSet]:
    if not isinstance(content, Mapping):
        raise NoResemblanceError(f"a {type(content).__name__}, not a state dict")
    if META_KEY in content and not isinstance(content[META_KEY], Tensor):
        raise AmbiguousCheckpointError(
            f"{META_KEY} is a {type(content[META_KEY]).__name__}, not a tensor of bytes"
        )
    return weight_sets(content, container=answers["container"], prefix=answers["prefix"])


def _match(sets: list[WeightSet], answers: Answers) -> Match:
    refused: list[ModelLoadError] = []
    for one in sets:
        notes = Notes(chosen=one.choice(sets))
        try:
            check_size(one.tensors)
            if len({tuple(key.split(".", 4)[:4]) for key in one.tensors}) <= MOST_MODULES:
                return Match(infer_config(one.tensors), dict(one.tensors), [], notes)
        except ModelLoadError:
            pass
        try:
            if len(one.tensors) < FEWEST_TENSORS:
                raise NoResemblanceError(f"fewer than {FEWEST_TENSORS} tensors")
            if not any(t.shape[1:] == (1, 3, 3) for t in one.tensors.values()):
                raise NoResemblanceError("no depthwise 3x3 convolution, so no GDFN")
            layers, in_order = read_layers(one.tensors, notes)
            return match(layers, in_order, notes, answers["depths"])
        except AmbiguousCheckpointError:
            raise
        except ModelLoadError as error:
            refused.append(error)
    raise refused[0]
