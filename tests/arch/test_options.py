"""Options of models as people type them."""

from __future__ import annotations

import pytest

from fdat_dense_iso.arch import ModelLoadError, load_model, parse_options
from fdat_dense_iso.arch.dense_iso.reading.options import OPTIONS


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("  ;\n; ", {}),
        ("heads=6,8,6,8; gated_half=first", {"heads": "6,8,6,8", "gated_half": "first"}),
        (" heads = 6, 8 ;", {"heads": "6, 8"}),
        ("skip=none\nnorm_eps=1e-6", {"skip": "none", "norm_eps": "1e-6"}),
        (["value_range=-1..1", "scale=2"], {"value_range": "-1..1", "scale": "2"}),
        ([], {}),
    ],
)
def test_text_becomes_options(text: str | list[str], options: dict[str, str]) -> None:
    assert parse_options(text) == options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("heads", "'heads' is no option; write NAME=VALUE, for example heads=6,8,6,8"),
        ("heads=", "'heads=' is no option"),
        ("=3", "'=3' is no option"),
        (
            "head=3",
            "unknown option 'head'; every model has container, .*FDAT has scale; Dense-Iso-ViT has heads",
        ),
        ("skip=none; skip=bilinear", "the option skip is given twice: none and bilinear"),
    ],
)
def test_mistakes_are_explained(text: str, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        parse_options(text)


def test_every_option_can_be_typed() -> None:
    assert set(parse_options(";".join(f"{name}=1" for name in OPTIONS))) == set(OPTIONS)


def test_options_for_another_architecture() -> None:
    from tests.helpers.fdat_cases import random_fdat

    state_dict = random_fdat().state_dict()
    assert (
        load_model(
            state_dict, **parse_options(f"scale={load_model(state_dict).scale}")
        ).architecture.id
        == "FDAT"
    )
    with pytest.raises(ModelLoadError, match="FDAT has no such option: heads; it has: scale"):
        load_model(state_dict, **parse_options("heads=3"))
    with pytest.raises(ModelLoadError, match="scale is a whole number, not 'two'"):
        load_model(state_dict, **parse_options("scale=two"))
