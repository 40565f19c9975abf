"""Spandrel descriptors around networks whose result is known in closed form."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from spandrel import Architecture, ImageModelDescriptor, ModelTiling, SizeRequirements
from torch import Tensor, nn


class FakeArch(Architecture):
    def __init__(self) -> None:
        super().__init__(id="Fake", detect=lambda state_dict: False)

    def load(self, state_dict):
        raise NotImplementedError


class Nearest(nn.Module):
    """Nearest-neighbour upsampling; remembers the shapes it was called with, and may misbehave on demand."""

    def __init__(self, scale: int, channels: int = 3) -> None:
        super().__init__()
        self.scale = scale
        self.gain = nn.Parameter(torch.ones(channels, 1, 1))
        self.calls: list[tuple[int, ...]] = []
        self.before: Callable[[Tensor], None] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "meta":
            self.calls.append(tuple(x.shape))
            if self.before:
                self.before(x)
        return F.interpolate(x * self.gain, scale_factor=self.scale, mode="nearest")


def descriptor(
    network: nn.Module,
    scale: int,
    channels: int = 3,
    *,
    half: bool = True,
    multiple_of: int = 1,
    minimum: int = 0,
    tiling: ModelTiling = ModelTiling.SUPPORTED,
) -> ImageModelDescriptor:
    return ImageModelDescriptor(
        network,
        network.state_dict(),
        architecture=FakeArch(),
        purpose="SR" if scale > 1 else "Restoration",
        tags=[],
        supports_half=half,
        supports_bfloat16=half,
        scale=scale,
        input_channels=channels,
        output_channels=channels,
        size_requirements=SizeRequirements(minimum=minimum, multiple_of=multiple_of),
        tiling=tiling,
    )


def nearest(scale: int = 2, channels: int = 3, **options) -> ImageModelDescriptor:
    return descriptor(Nearest(scale, channels), scale, channels, **options)


def enlarged(image: Tensor, scale: int) -> Tensor:
    """What a nearest-neighbour model makes of (B, H, W, C)."""
    return image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def picture(height: int, width: int, channels: int = 3, batch: int = 1) -> Tensor:
    """Random picture (B, H, W, C) whose alpha, if any, is partly transparent."""
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(height * 977 + width))
