"""Bounds of an FDAT's values against the values of the plain network."""

from __future__ import annotations

import pytest
import torch

from fdat_dense_iso.arch.fdat.config import PRESETS, FDATConfig
from fdat_dense_iso.arch.fdat.engine.bounds import SAFE_FLOAT16, bounds_of, fitting
from tests.helpers.fdat_cases import SMALL, random_fdat


@pytest.mark.parametrize("config", [PRESETS["tiny"], PRESETS["medium"], SMALL], ids=str)
@pytest.mark.every(2)
def test_values_stay_below_their_bounds(config: FDATConfig) -> None:
    """Of noise, and of a picture that drives a value of the first convolution to its bound."""
    model = random_fdat(config)
    driven = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    driven[1, :, :3, :3] = (model.conv_first.weight.detach()[0] > 0).float()
    maps: list[float] = []
    values: list[float] = []

    def note(into: list[float]):  # type: ignore[no-untyped-def]
        return lambda module, given, made: into.append(float(made.abs().max()))

    for group in model.groups:
        group.register_forward_pre_hook(lambda _, given: maps.append(float(given[0].abs().max())))
        for block in group.blocks:
            block.register_forward_hook(note(maps))
            for inner in (block.attn, block.ffn.fc1, block.ffn.smix, block.ffn):
                inner.register_forward_hook(note(values))
    with torch.inference_mode():
        model(driven)
    for largest, trunk, branch in bounds_of(model):
        assert 0 < maps.pop(0) <= trunk
        for bound in largest:
            assert 0 < maps.pop(0) <= branch
            assert all(values.pop(0) <= bound for _ in range(4))


def test_what_fits() -> None:
    model = random_fdat()
    assert all(group.maps and all(group.blocks) for group in fitting(model))
    with torch.no_grad():
        model.groups[1].blocks[0].ffn.fc2.weight.mul_(SAFE_FLOAT16[1])
    first, second = fitting(model)
    assert first.maps and not second.maps and second.blocks == [False, *[True] * 1]
