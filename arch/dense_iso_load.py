"""Any checkpoint of Dense-Iso-ViT to a network: recognise tensors, settle what they leave open, say what is assumed."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .dense_iso_config import PUBLISHED_HEADS, DenseIsoViTConfig
from .dense_iso_evidence import AmbiguousCheckpointError
from .dense_iso_match import Match, match
from .dense_iso_options import Answers, activations, settle
from .dense_iso_read import Checkpoint, Notes, read_checkpoint
from .dense_iso_vit import check_shapes, infer_config, without_wrapper
from .errors import ModelLoadError

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Recognised:
    """A checkpoint in this project's terms.

    Attributes:
        config: the complete configuration.
        weights: tensors in this project's naming, float32.
        found: (role, names in the file), one entry per kind of layer; empty where the names are this project's.
        settled: (name, value, source) of everything that tensors can't tell and that matters for this network.
        notes: on which grounds equal shapes were told apart.
    """

    config: DenseIsoViTConfig
    weights: dict[str, Tensor]
    found: list[tuple[str, str]]
    settled: list[tuple[str, Any, str]]
    notes: Notes

    def remarks(self) -> list[str]:
        """Everything that was not certain, for tags and log."""
        remarks = [f"assumed {name}={_text(value)}" for name, value, source in self.settled if source == "default"]
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
        options, sidecar, metadata: see `dense_iso_options.settle`.

    Raises:
        NotDenseIsoViTError: it is not this network; the message says what did not fit.
        AmbiguousCheckpointError: it is, but names and order do not tell equal layers apart.
        ModelLoadError: an option is impossible or a weight is not finite.
    """
    answers = settle(options, sidecar, metadata)
    found = _match(state_dict, answers)
    weights = {name: tensor.detach().to(torch.float32) for name, tensor in found.weights.items()}
    config, settled = _complete(found, answers)
    fused = any(role.endswith(" qkv") and names.count(" (") == 1 for role, names in found.found)
    if fused:
        settled.append(("qkv_layout", answers["qkv_layout"], answers.sources["qkv_layout"]))
    if found.found:
        settled.append(("swap_paths", answers["swap_paths"], answers.sources["swap_paths"]))
    if fused and answers["qkv_layout"] == "h3d":
        _sort_qkv_rows(weights, config)
    if answers["swap_paths"]:
        _swap_paths(weights)
    check_shapes(config, weights)
    broken = [name for name, tensor in weights.items() if not tensor.is_meta and not tensor.isfinite().all()]
    if broken:
        raise ModelLoadError(f"weights are not finite (NaN or infinite) in {broken[:3]}; the file is damaged")
    return Recognised(config, weights, found.found, settled, found.notes)


def is_dense_iso_vit(state_dict: Mapping[str, Any]) -> bool:
    """Whether `recognise` would know this network, ambiguous ones included. Never raises."""
    try:
        found = _match(state_dict, settle())
        check_shapes(DenseIsoViTConfig(**found.fields), found.weights)
    except AmbiguousCheckpointError:
        return True
    except Exception:  # a detector answers, whatever it is given
        return False
    return True


def report(recognised: Recognised) -> None:
    """Write what was assumed to the log: a warning where a role was guessed, else a line of information."""
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
    if isinstance(state_dict, Mapping) and all(isinstance(value, Tensor) for value in state_dict.values()):
        try:
            config = infer_config(state_dict)
        except ModelLoadError:
            pass
        else:
            fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
            if not config.position_embedding:
                del fields["window"]
            return Match(fields, without_wrapper(state_dict), [], notes, None)
    checkpoint = read_checkpoint(state_dict, notes, container=answers["container"], prefix=answers["prefix"])
    if answers["order"] != "auto":
        checkpoint = Checkpoint(checkpoint.layers, answers["order"] == "file")
    return match(checkpoint, notes, depths=answers["depths"])


def _complete(found: Match, answers: Answers) -> tuple[DenseIsoViTConfig, list[tuple[str, Any, str]]]:
    """The configuration with everything that tensors can't tell, and the list of these answers."""
    fields = dict(found.fields)
    settled: list[tuple[str, Any, str]] = []

    def answer(name: str, value: Any) -> Any:
        settled.append((name, value, answers.sources[name]))
        return value

    gated_half = answers["gated_half"]
    if answers.assumed("gated_half") and found.gate_is_first is not None:
        gated_half = "first" if found.gate_is_first else "second"
    fields["gated_half"] = answer("gated_half", gated_half)
    fields["norm_eps"] = answer("norm_eps", answers["norm_eps"])
    fields["align_corners"] = answer("align_corners", answers["align_corners"])
    fields["value_range"] = answer("value_range", answers["value_range"])
    if any(fields["stage_norms"][:-1]):
        fields["stage_norm_routing"] = answer("stage_norm_routing", answers["stage_norm_routing"])
    if not fields["position_embedding"]:
        fields["window"] = answer("window", answers["window"])
    per_layer = activations(fields["head"], answers["head_activation"], answers["head_activation_place"])
    fields["head"] = tuple(
        dataclasses.replace(layer, activation=name) for layer, name in zip(fields["head"], per_layer)
    )
    if len(per_layer) > 1:
        answer("head_activation", per_layer if any(name != "none" for name in per_layer) else "none")
    fields["heads"] = answers["heads"] or ()
    if len(fields["heads"]) == 1:
        fields["heads"] *= len(fields["dims"])
    try:
        config = DenseIsoViTConfig(**fields)
    except ValueError as error:
        raise ModelLoadError(str(error)) from error
    answer("heads", config.heads)
    if answers.assumed("heads") and not set(config.dims) <= set(PUBLISHED_HEADS):
        found.notes.guessed.add("heads, so that a head is about 32 wide")
    return config, settled


def _sort_qkv_rows(weights: dict[str, Tensor], config: DenseIsoViTConfig) -> None:
    """Rows stored head by head (heads, 3, width / heads) to this project's (3, heads, width / heads)."""
    for i, heads in enumerate(config.heads):
        for j in range(config.depths[i]):
            for kind in ("weight", "bias"):
                name = f"stages.{i}.blocks.{j}.attention.qkv.{kind}"
                if name in weights:
                    weights[name] = weights[name].unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)


def _swap_paths(weights: dict[str, Tensor]) -> None:
    """The first depthwise convolution takes the second half: exchange the two."""
    for name in [name for name in weights if ".gdfn.path_1." in name]:
        other = name.replace("path_1", "path_2")
        weights[name], weights[other] = weights[other], weights[name]


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
