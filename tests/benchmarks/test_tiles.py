"""The benchmark of tiles: the generic form of an exact mode is exact after as many passes as there
are averages, where tiles overlap by what the network sees, and not before."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.tiles import in_passes, pools
from tests.helpers.fake_models import descriptor


class Gated(nn.Module):
    """Averages that depend on those before them."""

    def __init__(self) -> None:
        super().__init__()
        self.pools = nn.ModuleList(nn.AdaptiveAvgPool2d(1) for _ in range(3))
        self.convolutions = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x):
        for pool, convolution in zip(self.pools, self.convolutions):
            x = convolution(x) * (1 + 4 * pool(x))
        return x.sigmoid()


def test_a_pass_for_every_average() -> None:
    torch.manual_seed(0)
    model = descriptor(Gated().eval(), 1)
    assert len(pools(model)) == 3
    image = torch.rand(1, 3, 96, 160)
    image[..., 80:] *= 0.1
    with torch.inference_mode():
        whole = model(image)
        errors = [float((made - whole).abs().max()) for made in in_passes(model, image, 64, 4)]
    assert errors[3] <= 1e-5 * float(whole.abs().max())
    assert min(errors[:2]) > 1e-3 * float(whole.abs().max())
