"""Answers to what tensors can't tell, put into the configuration and, where they concern layouts,
into the weights."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...errors import ModelLoadError
from ..config import PUBLISHED_HEADS, DenseIsoViTConfig, HeadLayer
from .match import Match
from .options import Answers, activations

Settled = list[tuple[str, Any, str]]


def complete(
    found: Match, answers: Answers, weights: dict[str, Tensor]
) -> tuple[DenseIsoViTConfig, Settled]:
    """The whole configuration, and (name, value, source) of every answer that matters for this
    network; ``weights``, float32, are changed in place to what it describes."""
    config = found.config
    fields: dict[str, Any] = {}
    settled: Settled = []

    def answer(name: str, value: Any = None) -> Any:
        settled.append((name, answers[name] if value is None else value, answers.sources[name]))
        return settled[-1][1]

    by_name = {None: None, True: "first", False: "second"}[found.gate_is_first]
    half = answer("gated_half", by_name if answers.assumed("gated_half") else None)
    fields["gated_half"], _, swapped = half.partition(" ")
    for name in [name for name in weights if swapped and ".path_1." in name]:
        other = name.replace("path_1", "path_2")  # the first convolution takes the second half
        weights[name], weights[other] = weights[other], weights[name]
    for name in ("norm_eps", "skip", "value_range"):
        fields[name] = answer(name)
    if fields["skip"] in ("bilinear", "bicubic"):
        fields["align_corners"] = answer("align_corners")
    if any(config.stage_norms[:-1]):
        fields["stage_norm_routing"] = answer("stage_norm_routing")
    if not config.position_embedding:
        fields["window"] = answer("window")
    fields["head"] = _activated(config, answers)
    if len(names := [layer.activation for layer in fields["head"]]) > 1:
        answer("head_activation", names if set(names) != {"none"} else "none")
    config = _replaced(config, {**fields, "heads": answers["heads"] or ()})
    answer("heads", config.heads)
    if answers.assumed("heads") and not set(config.dims) <= set(PUBLISHED_HEADS):
        found.notes.guessed.add("heads, so that a head is about 32 wide")
    in_twos = [i for i, e in enumerate(config.head) if e.shuffle in (4, 8, 16, 32, 64, 128)]
    doubtful = in_twos if found.found else []  # PixelShuffle(2) in a row, or one
    if doubtful and answer("shuffles") == "twos":
        for i in doubtful:
            for name in {f"head.{i}.weight", f"head.{i}.bias"} & weights.keys():
                weights[name] = _shuffle_rows(weights[name], config.head[i].shuffle)
    fused = any(len(parts) < 3 for parts in found.qkv_parts.values())
    layout = answer("qkv_layout") if fused else answers["qkv_layout"]
    for block, parts in found.qkv_parts.items() if layout == "h3d" else ():
        heads = config.heads[int(block.split(".")[1])]
        start = f"{block}.attention.qkv."
        for name in {start + "weight", start + "bias"} & weights.keys():
            weights[name] = _rows_by_part(weights[name], parts, heads)
    return config, settled


def override(found: Match, answers: Answers, _: object) -> tuple[DenseIsoViTConfig, Settled]:
    """As `complete`, of a file that tells all; changed where somebody says otherwise."""
    names = ("heads", "gated_half", "norm_eps", "skip", "align_corners", "value_range", "window")
    names = (*names, "stage_norm_routing")
    given = {name: answers[name] for name in names if not answers.assumed(name)}
    sources = {name: answers.sources[name] if name in given else "tensors" for name in names}
    if not answers.assumed("head_activation"):
        given["head"] = _activated(found.config, answers)
    config = _replaced(found.config, given)
    return config, [(name, getattr(config, name), sources[name]) for name in names]


def _activated(config: DenseIsoViTConfig, answers: Answers) -> tuple[HeadLayer, ...]:
    names = activations(config.head, answers["head_activation"])
    return tuple(replace(layer, activation=name) for layer, name in zip(config.head, names))


def _replaced(config: DenseIsoViTConfig, fields: dict[str, Any]) -> DenseIsoViTConfig:
    if len(fields.get("heads", ())) == 1:
        fields["heads"] *= len(config.dims)
    try:
        return replace(config, **fields)
    except ValueError as error:
        raise ModelLoadError(str(error)) from error


def _rows_by_part(rows: Tensor, parts: tuple[str, ...], heads: int) -> Tensor:
    """All queries, all keys, all values, (3 * width, ...), from layers one after the other, which
    hold ``parts``, such as ("q", "kv"), head by head."""
    width = rows.shape[0] // 3
    layers = rows.split([width * len(part) for part in parts])
    pairs = zip(parts, layers)
    ordered = [own.unflatten(0, (heads, len(part), -1)).transpose(0, 1) for part, own in pairs]
    return torch.cat([own.flatten(0, 2) for own in ordered])


def _shuffle_rows(rows: Tensor, factor: int) -> Tensor:
    """Rows (channels * factor**2, ...) for PixelShuffle(2) several times in a row, as
    PixelShuffle(factor) takes them: the first takes the fastest index of the rows and makes the
    slowest of the pixels."""
    steps = int(math.log2(factor))
    rows = rows.unflatten(0, (-1, *[2] * (2 * steps)))  # (channels, y, x of the last, ... first)
    vertical, horizontal = range(2 * steps - 1, 0, -2), range(2 * steps, 0, -2)
    others = range(2 * steps + 1, rows.ndim)
    return rows.permute(0, *vertical, *horizontal, *others).flatten(0, 2 * steps)
