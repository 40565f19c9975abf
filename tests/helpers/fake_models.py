"""Spandrel descriptors around networks whose result is known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from spandrel import Architecture, ImageModelDescriptor, ModelTiling, SizeRequirements
from torch import Tensor, nn

from fdat_dense_iso.arch.windowed.network import WindowedUpscaler


class FakeArch(Architecture):
    def __init__(self) -> None:
        super().__init__(id="Fake", detect=lambda state_dict: False)

    def load(self, state_dict):
        raise NotImplementedError


class Nearest(nn.Module):
    """Nearest-neighbour upsampling; remembers the shapes it was called with, and may misbehave on
    demand."""

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


class Stencil(nn.Module):
    """A random 5x5 convolution to scale x scale subpixels: local, mixes neighbours, and has no
    symmetry at all."""

    def __init__(self, scale: int = 2, channels: int = 3) -> None:
        super().__init__()
        self.scale, self.channels = scale, channels
        kernel = torch.rand(
            channels * scale**2, 1, 5, 5, generator=torch.Generator().manual_seed(5)
        )
        self.weight = nn.Parameter(kernel / kernel.sum((2, 3), keepdim=True))
        self.calls: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "meta":
            self.calls.append(tuple(x.shape))
        x = F.conv2d(F.pad(x, (2, 2, 2, 2)), self.weight, groups=self.channels)
        return F.pixel_shuffle(x, self.scale)


def stencil(scale: int = 2, channels: int = 3) -> ImageModelDescriptor:
    return descriptor(Stencil(scale, channels), scale, channels)


def pixels_computed(model: ImageModelDescriptor) -> int:
    """Input pixels that the network was called with."""
    return sum(shape[0] * shape[2] * shape[3] for shape in model.model.calls)


def whole(model: ImageModelDescriptor, image: Tensor) -> Tensor:
    """What the descriptor itself makes of (B, H, W, C), frame by frame."""
    with torch.inference_mode():
        return torch.cat([model(frame[None].movedim(-1, 1)).movedim(1, -1) for frame in image])


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


def windowed(network: nn.Module, scale: int, window: int, overlap: int) -> ImageModelDescriptor:
    """A network that takes images of exactly ``window`` x ``window`` pixels, in such windows."""

    def check(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert inputs[0].shape[-2:] == (window, window)

    network.register_forward_pre_hook(check)
    model = WindowedUpscaler(network, window=window, scale=scale, alignment=4, overlap=overlap)
    model.calls = network.calls
    return descriptor(model, scale)


def nearest(scale: int = 2, channels: int = 3, **options) -> ImageModelDescriptor:
    return descriptor(Nearest(scale, channels), scale, channels, **options)


def enlarged(image: Tensor, scale: int) -> Tensor:
    """What a nearest-neighbour model makes of (B, H, W, C)."""
    return image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def picture(height: int, width: int, channels: int = 3, batch: int = 1) -> Tensor:
    """Random picture (B, H, W, C) whose alpha, if any, is partly transparent."""
    return torch.rand(
        batch,
        height,
        width,
        channels,
        generator=torch.Generator().manual_seed(height * 977 + width),
    )


def save_nearest(path: Path) -> None:
    """A checkpoint of the Compact architecture that repeats every pixel twice: all that it adds to
    that is zero."""
    body = {"0": (4, 3, 3, 3), "2": (4, 4, 3, 3), "4": (12, 4, 3, 3)}
    state = {f"body.{number}.weight": torch.zeros(shape) for number, shape in body.items()}
    state |= {f"body.{number}.bias": torch.zeros(shape[0]) for number, shape in body.items()}
    state |= {f"body.{number}.weight": torch.zeros(4) for number in ("1", "3")}
    save_file(state, path)
