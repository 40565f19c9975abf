"""Graphs for the host, and what their results are compared with."""

from __future__ import annotations

from pathlib import Path

import numpy
import torch
from spandrel import ImageModelDescriptor, ModelLoader

from tests.comfyui.server import Client, Graph, Outcome

CORE_LOADER = "UpscaleModelLoader"
CORE_UPSCALER = "ImageUpscaleWithModel"
LOADER = "FDATDenseIsoLoader"
UPSCALER = "FDATDenseIsoUpscale"
TILES = {"mode": "tile", "tile": 48, "overlap": 8, "border": "model"}


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
