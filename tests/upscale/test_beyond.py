"""Values outside of [0, 1]: against Pillow's bicubic resampling of floating point pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from fdat_dense_iso.arch import load_model
from fdat_dense_iso.upscale import upscale_frames, upscale_image
from tests.helpers.fake_models import nearest, picture, stencil, whole
from tests.helpers.paths import ROOT


def hdr(height: int, width: int, channels: int = 3) -> torch.Tensor:
    """A picture with two highlights and a dark spot below 0."""
    image = picture(height, width, channels)
    image[:, 5:9, 6:12, :3] += 7
    image[:, 16, 20, :1] = 1.5
    image[:, 12:14, 3:5, :3] -= 2
    return image


def by_pillow(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC))


def enlarged(beyond: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(1, H, W, C) between 0 and its maximum, resampled by Pillow within these limits."""
    planes = [by_pillow(plane.numpy(), height, width) for plane in beyond[0].permute(2, 0, 1)]
    return torch.from_numpy(np.stack(planes, -1))[None].clamp(0, beyond.max())


@pytest.mark.parametrize("target", [None, "50x44", "50%"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_lies_beyond_is_resampled_and_added(
    channels: int, target: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    image, model = hdr(30, 28, channels), stencil(2, 3)
    result = upscale_image(model, image, target=target)
    said = "outside of [0, 1], from"
    assert caplog.text.count(said) == 1
    clipped = upscale_image(model, image.clamp(0, 1), target=target)
    assert caplog.text.count(said) == 1
    height, width = result.shape[1:3]
    colours = image[..., :3]
    expected = clipped.clone()
    expected[..., :3] += enlarged((colours - 1).clamp_min(0), height, width)
    expected[..., :3] -= enlarged((-colours).clamp_min(0), height, width)
    assert (result - expected).abs().max() <= 1e-5
    assert result.max() > 5 and result.min() < -0.3
    far = (expected == clipped).all(-1)
    assert torch.equal(result[far], clipped[far]) and far.float().mean() > 0.5


def test_a_flat_highlight_stays_as_bright_as_it_is() -> None:
    image = torch.full((1, 12, 16, 3), 30.0)
    assert (upscale_image(nearest(2), image) - 30).abs().max() <= 1e-4
    bright = torch.full((1, 12, 16, 3), 1e6)
    half = upscale_image(nearest(2), bright, dtype=torch.float16)
    assert bool((half == torch.finfo(torch.float16).max).all())


def test_rounding_is_only_clipped(caplog: pytest.LogCaptureFixture) -> None:
    image = picture(20, 24)
    image[:, :4], image[:, 4:8] = 1 + 1 / 600, -1e-7
    result = upscale_image(nearest(2), image)
    assert torch.equal(result, whole(nearest(2), image.clamp(0, 1))) and caplog.records == []


def test_float64_beyond_float32_is_as_far_as_that_goes() -> None:
    result = upscale_image(nearest(2), torch.full((1, 6, 6, 3), 1e300, dtype=torch.float64))
    assert result.isfinite().all() and result.min() > 1e38


def test_frames_within_are_as_before_beside_others() -> None:
    frames = torch.cat([picture(20, 24), hdr(20, 24)[:, :, :24], hdr(20, 24), picture(20, 24)])
    results = upscale_image(stencil(), frames)
    for frame, result in zip(frames, results):
        assert torch.equal(upscale_image(stencil(), frame[None])[0], result)


def test_highlights_of_a_panorama_meet_at_its_seam() -> None:
    image = torch.zeros(1, 16, 24, 3)
    image[:, :, :2] = image[:, :, -2:] = 9
    result = upscale_image(nearest(2), image, seamless="horizontal")
    rolled = upscale_image(nearest(2), image.roll(12, 2), seamless="horizontal")
    assert (result.roll(24, 2) - rolled).abs().max() <= 1e-5
    assert (result[:, :, 0] - result[:, :, -1]).abs().max() <= 1e-5


@pytest.mark.parametrize("mode", ["tile", "whole"])
@pytest.mark.parametrize("target", [None, "50x44"])
def test_frames_one_after_the_other_are_as_pictures_are(
    mode: str, target: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """`upscale_frames`, also of frames that repeat the one before; the log says so once."""
    images, model = [hdr(30, 28), picture(30, 28, 3), hdr(30, 28) * 0.9], stencil(2, 3)
    options = {"mode": mode, "target": target}
    expected = [upscale_image(model, image, **options)[0] for image in images]
    caplog.clear()
    got: list[torch.Tensor] = []
    frames = [images[0][0], None, images[1][0], images[2][0], None]
    upscale_frames(model, frames, lambda one: got.append(one.clone()), **options)
    assert caplog.text.count("outside of [0, 1], from") == 1
    for one, index in zip(got, (0, 0, 1, 2, 2), strict=True):
        assert torch.equal(one, expected[index])
    assert got[0].max() > 5


@pytest.mark.parametrize("mode", ["exact", "tile"])
def test_highlights_survive_fdat(mode: str) -> None:
    """A highlight of 8 on the bundled network, in both modes: as bright as before, where it lies."""
    model = load_model(ROOT / "models" / "fdat_demo_x2.safetensors")
    image = picture(40, 48, 3)
    image[:, 10:26, 12:30] = 8.0
    options = {"mode": mode, "tile": 32 if mode == "tile" else None}
    result = upscale_image(model, image, **options)
    inside = result[:, 26:46, 30:54]
    assert (inside - 8).abs().max() < 0.1
    clipped = upscale_image(model, image.clamp(0, 1), **options)
    assert torch.equal(result[:, 70:], clipped[:, 70:])


class Counting(TorchDispatchMode):
    """Counts how often so many values are asked for their extremes."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.values, self.looks = values, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.overloadpacket.__name__ == "aminmax":
            self.looks += args[0].numel() == self.values
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("channels", [3, 4])
def test_a_picture_is_looked_through_once(channels: int) -> None:
    image = picture(30, 28, channels)
    with Counting(image.numel()) as counting:
        upscale_image(stencil(2, 3), image, tile=16, precision="fp32")
    assert counting.looks == 1


def test_transparency_beyond_alone_is_only_clipped(caplog: pytest.LogCaptureFixture) -> None:
    image = picture(30, 28, 4)
    image[..., 3] = 1
    clipped = upscale_image(stencil(2, 3), image)
    image[:, 5:9, 6:12, 3] += 1
    assert torch.equal(upscale_image(stencil(2, 3), image), clipped) and not caplog.text
