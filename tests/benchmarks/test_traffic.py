"""The counted traffic stays within what was set out."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("typer")

from benchmarks.traffic import Traffic, count_engine, count_plain
from fdat_dense_iso.arch.fdat.config import PRESETS

SIZE = 1024


def test_counting_by_hand() -> None:
    """Views and what is only allocated cost nothing; a repeated value is read once."""
    x, bias = torch.empty(8, 4, device="meta"), torch.empty(1, 4, device="meta")
    with Traffic() as traffic:
        y = x.t().reshape(4, 8)  # a view
        y = (x + bias.expand(8, 4)).add_(1)
        torch.empty(100, device="meta").copy_(y.new_empty(100))
        torch.nn.functional.linear(y, torch.empty(5, 4, device="meta"))
    counted = traffic.parts["all"]
    assert counted.launches == 4
    assert counted.bytes == 4 * ((32 + 4 + 32) + (32 + 32) + 200 + (32 + 20 + 40))
    assert counted.kernels[-1][1] == 2 * 8 * 4 * 5


@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float16, 10), (torch.float32, 12), (torch.bfloat16, 10)]
)
@pytest.mark.parametrize("preset", ["tiny", "light", "medium", "large"])
@pytest.mark.every(5)
def test_a_block_is_few_maps_and_launches(preset: str, dtype: torch.dtype, most: float) -> None:
    """Its matrices and the tail included, in one band and in four."""
    config = PRESETS[preset]
    blocks = config.num_groups * len(config.blocks_per_group)
    one = SIZE**2 * config.embed_dim * dtype.itemsize
    plain = count_plain(preset, dtype, SIZE)
    assert plain.parts["blocks"].bytes >= 40 * one * blocks
    for bands in (1, 4):
        traffic = count_engine(preset, dtype, SIZE, True, bands)
        inner, folding, whole = (traffic.parts[name] for name in ("blocks", "fold", "all"))
        assert 4 <= (inner.bytes + folding.bytes) / one / blocks <= most
        assert 3 <= (inner.launches + folding.launches) / blocks / bands <= 5
        assert whole.launches / blocks / bands <= 10
        assert whole.bytes <= plain.parts["all"].bytes / 3.5
