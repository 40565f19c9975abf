"""The reader's effort: any file of many keys is loaded or refused, whatever the keys are called."""

from __future__ import annotations

import time

import pytest
import torch

from fdat_dense_iso.arch.dense_iso.reading.layers import MOST_TENSORS
from fdat_dense_iso.arch.dense_iso.reading.recognise import is_dense_iso_vit, recognise
from fdat_dense_iso.arch.errors import ModelLoadError
from tests.helpers.dense_iso_variants import build
from tests.helpers.dense_iso_variants.key_sets import COUNT, KEY_SETS

READABLE = {"16 more convolutions of many shapes", "optimizer states"}


@pytest.mark.parametrize("name", KEY_SETS)
@pytest.mark.every(9)
def test_many_keys_are_loaded_or_refused(name: str) -> None:
    state_dict = KEY_SETS[name]()
    if name in READABLE:
        assert recognise(state_dict).config.dims == (8, 12, 16)
    else:
        with pytest.raises(ModelLoadError):
            recognise(state_dict)


@pytest.mark.slow
@pytest.mark.parametrize("name", KEY_SETS)
def test_many_keys_take_seconds_at_most(name: str) -> None:
    """`python -m tests.helpers.dense_iso_variants keys` prints how many."""
    state_dict = KEY_SETS[name]()
    start = time.process_time()
    is_dense_iso_vit(state_dict)
    assert time.process_time() - start < 5


def test_what_is_too_large_says_so() -> None:
    state_dict = KEY_SETS["a network and x0.weight ..."]()
    message = f"{len(state_dict)} tensors, more than the {MOST_TENSORS} that one network may have; option prefix"
    with pytest.raises(ModelLoadError, match=message):
        recognise(state_dict)


def test_the_option_prefix_reads_a_network_beside_many_keys() -> None:
    state_dict = {"net." + key: value for key, value in build("timm")[0].state_dict().items()}
    state_dict |= {f"x{i}.weight": torch.zeros(1) for i in range(COUNT)}
    assert recognise(state_dict, options={"prefix": "net"}).config.dims == (8, 12, 16)
