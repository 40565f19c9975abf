"""Dense-Iso-ViT learns patches by heart (slow), and what the command says about gradients is
true."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks.overfit import linear_limit, narrow_network, overfit, read_patches
from fdat_dense_iso.arch.dense_iso.config import DenseIsoViTConfig, pixel_shuffle_head
from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT
from tests.helpers.paths import ROOT

SAMPLES = ROOT / "samples"


def pictures() -> Path:
    """Photographs: PICTURES from the environment, else those beside the repository, else the
    sample."""
    folders = [Path(os.environ["PICTURES"])] if "PICTURES" in os.environ else []
    folders += [
        beside / "shared" / "images" / "train_cc0" for beside in (ROOT.parent, Path("/work"))
    ]
    return next((folder for folder in folders if folder.is_dir()), SAMPLES)


@pytest.mark.slow
def test_the_network_learns_eight_patches_by_heart() -> None:
    torch.manual_seed(0)
    result = overfit(narrow_network(), read_patches(pictures()), steps=400, report=print)
    assert result.without_gradient == result.not_finite == result.not_moved == []
    assert result.psnr >= 40 and result.factor >= 20


def small() -> DenseIsoViT:
    head = pixel_shuffle_head(fusion_width=8, widths=(8, 8, 8, 8))
    return DenseIsoViT(
        DenseIsoViTConfig(
            window=16, dims=(8, 12), depths=(1,), heads=(2, 3), hidden=(16, 20), head=head
        )
    )


def test_every_parameter_of_a_sound_network_is_reached() -> None:
    torch.manual_seed(0)
    result = overfit(small(), torch.rand(2, 3, 64, 64), steps=3)
    assert result.without_gradient == result.not_finite == result.not_moved == []
    assert [point["step"] for point in result.curve] == [0, 3]
    assert result.psnr == result.curve[-1]["psnr"]


def test_a_parameter_without_gradient_is_named() -> None:
    class Detached(DenseIsoViT):
        """The head's gradients end at the second stage."""

        def features(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([super().features(x)[:, :8], super().features(x)[:, 8:].detach()], 1)

    torch.manual_seed(0)
    network = Detached(small().config)
    result = overfit(network, torch.rand(2, 3, 64, 64), steps=2)
    lost = [
        name
        for name, _ in network.named_parameters()
        if name.startswith(("stages.1.", "transitions."))
    ]
    assert result.without_gradient == result.not_moved == lost
    assert 0 < result.reached < result.parameters


def test_a_gradient_that_is_not_finite_is_named() -> None:
    network = small()
    network.head[-1].bias.register_hook(lambda gradient: gradient * math.nan)
    assert "head.5.bias" in overfit(network, torch.rand(1, 3, 64, 64), steps=1).not_finite


def test_the_linear_limit_is_reached_by_as_many_cells_as_numbers() -> None:
    """Against least squares: three cells need three numbers; with two, the best plane leaves the
    least variance."""
    torch.manual_seed(0)
    residual = torch.rand(1, 3, 12, 4) - 0.5  # three cells of 4 x 4 pixels
    assert linear_limit(residual, 3, 4) > 100
    cells = residual.unflatten(2, (3, 4)).permute(2, 0, 1, 3, 4).flatten(1).double()
    least = torch.linalg.eigvalsh(cells @ cells.T)[0] / residual.numel()
    assert linear_limit(residual, 2, 4) == pytest.approx(-10 * math.log10(least))


def test_patches_of_one_picture_cover_it() -> None:
    patches = read_patches(SAMPLES, 8)
    assert patches.shape == (8, 3, 256, 256) and patches.min() >= 0 and patches.max() <= 1
    distances = [float(F.mse_loss(a, b)) for i, a in enumerate(patches) for b in patches[:i]]
    assert min(distances) > 0.001
    with pytest.raises(ValueError, match="no picture of at least 256"):
        read_patches(ROOT / "tests")
