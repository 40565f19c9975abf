"""Answers to what tensors can't tell, put into the configuration and, where they concern layouts,
into the weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ...errors import ModelLoadError
from ..config import PUBLISHED_HEADS, RGB, VALUE_RANGES, DenseIsoViTConfig, HeadLayer
from .colours import Colours
from .match import Match
from .options import Answers, activations
from .rows import qkv_rows, shuffle_rows, splits_in_twos

Settled = list[tuple[str, Any, str]]


def complete(
    found: Match, answers: Answers, weights: dict[str, Tensor]
) -> tuple[DenseIsoViTConfig, Settled]:
    """The whole configuration, and (name, value, source) of every answer that matters for this
    network.

    Args:
        found: the recognised network.
        answers: to everything.
        weights: its tensors, float32; changed in place to what the configuration describes.

    Raises:
        ModelLoadError: an answer that is impossible for this network.
    """
    fields = dict(found.fields)
    settled: Settled = []

    def answer(name: str, value: Any = None) -> Any:
        settled.append((name, answers[name] if value is None else value, answers.sources[name]))
        return settled[-1][1]

    by_name = (
        None if found.gate_is_first is None else ("first" if found.gate_is_first else "second")
    )
    fields["gated_half"] = answer("gated_half", by_name if answers.assumed("gated_half") else None)
    fields["norm_eps"] = answer("norm_eps")
    fields["skip"] = answer("skip")
    if fields["skip"] in ("bilinear", "bicubic"):
        fields["align_corners"] = answer("align_corners")
    if any(fields["stage_norms"][:-1]):
        fields["stage_norm_routing"] = answer("stage_norm_routing")
    if not fields["position_embedding"]:
        fields["window"] = answer("window")
    _settle_head(found, fields, weights, answers, answer)
    _settle_patch(found, weights, answers, answer)
    _settle_colours(found, fields, weights, answers, answer)
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
    _settle_qkv(found, weights, config, answers, answer)
    return config, settled


def override(config: DenseIsoViTConfig, answers: Answers) -> tuple[DenseIsoViTConfig, Settled]:
    """A configuration that its file tells completely, changed where somebody says otherwise.

    Raises:
        ModelLoadError: an answer that is impossible for this network.
    """
    names = ("heads", "gated_half", "norm_eps", "skip", "align_corners", "value_range", "window")
    names = (*names, "stage_norm_routing")
    given = {name: answers[name] for name in names if not answers.assumed(name)}
    if len(given.get("heads", ())) == 1:
        given["heads"] *= len(config.dims)
    if not answers.assumed("head_activation"):
        name, _, place = answers["head_activation"][0].partition("@")
        per_layer = activations(
            config.head, (name, *answers["head_activation"][1:]), place or "all"
        )
        given["head"] = tuple(
            dataclasses.replace(layer, activation=name)
            for layer, name in zip(config.head, per_layer)
        )
    try:
        config = dataclasses.replace(config, **given)
    except ValueError as error:
        raise ModelLoadError(str(error)) from error
    sources = {name: answers.sources[name] if name in given else "tensors" for name in names}
    return config, [(name, getattr(config, name), sources[name]) for name in names]


def _settle_head(
    found: Match, fields: dict[str, Any], weights: dict[str, Tensor], answers: Answers, answer
) -> None:
    head = fields["head"]
    names = answers["head_activation"]
    name, _, place = names[0].partition("@")
    per_layer = activations(head, (name, *names[1:]), place or "all")
    fields["head"] = tuple(
        dataclasses.replace(layer, activation=name) for layer, name in zip(head, per_layer)
    )
    _settle_shuffles(found, fields["head"], weights, answer)
    if len(per_layer) > 1:
        answer(
            "head_activation", per_layer if any(name != "none" for name in per_layer) else "none"
        )


def _settle_shuffles(
    found: Match, head: tuple[HeadLayer, ...], weights: dict[str, Tensor], answer
) -> None:
    doubtful = [i for i, layer in enumerate(head) if found.found and splits_in_twos(layer.shuffle)]
    if not doubtful or answer("shuffles") == "once":
        return
    for i in doubtful:
        for name in (f"head.{i}.weight", f"head.{i}.bias"):
            if name in weights:
                weights[name] = shuffle_rows(weights[name], head[i].shuffle)


def _settle_patch(found: Match, weights: dict[str, Tensor], answers: Answers, answer) -> None:
    if found.patch_kind == "conv":
        return
    default = "hwc" if found.patch_kind == "linear" else "chw"
    if answers.assumed("patch_layout"):
        found.notes.guessed.add(f"pixels of a patch in the order {default} (option patch_layout)")
    if answer("patch_layout", answers["patch_layout"] or default) == "hwc":
        weight = weights["patch_embedding.weight"]
        width, side = weight.shape[0], weight.shape[2]
        weights["patch_embedding.weight"] = (
            weight.reshape(width, side, side, RGB).permute(0, 3, 1, 2).contiguous()
        )


def _settle_colours(
    found: Match, fields: dict[str, Any], weights: dict[str, Tensor], answers: Answers, answer
) -> None:
    """The value range, and everything else that is done to colours: into the first and the last
    convolution."""
    colours = found.colours
    value_range = answers["value_range"]
    if colours is not None and answers.assumed("value_range") and float(colours.mean.max()) > 1:
        value_range = "0..255"
        found.notes.guessed.add("value range 0..255, by the mean of the colours in the file")
    fields["value_range"] = answer("value_range", value_range)
    gain, offset = VALUE_RANGES[value_range]
    mean = torch.zeros(RGB) if colours is None else colours.mean.float()
    deviation = torch.ones(RGB) if colours is None else colours.deviation.float()
    of_image = False
    scale = torch.full((RGB,), gain) if of_image else deviation
    shift = torch.zeros(RGB)
    if fields["skip"] == "none":
        shift = torch.full((RGB,), offset) if of_image else mean
    if colours is not None:
        _enter_normalised(weights, fields, Colours(mean, deviation))
    if bool((scale != 1).any() or (shift != 0).any()):
        _leave_scaled(weights, fields, scale, shift)


def _enter_normalised(weights: dict[str, Tensor], fields: dict[str, Any], colours: Colours) -> None:
    """W (x - mean) / std + b as one convolution: the patch embedding never meets a border."""
    weight = weights["patch_embedding.weight"] / colours.deviation[:, None, None]
    bias = weights.get("patch_embedding.bias", weight.new_zeros(weight.shape[0]))
    weights["patch_embedding.weight"] = weight
    weights["patch_embedding.bias"] = bias - (weight.sum((2, 3)) * colours.mean).sum(1)
    fields["patch_bias"] = True


def _leave_scaled(
    weights: dict[str, Tensor], fields: dict[str, Any], scale: Tensor, shift: Tensor
) -> None:
    """The last convolution with its colours multiplied by ``scale`` and moved by ``shift``."""
    last = len(fields["head"]) - 1
    layer = fields["head"][last]
    if layer.activation not in ("none", "relu") or (
        bool(shift.any()) and layer.activation != "none"
    ):
        raise ModelLoadError(
            f"the head ends in {layer.activation}, and colours are scaled behind it: this network can't do both"
        )
    rows = layer.shuffle**2  # PixelShuffle takes neighbouring channels for one colour
    scale, shift = scale.repeat_interleave(rows), shift.repeat_interleave(rows)
    name = f"head.{last}."
    weights[name + "weight"] = weights[name + "weight"] * scale[:, None, None, None]
    bias = weights.get(name + "bias", torch.zeros_like(scale)) * scale + shift
    if name + "bias" in weights or bool(shift.any()):
        weights[name + "bias"] = bias
        fields["head"] = (*fields["head"][:last], dataclasses.replace(layer, bias=True))


def _settle_qkv(
    found: Match, weights: dict[str, Tensor], config: DenseIsoViTConfig, answers: Answers, answer
) -> None:
    """Rows of queries, keys and values in this project's order. No layout is assumed where each has
    its own layer."""
    fused = any(len(parts) < 3 for parts in found.qkv_parts.values())
    layout = answer("qkv_layout") if fused else answers["qkv_layout"]
    for block, parts in found.qkv_parts.items():
        for name in (f"{block}.attention.qkv.weight", f"{block}.attention.qkv.bias"):
            if name in weights and (layout != "3hd" or "".join(parts) != "qkv"):
                heads = config.heads[int(block.split(".")[1])]
                weights[name] = qkv_rows(weights[name], parts, layout, heads)
