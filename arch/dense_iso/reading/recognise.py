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
from .evidence import AmbiguousCheckpointError, NoResemblanceError
from .layers import Notes, check_size, clipped, read_layers
from .match import Match, match
from .options import Answers, settle

logger = logging.getLogger(__name__)
Source = Mapping[str, Any] | None

CONTAINERS = (  # the first that is there wins, so averaged weights come before plain ones
    "params_ema", "params-ema", "ema_state_dict", "model_ema", "ema_model", "ema", "state_dict_ema",
    "model_state_dict", "state_dict", "params", "model", "net_g_ema", "net_g", "generator", "net", "network", "weights",
)  # fmt: skip
FEWEST_TENSORS = 12
MOST_CONTAINERS = 8  # that are searched one after the other
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
        return remarks + self.notes.chosen


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
    if own := described_tensors(state_dict):
        found, settle_rest = Match(infer_config(own), own, [], Notes()), override
    else:
        found, settle_rest = _match(state_dict, answers), complete
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
            if described_tensors(state_dict) is None:  # else it says itself what is wrong with it
                _match(state_dict, settle(**given))
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


def _match(state_dict: Mapping[str, Any], answers: Answers) -> Match:
    named = isinstance(state_dict, Mapping) and all(isinstance(key, str) for key in state_dict)
    if named and all(isinstance(value, Tensor) for value in state_dict.values()):
        try:
            check_size(state_dict)
            own = without_wrapper(state_dict)
            if len({tuple(key.split(".", 4)[:4]) for key in own}) <= MOST_MODULES:
                return Match(infer_config(own), own, [], Notes())
        except ModelLoadError:
            pass
    found = _state_dicts(state_dict)
    names, wanted = list(found)[:MOST_CONTAINERS], answers["container"]
    if wanted is not None:
        names = sorted((n for n in found if wanted in (n, n.split("/")[-1])), key=len)[:1]
        if not names:
            raise ModelLoadError(f"no container {wanted!r}; there are {sorted(found)[:20]}")
    refused: list[ModelLoadError] = []
    for name in names:
        notes = Notes()
        if len(found) > 1:
            others = ", ".join(sorted(set(found) - {name})[:6])
            notes.chosen.append(f"weights of {name!r} taken, not of {others} (option container)")
        try:
            if not any(t.shape[1:] == (1, 3, 3) for t in found[name].values()):
                raise NoResemblanceError("no depthwise 3x3 convolution, so no GDFN")
            layers, in_order = read_layers(found[name], notes, answers["prefix"])
            return match(layers, in_order, notes, answers["depths"])
        except AmbiguousCheckpointError:
            raise
        except ModelLoadError as error:
            refused.append(error)
    raise refused[0]


def _state_dicts(source: Mapping) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}

    def search(mapping: Mapping, name: str, depth: int) -> None:
        tensors = {k: v for k, v in mapping.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if len(tensors) >= FEWEST_TENSORS:
            found[name] = tensors
        elif depth < 4:
            for key, value in mapping.items():
                if isinstance(key, str) and isinstance(value, Mapping):
                    search(value, f"{name}/{key}" if name else key, depth + 1)

    if isinstance(source, Mapping):
        search(source, "", 0)
    if not found:
        top = (
            [clipped(str(key)) for key in [*source][:8]] if isinstance(source, Mapping) else source
        )
        what = f"no dictionary with at least {FEWEST_TENSORS} named tensors"
        raise NoResemblanceError(f"{what}; top level: {top!s:.400}")

    def preference(name: str) -> int:
        known = [CONTAINERS.index(part) for part in name.split("/") if part in CONTAINERS]
        return min(known, default=len(CONTAINERS))

    return {name: found[name] for name in sorted(found, key=preference)}
