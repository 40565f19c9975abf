"""benchmarks.borders continues pictures as `upscale_image` does, and scores their borders alone."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.borders import border_psnr, enlarged
from fdat_dense_iso.arch import load_model
from fdat_dense_iso.upscale import upscale_image
from tests.helpers.paths import ROOT


def test_mirroring_is_that_of_upscale_image() -> None:
    model = load_model(ROOT / "models" / "fdat_demo_x2.safetensors")
    picture = np.random.default_rng(1).random((24, 17, 3))
    ours = enlarged(model, picture, "symmetric", 8)
    image = torch.from_numpy(picture).float()[None]
    theirs = upscale_image(model, image, mode="exact", border="mirror", precision="fp32")[0]
    assert np.abs(ours - theirs.double().numpy()).max() <= 1e-5


def test_only_the_border_is_scored() -> None:
    truth = np.zeros((9, 12, 3))
    result = truth + 0.5  # wrong everywhere but within 2 pixels of the border, where it is by 0.1
    for rows in (slice(2), slice(-2, None)):
        result[rows] = 0.1
        result[:, rows] = 0.1
    assert abs(border_psnr(result, truth, 2) - 20) < 1e-9
    assert border_psnr(result, truth, 3) < 20
