"""`upscale_image` against closed forms: a nearest-neighbour model makes the same picture, tiled or
not.

More than 400 lines, because all promises of one function stand together.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fdat_dense_iso.upscale import OutOfMemoryError, Target, upscale_image
from tests.helpers.fake_models import descriptor, enlarged, nearest, picture


@pytest.mark.parametrize("tile", [None, 16])
@pytest.mark.parametrize("model_channels", [1, 3, 4])
@pytest.mark.parametrize("image_channels", [1, 3, 4])
def test_any_channels_through_any_model(
    image_channels: int, model_channels: int, tile: int | None
) -> None:
    image = picture(21, 30, image_channels, batch=2)
    result = upscale_image(nearest(2, model_channels), image, tile=tile)
    expected = enlarged(image, 2)
    assert result.shape == expected.shape
    if image_channels == 4:
        visible = expected[..., 3:] > 1 / 255
        assert ((result - expected).abs() * visible).max() <= 1e-4
        assert (result[..., 3] - expected[..., 3]).abs().max() <= 1e-6
    else:
        assert (result - expected).abs().max() <= 1e-6


def test_opaque_alpha_costs_nothing_and_stays_opaque() -> None:
    model = nearest()
    image = picture(20, 20, 4)
    image[..., 3] = 1
    result = upscale_image(model, image)
    assert len(model.model.calls) == 1
    assert (result[..., 3] == 1).all()
    assert (result[..., :3] - enlarged(image, 2)[..., :3]).abs().max() <= 1e-6


class Box(nn.Module):
    """A 3x3 box filter: mixes the colours of neighbours, as real networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3, 1, 3, 3), 1 / 9))

    def forward(self, x):
        return nn.functional.conv2d(
            nn.functional.pad(x, (1, 1, 1, 1), "replicate"), self.weight, groups=3
        )


def test_transparent_pixels_do_not_fringe() -> None:
    """A red disc on transparent green stays red to its last visible pixel."""
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    inside = ((y - 16) ** 2 + (x - 16) ** 2 < 100).float()
    image = torch.stack([inside, 1 - inside, torch.zeros_like(inside), inside], -1)[None]
    result = upscale_image(descriptor(Box(), 1), image, alpha="model")
    visible = result[..., 3] > 0.05
    assert result[..., 1][visible].max() <= 1e-5
    assert result[..., 0][visible].min() >= 1 - 1e-4
    plain = upscale_image(descriptor(Box(), 1), image, alpha="resize")
    assert torch.equal(plain[..., 3], image[..., 3])


@pytest.mark.parametrize(
    ("target", "size"),
    [
        (0.5, (15, 20)),
        (3.0, (90, 120)),
        (Target(width=100), (75, 100)),
        (Target(height=33), (33, 44)),
        (Target(width=50, height=50), (50, 50)),
        (2.0, (60, 80)),
    ],
    ids=str,
)
def test_target_size(target, size: tuple[int, int]) -> None:
    image = torch.full((2, 30, 40, 4), 0.25)
    image[..., 3] = 0.5
    result = upscale_image(nearest(2), image, target=target)
    assert result.shape == (2, *size, 4)
    assert (result[..., :3] - 0.25).abs().max() <= 1e-5 and (
        result[..., 3] - 0.5
    ).abs().max() <= 1e-5


def test_progress_counts_every_tile_of_every_frame_and_pass() -> None:
    seen: list[tuple[int, int]] = []
    upscale_image(
        nearest(),
        picture(40, 40, 4, batch=2),
        tile=24,
        overlap=8,
        batch=2,
        progress=lambda *s: seen.append(s),
    )
    assert seen == [(2 * (i + 1), 16) for i in range(8)]


def test_opaque_frames_stay_opaque_beside_others() -> None:
    image = picture(20, 20, 4, batch=2)
    image[0, ..., 3] = 1
    assert (upscale_image(descriptor(Box4(), 1), image)[0, ..., 3] == 1).all()


class Box4(nn.Module):
    """Loses a little of everything, alpha too."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.999))

    def forward(self, x):
        return x * self.gain


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(8, 8, 3), r"shape \(8, 8, 3\); \(B, H, W, C\)"),
        (torch.rand(1, 8, 8, 2), "C = 1, 3 or 4"),
        (torch.rand(1, 8, 8, 5), "C = 1, 3 or 4"),
        (torch.rand(1, 0, 8, 3), "no pixels"),
        (torch.rand(0, 8, 8, 3), "no pixels"),
        (torch.randint(0, 255, (1, 8, 8, 3), dtype=torch.uint8), "divide 8-bit values by 255"),
        (torch.full((1, 8, 8, 3), float("nan")), "NaN or infinite"),
        ("picture.png", "torch.Tensor"),
        (torch.nested.nested_tensor([torch.rand(8, 8, 3)]), "an ordinary tensor was expected"),
    ],
    ids=range(9),
)
def test_bad_images(image, message: str) -> None:
    model = nearest()
    with pytest.raises(ValueError, match=message):
        upscale_image(model, image)
    assert model.model.calls == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fast"}, "mode 'fast'"),
        ({"mode": "exact"}, "no exact mode"),
        ({"precision": "int8"}, "precision 'int8'"),
        ({"alpha": "drop"}, "alpha 'drop'"),
        ({"tile": 4}, "tile is 4"),
        ({"overlap": -1}, "overlap is -1"),
        ({"batch": 0}, "batch is 0"),
        ({"tile": 32, "overlap": 32}, "leaves nothing"),
        ({"target": Target(factor=0.001)}, "sides must be"),
        ({"target": Target(width=10**6)}, "sides must be"),
        ({"target": float("inf")}, "a number above 0"),
        ({"target": (20, 20)}, "the target is a tuple; a factor, a text or a Target"),
        ({"target": "large"}, "is not understood"),
        ({"tile": 16.0}, "whole number"),
        ({"device": "meta"}, "device 'meta' holds no values"),
        ({"output_device": "meta"}, "device 'meta' holds no values"),
        ({"device": "gpu"}, "device 'gpu' can't be used here"),
        ({"device": "xla:0"}, "device 'xla:0' can't be used here"),
        ({"progress": 3}, "progress is a int; a function of"),
        ({"preview": print}, "preview is a builtin_function_or_method; an object with the methods"),
        ({"mask": torch.ones(1, 40, 40, device="meta")}, "the mask is on the device meta"),
        ({"mask": torch.ones(1, 40, 40).to_sparse()}, "the mask is sparse or nested"),
        ({"mask": torch.nested.nested_tensor([torch.ones(4, 4)])}, "the mask is sparse or nested"),
    ],
    ids=lambda v: str(v),
)
def test_bad_options(options: dict, message: str) -> None:
    model = nearest()
    with pytest.raises(ValueError, match=message):
        upscale_image(model, picture(40, 40), **options)
    assert model.model.calls == []


@pytest.mark.parametrize("target", [None, 0.001])
def test_huge_images_are_refused_before_any_work(target: float | None) -> None:
    model = nearest()
    huge = torch.zeros(1).expand(1, 60_000, 60_000, 3)
    with pytest.raises(
        OutOfMemoryError, match=r"needs \d+\.\d GiB of main memory and \d+\.\d GiB are free"
    ):
        upscale_image(model, huge, target=target)
    assert model.model.calls == []


def test_other_things_than_models() -> None:
    with pytest.raises(ValueError, match="Linear; an image model was expected"):
        upscale_image(nn.Linear(3, 3), picture(8, 8))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_of_other_floating_types(dtype: torch.dtype) -> None:
    image = picture(20, 20).to(dtype)
    result = upscale_image(nearest(), image)
    assert result.dtype == torch.float32 and torch.equal(result, enlarged(image, 2).float())
