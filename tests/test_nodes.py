"""The nodes with stand-ins for the host: what they hand on, and what they say."""

from __future__ import annotations

from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from fdat_dense_iso.common.encoding import ENCODING
from fdat_dense_iso.common.option import offered_in
from fdat_dense_iso.common.spreading import SPREADING
from fdat_dense_iso.common.upscaling import UPSCALING
from tools.node_schemas import imported_nodes


@pytest.fixture
def nodes() -> ModuleType:
    with imported_nodes() as nodes:
        nodes.host = SimpleNamespace(
            attach_patcher=lambda model: None,
            category=lambda sibling, otherwise: otherwise,
            image_model=lambda model: model,
            model_path=lambda name: name,
            output=lambda dtype: {"dtype": dtype},
            preview=lambda: None,
            progress=lambda: None,
            note=lambda said: None,
            telling=lambda node: nullcontext([]),
            HostPlacement=lambda model: None,
        )
        return nodes


def handed_on(nodes: ModuleType, **inputs: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    nodes.adopt = lambda model: model
    nodes.upscale_image = lambda model, image, **options: found.update(options)
    nodes.UpscaleImage.execute("model", "image", **inputs)
    return {name: found[name] for name in found.keys() - {"placement", "preview", "progress"}}


def test_inputs_that_are_not_given_have_their_defaults(nodes: ModuleType) -> None:
    declared = {option.name: option.default for option in offered_in("command", UPSCALING)}
    assert handed_on(nodes) == declared | {"dtype": "auto"}


def test_warnings_of_the_engine_are_told_on_the_node(nodes: ModuleType) -> None:
    told: list[str | None] = []
    nodes.host.telling = lambda node: nullcontext(told.append(node))
    nodes.UpscaleImage.hidden = SimpleNamespace(unique_id="7")
    handed_on(nodes)
    assert told == ["7"]


def test_values_of_widgets_become_arguments(nodes: ModuleType) -> None:
    given = {"tile": 0, "overlap": -1, "batch": 0, "target": "", "mode": "tile", "mask": None}
    expected = {"tile": None, "overlap": None, "batch": None, "target": None, "mode": "tile"}
    assert expected.items() <= handed_on(nodes, **given).items()
    given = {"tile": 64, "overlap": 0, "batch": 3, "target": "2x", "output_dtype": "fp16"}
    expected = {**given, "dtype": "fp16"}
    del expected["output_dtype"]
    assert expected.items() <= handed_on(nodes, **given).items()


@pytest.mark.parametrize(
    ("inputs", "answer"),
    [
        ({}, True),
        ({"target": None, "codec": None, "crf": None, "pixel_format": None}, True),
        ({"crf": -1, "codec": "hevc"}, True),
        ({"crf": 60, "codec": "h264"}, "crf is 60; h264 takes 0 (best) to 51"),
        ({"codec": "mpeg2"}, "codec 'mpeg2' is not known; use one of auto, h264, hevc, av1, vp9"),
    ],
)
def test_videos_are_checked_before_any_work(
    nodes: ModuleType, inputs: dict[str, Any], answer: object
) -> None:
    pytest.importorskip("av")
    assert nodes.UpscaleVideo.validate_inputs(**inputs) == answer


def test_videos_have_the_options_of_pictures(nodes: ModuleType) -> None:
    found = [one.id for one in nodes.UpscaleVideo.define_schema().inputs]
    options = sorted(
        offered_in("video", (*UPSCALING, *ENCODING, *SPREADING)), key=lambda one: one.appended
    )
    assert found[-2:] == ["cuts", "devices"]  # later than the others, whose places workflows know
    assert found == ["upscale_model", "video", *(option.name for option in options)]


GUESSED = (
    *("assumed skip=bilinear", "assumed heads=1,1"),
    *("by file order: q, k", "guessed: heads of 32", "guessed: the norm"),
)


@pytest.mark.parametrize(
    ("assumptions", "said"),
    [
        ((), None),
        (("assumed skip=bilinear", "the larger of two networks"), None),
        (GUESSED[:3], "Not certain: by file order: q, k."),
        (GUESSED[:4], "Not certain: by file order: q, k; guessed: heads of 32; assumed heads=1,1."),
        (GUESSED, "Not certain: by file order: q, k; guessed: heads of 32; guessed: the norm."),
    ],
)
@pytest.mark.parametrize("hidden", [True, False])
def test_the_loader_says_what_was_guessed(
    nodes: ModuleType,
    assumptions: tuple[str, ...],
    said: str | None,
    hidden: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str | None] = []
    nodes.host.telling = lambda node: nullcontext(told.append(node))
    network = SimpleNamespace(assumptions=assumptions) if assumptions else SimpleNamespace()
    nodes.load_model = lambda path: SimpleNamespace(model=network)
    if hidden:  # old hosts may lack it
        nodes.LoadUpscaleModel.hidden = SimpleNamespace(unique_id="7")
    nodes.LoadUpscaleModel.execute("net.pth")
    advice = " Upscale Model Info lists everything that was assumed."
    assert told == ["7" if hidden else None]
    assert caplog.messages == ([] if said is None else [said + advice])


def test_the_loader_chooses_the_bundled_model_that_suits_the_picture(
    nodes: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    loaded: list[str] = []
    nodes.load_model = lambda path: loaded.append(path.stem) or SimpleNamespace(model=None)
    smooth = torch.linspace(0, 1, 96)[:, None].expand(1, 96, 96).unsqueeze(-1).expand(-1, -1, -1, 3)
    blocks = torch.rand(1, 12, 12, 3, generator=torch.manual_seed(0)) * 0.1
    blocks = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2) + smooth * 0.8
    for name, image in (("auto", smooth), ("auto", blocks), ("auto-x4", smooth), ("auto-x4", None)):
        nodes.LoadUpscaleModel.execute(name, image=image)
    told = caplog.messages
    assert loaded == ["fdat_demo_x2", "fdat_real_x2", "fdat_demo_x4", "fdat_real_x4"]
    names = ("auto", "auto", "auto-x4", "auto-x4")
    assert all(text.startswith(f"{n} took {stem}") for n, stem, text in zip(names, loaded, told))
    assert "blocks of compression" in told[1] and "connect yours" in told[3]
