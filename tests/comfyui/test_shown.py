"""What the interface shows beside results: model info, previews while a picture grows, help and
translations."""

from __future__ import annotations

import itertools
import json

import numpy
import pytest
from safetensors.torch import load_file, save_file

from fdat_dense_iso.arch import describe, load_model
from tests.comfyui.graphs import CORE_LOADER, LOADER, UPSCALER, graph, saved
from tests.comfyui.server import PACK, PACK_NAME, Client, Graph, notes

pytestmark = pytest.mark.comfyui

INFO = "FDATDenseIsoModelInfo"
BUNDLED = "fdat_demo_x2.safetensors"
LANGUAGES = ("de", "ja", "zh")
NODES = list(json.loads((PACK / "locales" / "en" / "nodeDefs.json").read_text("utf-8")))


# Model info
# -------------------------------------------------------------------------------------------------


def info_graph(loader: str, model: str) -> Graph:
    return {
        "loader": {"class_type": loader, "inputs": {"model_name": model}},
        "info": {"class_type": INFO, "inputs": {"upscale_model": ["loader", 0]}},
        "text": {"class_type": "PreviewAny", "inputs": {"source": ["info", 0]}},
    }


@pytest.fixture(scope="module")
def doubtful(client: Client, dense_iso: str) -> str:
    """The file name of a Dense-Iso-ViT that does not say what its tensors can't tell."""
    tensors = load_file(client.host.models / dense_iso)
    del tensors["MetaDenseIsoViT"]
    save_file(tensors, client.host.models / "doubtful.safetensors")
    return "doubtful.safetensors"


def test_info_is_shown_and_given(client: Client, doubtful: str) -> None:
    outcome = client.run(info_graph(LOADER, doubtful))
    assert outcome.status == "success", outcome.error
    expected = describe(load_model(client.host.models / doubtful))
    assert "Assumed:" in expected
    assert outcome.texts == {"info": [expected], "text": [expected]}


def test_the_loader_shows_what_was_guessed(client: Client, doubtful: str, dense_iso: str) -> None:
    said = "Not certain: guessed: heads, so that a head is about 32 wide; assumed heads=1,1."
    for model, expected in ((doubtful, [("loader", said)]), (dense_iso, [])):
        workflow = info_graph(LOADER, model)
        workflow["loader"]["inputs"]["options"] = ";"  # not as it was loaded before
        events = list(client.events(workflow))
        assert events[-1]["type"] == "execution_success"
        texts = notes(events)
        assert [(node, text.partition(" Upscale")[0]) for node, text in texts] == expected


def test_warnings_are_shown_on_the_node(client: Client, fdat: str, picture: numpy.ndarray) -> None:
    """LoadImage gives an empty mask for a picture without transparency."""
    name = client.upload("warned.png", picture)
    workflow = graph(name, LOADER, fdat, UPSCALER, mask=["picture", 1])
    events = list(client.events(workflow))
    assert events[-1]["type"] == "execution_success"
    texts = notes(events)
    assert [(node, text[:17]) for node, text in texts] == [("upscaler", "the mask is empty")]
    again = list(client.events(workflow))  # from the cache
    outputs = {e["data"]["node"]: e["data"]["output"] for e in again if e["type"] == "executed"}
    if tuple(map(int, client.host.version.split(".")[:2])) >= (0, 33):  # older ones keep it back
        assert outputs["upscaler"] == {"fdat_dense_iso_note": [texts[0][1]]}


def test_info_of_cores_loader(client: Client, fdat: str) -> None:
    outcome = client.run(info_graph(CORE_LOADER, fdat))
    assert outcome.status == "success", outcome.error
    (text,) = outcome.texts["info"]
    assert "Architecture: FDAT" in text and "Scale: x2" in text
    assert "Training metadata: not known" in text
    assert "Modes: exact, tile, whole" in text  # as this pack's nodes run it


def test_info_holds_what_people_read(client: Client) -> None:
    outcome = client.run(info_graph(LOADER, BUNDLED))
    (text,) = outcome.texts["info"]
    assert "training steps: 8000" in text and "for programs: config" in text
    assert "training_" not in text and "{" not in text
    assert max(map(len, text.splitlines())) < 200


def test_info_of_no_model(client: Client) -> None:
    workflow = info_graph("OtherPackLoader", "")
    workflow["loader"]["inputs"] = {"path": "engine.trt", "gives": "path"}
    outcome = client.run(workflow)
    assert outcome.error_node == "info"
    assert "the model is a str" in outcome.error


# Previews
# ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def can_choose_previews(client: Client) -> None:
    if tuple(map(int, client.host.version.split(".")[:2])) < (0, 8):
        pytest.skip("the host takes no choice of previews with a prompt")


@pytest.mark.usefixtures("can_choose_previews")
@pytest.mark.parametrize(
    ("options", "enlarged"),  # exact mode has results in its last sweep only
    [({"mode": "tile", "tile": 64, "overlap": 16, "batch": 1}, 6), ({"mode": "exact"}, 14)],
    ids=["tile", "exact"],
)
def test_picture_grows(
    client: Client, picture: numpy.ndarray, options: dict[str, object], enlarged: int
) -> None:
    """With the bundled model, which takes a few seconds for this."""
    large = picture.repeat(enlarged, 0).repeat(enlarged, 1)
    workflow = graph(client.upload("large.png", large), LOADER, BUNDLED, UPSCALER, **options)
    events = list(client.events(workflow, preview_method="auto"))
    assert events[-1]["type"] == "execution_success"
    (result,) = saved(client, client.wait(events[-1]["data"]["prompt_id"]))

    previews = [event["data"] for event in events if event["type"] == "preview"]
    assert len(previews) >= 2
    assert not any(
        numpy.array_equal(before, after) for before, after in itertools.pairwise(previews)
    )
    height, width, _ = previews[0].shape
    step = round(result.shape[1] / width)
    assert (height, width) == (
        -(-result.shape[0] // step),
        -(-result.shape[1] // step),
    ) and 256 < width <= 512
    blocks = result[: height // 2 * step, : width // 2 * step].reshape(
        height // 2, step, width // 2, step, 3
    )
    final = blocks.astype(float).mean((1, 3))
    errors = [
        abs(preview[: height // 2, : width // 2] - final).mean((1, 2)) for preview in previews
    ]
    finished = [int((error < 6).cumprod().sum()) for error in errors]  # rows, from the top
    assert finished == sorted(finished) and finished[-1] >= 1
    in_work = -(-2 * options["tile"] // step) if "tile" in options else 0  # a row of tiles
    assert in_work < len(errors[0]) // 2
    assert all(
        (error[rows + in_work :] > 10).all() for error, rows in zip(errors, finished) if rows < 2
    )  # darkened


@pytest.mark.usefixtures("can_choose_previews")
@pytest.mark.parametrize("choice", ["none", "default"])
def test_no_previews_where_they_are_off(
    client: Client, fdat: str, picture: numpy.ndarray, choice: str
) -> None:
    """The host was started without --preview-method, so its default is none."""
    large = numpy.tile(picture, (8, 8, 1))
    workflow = graph(client.upload(f"{choice}.png", large), LOADER, fdat, UPSCALER, mode="exact")
    events = list(client.events(workflow, preview_method=choice))
    assert events[-1]["type"] == "execution_success"
    assert not [event for event in events if event["type"] == "preview"]


# Help and translations
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_help_in_other_languages_is_served(client: Client, language: str) -> None:
    for node in NODES:
        page = client.get(f"/extensions/{PACK_NAME}/docs/{node}/{language}.md").decode()
        assert (
            page.startswith("# ")
            and page != client.get(f"/extensions/{PACK_NAME}/docs/{node}.md").decode()
        )


@pytest.mark.parametrize("language", ("en", *LANGUAGES))
def test_translations_are_served(client: Client, language: str) -> None:
    served = client.get_json("/i18n")[language]["nodeDefs"]
    ours = json.loads((PACK / "locales" / language / "nodeDefs.json").read_text("utf-8"))
    assert ours.items() <= served.items()
    for node in ours:
        description = client.get_json(f"/object_info/{node}")[node]
        inputs = {
            **description["input"].get("required", {}),
            **description["input"].get("optional", {}),
        }
        assert set(inputs) == set(ours[node]["inputs"])
        assert len(description["output"]) == len(ours[node]["outputs"])
