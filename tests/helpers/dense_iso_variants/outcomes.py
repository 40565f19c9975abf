"""What comes of a checkpoint: read exactly, read wrongly, or refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT
from fdat_dense_iso.arch.dense_iso.reading.recognise import recognise
from fdat_dense_iso.arch.errors import ModelLoadError

StateDict = dict[str, Tensor]

ORDERS = {
    "definition": lambda state_dict: dict(state_dict),  # torch.save
    "name": lambda state_dict: dict(sorted(state_dict.items())),  # safetensors.torch.load_file
    "hash": lambda state_dict: load(
        save({key: tensor.contiguous() for key, tensor in state_dict.items()})
    ),
}


def sampled(cases: Sequence[Any], every: int) -> list[Any]:
    """Cases for parametrize: one of ``every`` few in the default run, the others marked slow."""
    return [
        case
        if i % every == 0
        else pytest.param(*case if isinstance(case, tuple) else [case], marks=pytest.mark.slow)
        for i, case in enumerate(cases)
    ]


def outcome(
    state_dict: StateDict, module: nn.Module, options: dict, window: int | None = None
) -> tuple[str, list[str]]:
    """What comes of a file, "exact", "wrong" or "refused", and the remarks on it, or the reason."""
    try:
        recognised = recognise(state_dict, options=options)
    except ModelLoadError as error:
        return "refused", [str(error)]
    remarks = recognised.remarks()
    network = DenseIsoViT(recognised.config).eval()
    network.load_state_dict(recognised.weights)
    if window not in (None, recognised.config.window):
        return "wrong", remarks
    side = recognised.config.window
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        try:
            expected = module(image)
        except RuntimeError:  # a wrong window, which its position embedding does not take
            return "wrong", remarks
        found = network(image)
    error = math.inf
    if found.shape == expected.shape:
        error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1))
    return "exact" if error < 1e-5 else "wrong", remarks


def grounds(remarks: list[str]) -> list[str]:
    """The remarks beyond plain assumptions."""
    return [remark for remark in remarks if not remark.startswith("assumed")]
