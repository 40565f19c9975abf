"""Workflows in a real ComfyUI, over HTTP: pairings of loaders and upscalers, errors, interrupts,
caching."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file
from spandrel import ImageModelDescriptor, ModelLoader

from fdat_dense_iso.arch import load_model
from fdat_dense_iso.upscale import parse_target, upscale_image
from fdat_dense_iso.upscale.resize import resize
from tests.comfyui.server import PACK, PACK_NAME, Client, Graph, Outcome, PromptRejected

pytestmark = pytest.mark.comfyui

CORE_LOADER = "UpscaleModelLoader"
CORE_UPSCALER = "ImageUpscaleWithModel"
LOADER = "FDATDenseIsoLoader"
UPSCALER = "FDATDenseIsoUpscale"
TILES = {"mode": "tile", "tile": 48, "overlap": 8}


def graph(picture: str, loader: str, model: str, upscaler: str, **options: object) -> Graph:
    return {
        "picture": {"class_type": "LoadImage", "inputs": {"image": picture}},
        "loader": {"class_type": loader, "inputs": {"model_name": model}},
        "upscaler": {
            "class_type": upscaler,
            "inputs": {"upscale_model": ["loader", 0], "image": ["picture", 0], **options},
        },
        "save": {
            "class_type": "SaveImage",
            "inputs": {"images": ["upscaler", 0], "filename_prefix": "test"},
        },
    }


def saved(client: Client, outcome: Outcome) -> list[numpy.ndarray]:
    assert outcome.status == "success", outcome.error
    return [client.image(entry) for entry in outcome.images["save"]]


def to_tensor(picture: numpy.ndarray) -> torch.Tensor:
    """What LoadImage gives: (1, H, W, C) float in [0, 1]."""
    return torch.from_numpy(picture)[None].float() / 255


def load_by_spandrel(path: Path) -> ImageModelDescriptor:
    model = ModelLoader().load_from_file(path)
    assert isinstance(model, ImageModelDescriptor)
    return model


def whole_image(model: ImageModelDescriptor, image: torch.Tensor) -> torch.Tensor:
    """What core's upscaler, with its tiles of 512 pixels, must give for a smaller (1, H, W, C)
    image."""
    with torch.inference_mode():
        return model(image.movedim(-1, 1)).movedim(1, -1)


def assert_same(pixels: numpy.ndarray, expected: torch.Tensor) -> None:
    """SaveImage rounds down to one of 255 levels."""
    assert pixels.shape == expected.shape[1:]
    assert expected.std() > 0.03  # nothing could be seen in a flat picture
    assert abs(pixels / 255 - expected[0].clamp(0, 1).numpy()).max() <= 1 / 255 + 1e-5


# Pairings of loaders and upscalers
# --------------------------------------------------------------------------


@pytest.mark.parametrize("loader", [CORE_LOADER, LOADER])
def test_fdat_through_cores_upscaler(
    client: Client, fdat: str, picture: numpy.ndarray, loader: str
) -> None:
    outcome = client.run(graph(client.upload("picture.png", picture), loader, fdat, CORE_UPSCALER))
    (pixels,) = saved(client, outcome)
    assert_same(
        pixels, whole_image(load_by_spandrel(client.host.models / fdat), to_tensor(picture))
    )


@pytest.mark.parametrize("model", ["fdat", "dense_iso"])
@pytest.mark.parametrize(
    ("loader", "shape"), [(CORE_LOADER, "aligned_picture"), (LOADER, "picture")]
)
def test_this_packs_upscaler_equals_the_python_interface(
    client: Client, request: pytest.FixtureRequest, loader: str, shape: str, model: str
) -> None:
    checkpoint: str = request.getfixturevalue(model)
    picture: numpy.ndarray = request.getfixturevalue(shape)
    name = client.upload("picture.png", picture)
    outcome = client.run(graph(name, loader, checkpoint, UPSCALER, **TILES))
    (pixels,) = saved(client, outcome)
    reference = load_model(client.host.models / checkpoint)
    assert_same(pixels, upscale_image(reference, to_tensor(picture), **TILES))


@pytest.mark.parametrize("loader", [CORE_LOADER, LOADER])
def test_dense_iso_vit_through_cores_upscaler(
    client: Client, dense_iso: str, picture: numpy.ndarray, loader: str
) -> None:
    outcome = client.run(
        graph(client.upload("picture.png", picture), loader, dense_iso, CORE_UPSCALER)
    )
    (pixels,) = saved(client, outcome)
    assert_same(pixels, whole_image(load_model(client.host.models / dense_iso), to_tensor(picture)))


@pytest.mark.parametrize("gives", ["model", "half model"])
def test_model_of_another_pack(
    client: Client, fdat: str, aligned_picture: numpy.ndarray, gives: str
) -> None:
    path = client.host.models / fdat
    workflow = graph(
        client.upload("picture.png", aligned_picture), "OtherPackLoader", fdat, UPSCALER, **TILES
    )
    workflow["loader"]["inputs"] = {"path": str(path), "gives": gives}
    workflow["upscaler"]["inputs"]["precision"] = "fp32"
    (pixels,) = saved(client, client.run(workflow))
    model = load_by_spandrel(path)
    model = model.half() if gives == "half model" else model
    assert_same(pixels, upscale_image(model, to_tensor(aligned_picture), **TILES, precision="fp32"))


def test_something_else_in_place_of_a_model(client: Client, picture: numpy.ndarray) -> None:
    workflow = graph(client.upload("picture.png", picture), "OtherPackLoader", "", UPSCALER)
    workflow["loader"]["inputs"] = {"path": "engine.trt", "gives": "path"}
    outcome = client.run(workflow)
    assert outcome.error_node == "upscaler"
    assert "an image model was expected" in outcome.error


def test_defaults_need_no_touching(client: Client, fdat: str, picture: numpy.ndarray) -> None:
    """The graph holds nothing but the two connections, as when a node is dropped and wired."""
    outcome = client.run(graph(client.upload("picture.png", picture), LOADER, fdat, UPSCALER))
    (pixels,) = saved(client, outcome)
    assert_same(
        pixels, whole_image(load_by_spandrel(client.host.models / fdat), to_tensor(picture))
    )


def test_lower_precision_leaves_the_model_as_it_was(
    client: Client, fdat: str, picture: numpy.ndarray
) -> None:
    """Core's upscaler gets the very descriptor that this pack's has run in bfloat16."""
    name = client.upload("picture.png", picture)
    first = client.run(graph(name, LOADER, fdat, UPSCALER, **TILES, precision="bf16"))
    second = client.run(graph(name, LOADER, fdat, CORE_UPSCALER))
    assert first.status == "success", first.error
    assert "loader" in second.cached
    (pixels,) = saved(client, second)
    assert_same(
        pixels, whole_image(load_by_spandrel(client.host.models / fdat), to_tensor(picture))
    )


def test_every_frame_of_a_batch(client: Client, fdat: str, picture: numpy.ndarray) -> None:
    frames = [picture, picture[::-1].copy(), picture[:, ::-1].copy()]
    workflow = graph(client.upload("0.png", frames[0]), LOADER, fdat, UPSCALER, **TILES)
    joined: list[object] = ["picture", 0]
    for number, frame in enumerate(frames[1:]):
        name = client.upload(f"{number + 1}.png", frame)
        workflow[f"picture{number}"] = {"class_type": "LoadImage", "inputs": {"image": name}}
        inputs = {"image1": joined, "image2": [f"picture{number}", 0]}
        workflow[f"batch{number}"] = {"class_type": "ImageBatch", "inputs": inputs}
        joined = [f"batch{number}", 0]
    workflow["upscaler"]["inputs"]["image"] = joined
    results = saved(client, client.run(workflow))
    model = load_model(client.host.models / fdat)
    assert len(results) == len(frames)
    for pixels, frame in zip(results, frames, strict=True):
        assert_same(pixels, upscale_image(model, to_tensor(frame), **TILES))


def test_transparency(client: Client, fdat: str, picture: numpy.ndarray) -> None:
    """LoadImage gives colours and 1 - alpha; core joins them into RGBA."""
    rgba = numpy.concatenate([picture, numpy.flip(picture[..., :1], axis=1)], axis=-1)
    workflow = graph(client.upload("rgba.png", rgba), LOADER, fdat, UPSCALER, **TILES)
    workflow["join"] = {
        "class_type": "JoinImageWithAlpha",
        "inputs": {"image": ["picture", 0], "alpha": ["picture", 1]},
    }
    workflow["upscaler"]["inputs"]["image"] = ["join", 0]
    (pixels,) = saved(client, client.run(workflow))
    expected = upscale_image(load_model(client.host.models / fdat), to_tensor(rgba), **TILES)
    assert_same(pixels, expected)


@pytest.mark.parametrize("target", ["1.5x", "50%", "200x90"])
def test_target(client: Client, fdat: str, picture: numpy.ndarray, target: str) -> None:
    name = client.upload("picture.png", picture)
    (pixels,) = saved(
        client, client.run(graph(name, LOADER, fdat, UPSCALER, **TILES, target=target))
    )
    model = load_model(client.host.models / fdat)
    assert_same(
        pixels, upscale_image(model, to_tensor(picture), **TILES, target=parse_target(target))
    )


def test_target_from_another_node(client: Client, fdat: str, picture: numpy.ndarray) -> None:
    """Linked values are unknown when the host validates a graph."""
    workflow = graph(
        client.upload("picture.png", picture), LOADER, fdat, UPSCALER, target=["text", 0]
    )
    workflow["text"] = {"class_type": "PrimitiveString", "inputs": {"value": "50%"}}
    (pixels,) = saved(client, client.run(workflow))
    assert pixels.shape == (38, 55, 3)


@pytest.mark.parametrize("mode", ["auto", "exact"])
def test_all_options_together(client: Client, picture: numpy.ndarray, mode: str) -> None:
    """On the bundled model, with the mask that LoadImage makes of transparency: 1 - alpha."""
    options = {
        "seamless": "both",
        "ensemble": 8,
        "colour_fix": "wavelet",
        "target": "fit 150x90",
        "mode": mode,
    }
    alpha = numpy.full((*picture.shape[:2], 1), 255, numpy.uint8)
    alpha[20:45, 30:80] = 0
    name = client.upload("masked.png", numpy.concatenate([picture, alpha], axis=-1))
    bundled = PACK / "models" / "fdat_demo_x2.safetensors"
    workflow = graph(
        name, LOADER, bundled.name, UPSCALER, **options, output_dtype="fp16", mask=["picture", 1]
    )
    (pixels,) = saved(client, client.run(workflow))
    mask = 1 - to_tensor(alpha)[..., 0]
    model = load_model(bundled)
    expected = upscale_image(model, to_tensor(picture), mask=mask, dtype=torch.float16, **options)
    assert_same(pixels, expected.float())
    assert (
        expected - upscale_image(model, to_tensor(picture), target="fit 150x90")
    ).abs().max() > 0.05


def test_mask_of_another_size_and_a_batch(
    client: Client, fdat: str, picture: numpy.ndarray
) -> None:
    """LoadImage's mask of an opaque picture is an empty one of 64 x 64: nothing is left for the
    model to do."""
    workflow = graph(
        client.upload("picture.png", picture), LOADER, fdat, UPSCALER, mask=["picture", 1]
    )
    workflow["batch"] = {
        "class_type": "RepeatImageBatch",
        "inputs": {"image": ["picture", 0], "amount": 3},
    }
    workflow["upscaler"]["inputs"]["image"] = ["batch", 0]
    frames = saved(client, client.run(workflow))
    assert len(frames) == 3
    expected = resize(to_tensor(picture)[0], (150, 220))[None]
    for pixels in frames:
        assert_same(pixels, expected)


def test_masks_that_do_not_fit_are_named(client: Client, fdat: str, picture: numpy.ndarray) -> None:
    workflow = graph(
        client.upload("picture.png", picture), LOADER, fdat, UPSCALER, mask=["masks", 0]
    )
    workflow["repeated"] = {
        "class_type": "RepeatImageBatch",
        "inputs": {"image": ["picture", 0], "amount": 2},
    }
    workflow["masks"] = {
        "class_type": "ImageToMask",
        "inputs": {"image": ["repeated", 0], "channel": "red"},
    }
    outcome = client.run(workflow)
    assert outcome.error_node == "upscaler"
    assert "there are 2 masks for 1 pictures" in outcome.error


# Running
# ----------------------------------------------------------------------------------------------------


def test_replaced_checkpoint_is_loaded_again(
    client: Client, fdat: str, picture: numpy.ndarray
) -> None:
    weights = load_file(client.host.models / fdat)
    replaced = client.host.models / "replaced.safetensors"
    workflow = graph(
        client.upload("picture.png", picture), LOADER, replaced.name, UPSCALER, **TILES
    )
    for bias in (0.4, 0.6):
        weights["upsampler.0.bias"].fill_(bias)
        save_file(weights, replaced)
        (pixels,) = saved(client, client.run(workflow))
        assert_same(pixels, upscale_image(load_model(replaced), to_tensor(picture), **TILES))


def progress(events: list[dict[str, Any]]) -> list[int]:
    """How many tile batches the upscaler had done; the host leaves out what comes too fast."""
    return [
        event["data"]["value"]
        for event in events
        if event["type"] == "progress" and event["data"]["node"] == "upscaler"
    ]


def test_second_run_is_cached(client: Client, fdat: str, picture: numpy.ndarray) -> None:
    name = client.upload("cached.png", picture)
    workflow = graph(name, LOADER, fdat, UPSCALER, **TILES)
    first, second = client.run(workflow), client.run(workflow)
    assert first.status == second.status == "success"
    assert second.cached >= {"picture", "loader", "upscaler"}


def test_progress_counts_to_the_end(client: Client, fdat: str, picture: numpy.ndarray) -> None:
    name = client.upload("progress.png", picture[:, ::-1].copy())
    workflow = graph(name, LOADER, fdat, UPSCALER, **TILES, batch=1)
    events = list(client.events(workflow))
    total = next(event["data"]["max"] for event in events if event["type"] == "progress")
    assert total > 3
    assert progress(events) == sorted(set(progress(events)))
    assert progress(events)[-1] == total


@pytest.mark.parametrize(
    "options",
    [{"mode": "tile", "tile": 24, "overlap": 8, "batch": 1}, {"mode": "exact"}],
    ids=["tile", "exact"],
)
def test_interrupt_in_mid_upscale_then_success(
    client: Client, fdat: str, picture: numpy.ndarray, options: dict[str, object]
) -> None:
    large = client.upload("large.png", numpy.tile(picture, (8, 8, 1)))
    events = []
    for event in client.events(graph(large, LOADER, fdat, UPSCALER, **options)):
        if progress([event]) and not progress(events):
            client.interrupt()
        events.append(event)
    assert events[-1]["type"] == "execution_interrupted"
    assert events[-1]["data"]["node_id"] == "upscaler"
    total = next(event["data"]["max"] for event in events if event["type"] == "progress")
    assert 0 < progress(events)[-1] < total / 2

    small = client.upload("small.png", picture)
    (pixels,) = saved(client, client.run(graph(small, LOADER, fdat, UPSCALER, **TILES)))
    model = load_model(client.host.models / fdat)
    assert_same(pixels, upscale_image(model, to_tensor(picture), **TILES))


# Errors
# -----------------------------------------------------------------------------------------------------


class _Exploit:
    """A pickle that makes a folder when it is loaded unsafely."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.mkdir, (self.folder,)


def truncated(path: Path) -> None:
    save_file({"conv_first.weight": torch.zeros(16, 3, 3, 3)}, path)
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.touch()


def of_another_kind(path: Path) -> None:
    save_file({"encoder.layers.0.weight": torch.zeros(4, 4)}, path)


def pickle_with_code(path: Path) -> None:
    torch.save({"conv_first.weight": _Exploit(path.with_suffix(".exploited"))}, path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("truncated.safetensors", truncated),
        ("empty.safetensors", empty),
        ("another-kind.safetensors", of_another_kind),
        ("code.pth", pickle_with_code),
    ],
)
def test_bad_checkpoint_is_named_in_the_error(
    client: Client, fdat: str, picture: numpy.ndarray, name: str, write: Callable[[Path], None]
) -> None:
    write(client.host.models / name)
    uploaded = client.upload("picture.png", picture)
    outcome = client.run(graph(uploaded, LOADER, name, UPSCALER))
    assert outcome.status == "error"
    assert outcome.error_node == "loader"
    assert name in outcome.error
    assert "Traceback" not in outcome.error
    assert not (client.host.models / name).with_suffix(".exploited").exists()
    assert client.run(graph(uploaded, LOADER, fdat, UPSCALER)).status == "success"


def test_bad_target_is_refused_before_any_work(
    client: Client, fdat: str, picture: numpy.ndarray
) -> None:
    workflow = graph(
        client.upload("picture.png", picture), LOADER, fdat, UPSCALER, target="as large as possible"
    )
    with pytest.raises(PromptRejected) as refusal:
        client.queue(workflow)
    (message,) = refusal.value.node_errors["upscaler"]
    assert "as large as possible" in message
    assert client.idle()


# What the interface shows of the nodes
# ----------------------------------------------------------------------


@pytest.mark.parametrize("node", [LOADER, UPSCALER])
def test_node_describes_itself(client: Client, node: str) -> None:
    description = client.get_json(f"/object_info/{node}")[node]
    assert description["python_module"] == f"custom_nodes.{PACK_NAME}"
    assert description["description"]
    inputs = {**description["input"]["required"], **description["input"].get("optional", {})}
    without_tooltip = [
        name
        for name, (_, *options) in inputs.items()
        if not (options and options[0].get("tooltip"))
    ]
    assert without_tooltip == []
    assert all(description["output_tooltips"])


@pytest.mark.parametrize("node", [LOADER, UPSCALER])
def test_help_page_is_served(client: Client, node: str) -> None:
    page = client.get(f"/extensions/{PACK_NAME}/docs/{node}.md").decode()
    assert page.startswith("# ")


def test_bundled_models_are_offered(client: Client) -> None:
    bundled = {path.name for path in (PACK / "models").glob("*.safetensors")}
    _, options = client.get_json(f"/object_info/{LOADER}")[LOADER]["input"]["required"][
        "model_name"
    ]
    assert bundled
    assert bundled <= set(options["options"])


def test_pack_loads_without_a_complaint(client: Client) -> None:
    log = client.host.log()
    assert PACK_NAME in log
    assert "IMPORT FAILED" not in "".join(line for line in log.splitlines() if PACK_NAME in line)
