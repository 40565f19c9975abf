"""SESR: convolutions that are trained wide and collapsed into narrow ones.

Source: Bhardwaj et al., "Collapsible Linear Blocks for Super-Efficient Super Resolution", MLSys
2022; names of tensors as in Qualcomm's version for PyTorch (AIMET), which files come from. Arm's
own is for TensorFlow.

    image -> conv 5x5 -> blocks of conv 3x3 -> + (or beside) the first features -> conv 5x5
          -> + the image by a 1x1 convolution, which repeats its pixels -> pixel shuffle
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ModelLoadError
from .folding import Kernel, beside, in_turn
from .member import Member, MemberConfig, indices, shuffle_factor


@dataclass(frozen=True, kw_only=True)
class SESRConfig(MemberConfig):
    """Hyperparameters.

    Attributes:
        width: features C.
        blocks: number of blocks.
        learnt_slope: whether activations are PReLU with one slope, instead of ReLU.
        joined: whether the first features stand beside the last ones instead of being added.
        anchored: whether the image is added.
    """

    width: int = 16
    blocks: int = 5
    learnt_slope: bool = False
    joined: bool = False
    anchored: bool = True


class Collapsed(nn.Module):
    """A convolution and its activation, by the names that checkpoints give them."""

    def __init__(self, entering: int, leaving: int, kernel: int, activation: nn.Module) -> None:
        super().__init__()
        self.conv_expand = nn.Conv2d(entering, leaving, kernel, padding=kernel // 2)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.conv_expand(x))


class SESR(nn.Module):
    """(B, C, H, W) in [0, 1] -> (B, C, H * scale, W * scale), unclamped; any H, W >= 1."""

    def __init__(self, config: SESRConfig) -> None:
        super().__init__()
        self.config = config
        width, channels = config.width, config.in_channels
        rows = channels * config.scale**2
        activation = nn.PReLU if config.learnt_slope else nn.ReLU
        if config.anchored:
            self.anchor = nn.ModuleDict({"net": nn.Conv2d(channels, rows, 1)})
        self.conv_first = Collapsed(channels, width, 5, activation())
        self.residual_block = nn.Sequential(
            *(Collapsed(width, width, 3, activation()) for _ in range(config.blocks))
        )
        self.conv_last = Collapsed(width * (1 + config.joined), rows, 5, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv_first(x)
        last = self.residual_block(first)
        last = torch.cat([last, first], 1) if self.config.joined else last + first
        result = self.conv_last(last)
        if self.config.anchored:
            result = result + self.anchor["net"](x)
        return F.pixel_shuffle(result, self.config.scale)


class SESRArch(Member):
    """Detects and loads SESR, as it was trained and collapsed."""

    title = "SESR"
    source = "Qualcomm (AIMET)"
    examples = (
        SESRConfig(width=8, blocks=2, scale=2),
        SESRConfig(width=8, blocks=1, scale=3, learnt_slope=True, joined=True),
        SESRConfig(width=8, blocks=1, scale=4, in_channels=1, out_channels=1, anchored=False),
    )

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        names = ("conv_first", "residual_block.0", "conv_last")
        return all(f"{name}.conv_expand.weight" in state_dict for name in names)

    def prepare(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        prepared = dict(state_dict)
        for key in [key for key in state_dict if key.endswith(".conv_squeeze.weight")]:
            start = key.removesuffix("conv_squeeze.weight")
            wide = state_dict[f"{start}conv_expand.weight"]
            bias = state_dict.get(f"{start}conv_expand.bias", wide.new_zeros(len(wide)))
            squeeze = prepared.pop(key), prepared.pop(f"{start}conv_squeeze.bias")
            kernel = in_turn([(wide, bias), squeeze])
            if start.startswith("residual_block."):
                kernel = beside([kernel, _identity(kernel)])
            prepared[f"{start}conv_expand.weight"], prepared[f"{start}conv_expand.bias"] = kernel
        return prepared

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> SESRConfig:
        width, channels = state_dict["conv_first.conv_expand.weight"].shape[:2]
        rows, entering = state_dict["conv_last.conv_expand.weight"].shape[:2]
        if entering not in (width, 2 * width):
            raise ModelLoadError(f"SESR: conv_last takes {entering} features, {width} are there")
        return SESRConfig(
            in_channels=channels,
            out_channels=channels,
            scale=shuffle_factor(rows, channels, "SESR: conv_last"),
            width=width,
            blocks=len(indices(state_dict, "residual_block.")),
            learnt_slope="conv_first.activation.weight" in state_dict,
            joined=entering == 2 * width,
            anchored="anchor.net.weight" in state_dict,
        )

    def build(self, config: SESRConfig) -> SESR:
        return SESR(config)


def _identity(kernel: Kernel) -> Kernel:
    """The 1x1 convolution that changes nothing, of as many channels."""
    weight, bias = kernel
    return torch.eye(len(weight), dtype=weight.dtype)[..., None, None], torch.zeros_like(bias)


ARCHITECTURE = SESRArch
