"""Loaders and upscalers of this pack, of core and of others, in every pairing."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch

from fdat_dense_iso.arch import load_model
from fdat_dense_iso.upscale import parse_target, upscale_image
from fdat_dense_iso.upscale.resize import resize
from tests.comfyui.graphs import (
    CORE_LOADER,
    CORE_UPSCALER,
    LOADER,
    TILES,
    UPSCALER,
    assert_same,
    graph,
    load_by_spandrel,
    saved,
    to_tensor,
    whole_image,
)
from tests.comfyui.server import PACK, Client
from tests.helpers.paths import MODELS

pytestmark = pytest.mark.comfyui


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


@pytest.mark.parametrize("file", sorted(MODELS.glob("*.safetensors")), ids=lambda file: file.stem)
def test_bundled_models_through_core_alone(
    client: Client, picture: numpy.ndarray, file: Path
) -> None:
    """Core's loader hands over bare tensors, without the metadata of the file."""
    name = client.upload("picture.png", picture)
    core, ours = (
        saved(client, client.run(graph(name, *nodes, **options)))[0]
        for nodes, options in (
            ((CORE_LOADER, file.name, CORE_UPSCALER), {}),
            ((LOADER, file.name, UPSCALER), {"border": "model"}),
        )
    )
    assert abs(core.astype(int) - ours.astype(int)).max() <= 1


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
    model = load_by_spandrel(client.host.models / fdat)
    mirrored = numpy.pad(picture, ((8, 8), (8, 8), (0, 0)), mode="symmetric")
    margin = 8 * model.scale
    expected = whole_image(model, to_tensor(mirrored))
    assert_same(pixels, expected[:, margin:-margin, margin:-margin])


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
