"""Messages fit in a dialog and hold no control characters, whatever is in a file."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from spandrel import Architecture, ArchRegistry, ArchSupport
from torch import Tensor

from fdat_dense_iso.arch import ModelLoadError, describe, load_model
from fdat_dense_iso.arch.errors import LONGEST_MESSAGE
from tests.arch.dense_iso.test_meta import saved
from tests.helpers.fdat_cases import SMALL, random_fdat

HOSTILE = "a\x1b[31mb\r\nc\u202e\x00"


def fdat() -> dict[str, Tensor]:
    return dict(random_fdat(SMALL).state_dict())


def many(count: int = 20_000) -> dict[str, Tensor]:
    return {f"extra.{i}.weight": torch.zeros(1) for i in range(count)}


CASES: dict[str, Callable[[], Any]] = {
    "FDAT and 20,000 tensors": lambda: fdat() | many(),
    "Dense-Iso-ViT and 20,000 tensors": lambda: saved() | many(),
    "20,000 tensors": many,
    "20,000 dictionaries": lambda: {str(i): {} for i in range(20_000)},
    "names of a megabyte": lambda: {"x" * 10**6: torch.zeros(3), "y" * 10**6: torch.zeros(3)},
    "control characters": lambda: {HOSTILE: torch.zeros(3)},
    "FDAT and control characters": lambda: fdat() | {HOSTILE: torch.zeros(3)},
    "a container with control characters": lambda: {HOSTILE: 3, "b": {HOSTILE: "x"}},
    "NaN in control characters": lambda: (
        fdat() | {"conv_first." + HOSTILE: torch.full((3,), torch.nan)}
    ),
    "sparse": lambda: {k: v.to_sparse() if v.ndim == 4 else v for k, v in fdat().items()},
    "a sparse Dense-Iso-ViT": lambda: {k: v.to_sparse() for k, v in saved().items()},
    "nested": lambda: (
        fdat()
        | {"conv_after.weight": torch.nested.nested_tensor([torch.ones(500), torch.ones(900)])}
    ),
    "nested alone": lambda: {"a": torch.nested.nested_tensor([torch.ones(500), torch.ones(900)])},
    "quantised": lambda: {"a": torch.quantize_per_tensor(torch.ones(900), 0.1, 0, torch.qint8)},
    "deep": lambda: {"a": {"b": {"c": {"d": HOSTILE}}}},
    "circular": lambda: (d := {}).update(a=d) or d,
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_one_short_line(case: str) -> None:
    content = CASES[case]()
    begin = time.process_time()
    with pytest.raises(ModelLoadError) as caught:
        load_model(content)
    assert time.process_time() - begin < 10
    message = str(caught.value)
    assert 0 < len(message) <= LONGEST_MESSAGE and message.isprintable()


def test_long_names_of_what_is_chosen_are_cut() -> None:
    weights = random_fdat().state_dict()
    model = load_model({"c" * 5000: weights, "d\x1b[31m" * 5000: dict(weights)})
    assert all(len(line) <= LONGEST_MESSAGE + 20 for line in describe(model).splitlines())
    for option in ({"container": "x" * 5000}, {"prefix": "y\x1b" * 5000}):
        with pytest.raises(ModelLoadError) as caught:
            load_model({"params": weights}, **option)
        assert len(str(caught.value)) <= LONGEST_MESSAGE and str(caught.value).isprintable()


def test_the_rest_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(ModelLoadError) as caught:
        load_model(fdat() | many(100))
    assert "extra.60.weight" in caplog.text and "extra.60.weight" not in str(caught.value)
    assert "more in the log" in str(caught.value)


def test_the_end_of_a_long_message_stays() -> None:
    """Where its advice stands."""
    assert str(ModelLoadError("found " + "x" * 5000 + "; do this")).endswith("x; do this")


def test_log_and_file_names_are_printable(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a\x1b[31m\nb.safetensors"
    save_file({"a\x1b[31m\n": torch.zeros(3)}, path)
    with caplog.at_level(logging.INFO), pytest.raises(ModelLoadError) as caught:
        load_model(path)
    assert str(caught.value).count(r"a\x1b[31m\nb.safetensors: ") == 1
    assert all(record.getMessage().isprintable() for record in caplog.records)


def test_names_in_metadata_take_no_minutes(tmp_path: Path) -> None:
    """Each of 100,000 names stands for the same tensor."""
    state_dict = fdat()
    path = tmp_path / "model.safetensors"
    metadata = {f"alias.{i}": "conv_after.weight" for i in range(100_000)}
    save_file(state_dict, path, metadata)
    begin = time.process_time()
    with pytest.raises(ModelLoadError, match="100000 more tensors than it holds"):
        load_model(path)
    assert time.process_time() - begin < 5
    save_file(state_dict, path, {f"note {i}": "something else" for i in range(1000)})
    assert load_model(path).scale == SMALL.scale


def test_a_tensor_that_an_architecture_misses_is_named_as_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Architectures of spandrel look tensors up without a check."""

    class Hasty(Architecture):
        def __init__(self) -> None:
            super().__init__(id="Hasty", detect=lambda state_dict: "hasty.weight" in state_dict)

        def load(self, state_dict):
            return state_dict["absent.weight"]

    registry = ArchRegistry()
    registry.add(ArchSupport.from_architecture(Hasty()))
    monkeypatch.setattr("fdat_dense_iso.arch.load.MAIN_REGISTRY", registry)
    with pytest.raises(ModelLoadError, match=r"Hasty.*the tensor 'absent\.weight' is missing"):
        load_model({"hasty.weight": torch.zeros(3)})
