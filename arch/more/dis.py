"""DIS, "direct image supersampling": a small chain of residual blocks.

Source: Kim2091 and traiNNer-redux, which define the names of the tensors; no paper. spandrel has it
after 0.4.2.

    image -> conv -> blocks -> fusion, + skip -> pixel shuffles -> conv, + bilinear enlargement
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ModelLoadError
from .member import Member, MemberConfig, indices, shuffle_factor


@dataclass(frozen=True, kw_only=True)
class DISConfig(MemberConfig):
    """Hyperparameters.

    Attributes:
        width: features C.
        blocks: number of blocks.
        depthwise: whether a block is one depthwise and one 1x1 convolution instead of two of 3x3.
    """

    width: int = 32
    blocks: int = 12
    depthwise: bool = False


def conv3(entering: int, leaving: int, bias: bool = True, groups: int = 1) -> nn.Conv2d:
    """3x3 convolution that keeps the size."""
    return nn.Conv2d(entering, leaving, 3, padding=1, bias=bias, groups=groups)


class ResidualBlock(nn.Module):
    """Two convolutions around a PReLU, and a skip; (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = conv3(width, width, bias=False)
        self.conv2 = conv3(width, width, bias=False)
        self.act = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.act(self.conv1(x)))


class Separable(nn.Module):
    """A depthwise 3x3 and a 1x1 convolution; (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = conv3(width, width, bias=False, groups=width)
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class LightBlock(nn.Module):
    """A separable convolution, PReLU, and a skip; (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dw_conv = Separable(width)
        self.act = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.dw_conv(x))


class Enlargement(nn.Module):
    """Convolution, pixel shuffle, PReLU: (B, C, H, W) -> (B, C, H * factor, W * factor)."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.conv = conv3(width, width * factor**2)
        self.act = nn.PReLU(width)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.act(F.pixel_shuffle(self.conv(x), self.factor))


class DIS(nn.Module):
    """(B, in, H, W) in [0, 1] -> (B, out, H * scale, W * scale), unclamped; any H, W >= 1."""

    def __init__(self, config: DISConfig) -> None:
        super().__init__()
        width, scale = config.width, config.scale
        self.scale = scale
        self.head = conv3(config.in_channels, width)
        self.head_act = nn.PReLU(width)
        block = LightBlock if config.depthwise else ResidualBlock
        self.body = nn.Sequential(*(block(width) for _ in range(config.blocks)))
        self.fusion = conv3(width, width)
        self.upsampler: nn.Module = nn.Identity()
        if scale == 4:
            self.upsampler = nn.Sequential(Enlargement(width, 2), Enlargement(width, 2))
        elif scale > 1:
            self.upsampler = Enlargement(width, scale)
        self.tail = conv3(width, config.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.head_act(self.head(x))
        deep = self.fusion(self.body(shallow)) + shallow
        enlarged = F.interpolate(x, scale_factor=self.scale, mode="bilinear")
        return self.tail(self.upsampler(deep)) + enlarged


class DISArch(Member):
    """Detects and loads DIS."""

    title = "DIS"
    source = "traiNNer-redux"
    examples = (
        DISConfig(width=8, blocks=2, scale=4),
        DISConfig(width=8, blocks=1, scale=3, depthwise=True),
        DISConfig(width=8, blocks=1, scale=2, in_channels=1, out_channels=1),
        DISConfig(width=8, blocks=1, scale=1),
    )

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        names = (
            "head.weight",
            "head_act.weight",
            "body.0.act.weight",
            "fusion.weight",
            "tail.weight",
        )
        return all(name in state_dict for name in names)

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> DISConfig:
        width, entering = state_dict["head.weight"].shape[:2]
        if "upsampler.0.conv.weight" in state_dict:
            scale = 4
        elif "upsampler.conv.weight" in state_dict:
            scale = shuffle_factor(
                len(state_dict["upsampler.conv.weight"]), width, "DIS: upsampler.conv"
            )
        else:
            scale = 1
        leaving = len(state_dict["tail.weight"])
        if leaving != entering:  # the enlarged image is added
            raise ModelLoadError(f"DIS: {entering} channels in and {leaving} out can't be added")
        return DISConfig(
            in_channels=entering,
            out_channels=leaving,
            scale=scale,
            width=width,
            blocks=len(indices(state_dict, "body.")),
            depthwise="body.0.dw_conv.depthwise.weight" in state_dict,
        )

    def build(self, config: DISConfig) -> DIS:
        return DIS(config)


ARCHITECTURE = DISArch
