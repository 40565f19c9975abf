"""RTMoSR: MoSR for real time, with convolutions that are folded after training.

Source: umzi (RTMoSR) and traiNNer-redux, which define the names of the tensors; OmniShift: Yang et
al., "Restore-RWKV", 2024. No paper of its own.

    image -> [pixel unshuffle] -> conv -> blocks -> conv, pixel shuffle -> + nearest enlargement

A block, with hidden width h, on (B, C, H, W) of even sides:

    gate, plain, mixed = split(conv3x3(norm(x)))         (h, h - C, C channels)
    x += mish(conv(mish(gate) * [plain, mix(mixed)]))

``mix`` works at half the size: a pixel unshuffle, with a convolution of the maximum of 2x2 pixels
added, a depthwise 5x5, [a gate from the mean over the picture], a pixel shuffle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.reflection import reflect
from .folding import beside, conv3xc, in_turn, layer
from .member import Member, MemberConfig, indices, shuffle_factor

EPS = 1e-6
UNSHUFFLED_SCALE = 4
FOLDED = "conv_3x3_rep"
FOLDED_5X5 = "conv5x5_reparam"


@dataclass(frozen=True, kw_only=True)
class RTMoSRConfig(MemberConfig):
    """Hyperparameters.

    Attributes:
        blocks, width, hidden: number of blocks, features C, and the gate's width h.
        square: whether the convolution that ends a block is 3x3 (``dccm``) instead of 1x1.
        gated: whether the mean over the picture gates channels (``se``).
        unshuffle: factor of the pixel unshuffle before the first convolution; 1: none.
    """

    blocks: int = 2
    width: int = 32
    hidden: int = 64
    square: bool = True
    gated: bool = True
    unshuffle: int = 1


class Folded(nn.Module):
    """A 3x3 convolution by the name that checkpoints give it."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        self.conv_3x3_rep = nn.Conv2d(entering, leaving, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_3x3_rep(x)


class FoldedShift(nn.Module):
    """A depthwise 5x5 convolution by the name that checkpoints give it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv5x5_reparam = nn.Conv2d(width, width, 5, padding=2, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv5x5_reparam(x)


class ChannelRMSNorm(nn.Module):
    """Division by the root of the mean square over the channels of (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.offset = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=1, keepdim=True) / math.sqrt(x.shape[1])
        scale, offset = self.scale[:, None, None], self.offset[:, None, None]
        return scale * (x / (size + EPS)) + offset


class Halving(nn.Module):
    """(B, C, H, W) -> (B, 4C, H / 2, W / 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.poll = nn.Sequential(nn.MaxPool2d(2), Folded(width, 4 * width))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x, 2) + self.poll(x)


class ChannelGate(nn.Module):
    """Weights channels by their means over the picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeezing = nn.Sequential(
            nn.Conv2d(width, width // 2, 1),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.squeezing(x.mean((2, 3), keepdim=True))


class GatedBlock(nn.Module):
    """(B, C, H, W) -> (B, C, H, W), as described at the top."""

    def __init__(self, config: RTMoSRConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.hidden
        self.norm = ChannelRMSNorm(width)
        self.fc1 = Folded(width, 2 * hidden)
        self.conv = nn.Sequential(
            Halving(width),
            FoldedShift(4 * width),
            ChannelGate(4 * width) if config.gated else nn.Identity(),
            nn.PixelShuffle(2),
        )
        self.fc2 = Folded(hidden, width) if config.square else nn.Conv2d(hidden, width, 1)
        self.parts = [hidden, hidden - width, width]

    def forward(self, x: Tensor) -> Tensor:
        gate, plain, mixed = self.fc1(self.norm(x)).split(self.parts, 1)
        gated = F.mish(gate) * torch.cat([plain, self.conv(mixed)], 1)
        return F.mish(self.fc2(gated)) + x


class RTMoSR(nn.Module):
    """(B, C, H, W) in [0, 1] -> (B, C, H * scale, W * scale), unclamped; any H, W >= 1."""

    def __init__(self, config: RTMoSRConfig) -> None:
        super().__init__()
        self.config = config
        unshuffle, scale = config.unshuffle, config.scale * config.unshuffle
        first = Folded(config.in_channels * unshuffle**2, config.width)
        self.to_feat = (
            nn.Sequential(nn.PixelUnshuffle(unshuffle), first) if unshuffle > 1 else first
        )
        self.body = nn.Sequential(*(GatedBlock(config) for _ in range(config.blocks)))
        self.to_img = nn.Sequential(
            Folded(config.width, config.out_channels * scale**2), nn.PixelShuffle(scale)
        )

    def forward(self, x: Tensor) -> Tensor:
        height, width = (side * self.config.scale for side in x.shape[-2:])
        padded = x
        for dim in (2, 3):
            padded = reflect(padded, dim, 0, -x.shape[dim] % (2 * self.config.unshuffle))
        result = self.to_img(self.body(self.to_feat(padded)))[:, :, :height, :width]
        return result + F.interpolate(x, scale_factor=self.config.scale)


class RTMoSRArch(Member):
    """Detects and loads RTMoSR, as it was trained and folded."""

    title = "RTMoSR"
    source = "traiNNer-redux"
    examples = (
        RTMoSRConfig(width=8, hidden=16, scale=2, unshuffle=2, alignment=4),
        RTMoSRConfig(width=8, hidden=12, scale=2, blocks=1, square=False, alignment=2),
        RTMoSRConfig(width=8, hidden=16, scale=4, blocks=1, gated=False, alignment=2),
        RTMoSRConfig(width=8, hidden=16, scale=1, blocks=1, unshuffle=4, alignment=8),
    )

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        return "body.0.norm.scale" in state_dict and any(
            f"body.0.conv.1.{name}.weight" in state_dict for name in (FOLDED_5X5, "conv5x5")
        )

    def prepare(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        prepared = dict(state_dict)
        for start in [k.removesuffix("alpha") for k in state_dict if k.endswith(".alpha")]:
            first, second = (
                (state_dict[f"{start}conv1.k{i}"], state_dict[f"{start}conv1.b{i}"]) for i in (0, 1)
            )
            kernels = [
                in_turn([first, second]),
                layer(state_dict, f"{start}conv2"),
                conv3xc(state_dict, f"{start}conv3."),
            ]
            alpha = state_dict[f"{start}alpha"]
            self._fold(
                prepared,
                start,
                FOLDED,
                beside([(a * w, a * b) for a, (w, b) in zip(alpha, kernels, strict=True)]),
            )
        for start in [k.removesuffix("alpha1") for k in state_dict if k.endswith(".alpha1")]:
            kernels = [layer(state_dict, f"{start}conv{side}x{side}") for side in (1, 3, 5)]
            one = torch.ones_like(kernels[0][0])
            kernels.insert(0, (one, torch.zeros_like(kernels[0][1])))
            alphas = [state_dict[f"{start}alpha{i}"].reshape(-1) for i in (1, 2, 3, 4)]
            scaled = [
                (a[:, None, None, None] * w, a * b)
                for a, (w, b) in zip(alphas, kernels, strict=True)
            ]
            self._fold(prepared, start, FOLDED_5X5, beside(scaled))
        return prepared

    @staticmethod
    def _fold(
        prepared: dict[str, Tensor], start: str, name: str, kernel: tuple[Tensor, Tensor]
    ) -> None:
        for key in [key for key in prepared if key.startswith(start)]:
            del prepared[key]
        prepared[f"{start}{name}.weight"], prepared[f"{start}{name}.bias"] = kernel

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> RTMoSRConfig:
        unshuffled = f"to_feat.1.{FOLDED}.weight" in state_dict
        first = state_dict[f"to_feat.{'1.' * unshuffled}{FOLDED}.weight"]
        rows, entering = len(state_dict[f"to_img.0.{FOLDED}.weight"]), first.shape[1]
        channels, unshuffle = 3, 1  # all that its trainer has
        if unshuffled:
            unshuffle = shuffle_factor(entering, channels, "RTMoSR: to_feat.1")
        square = f"body.0.fc2.{FOLDED}.weight" in state_dict
        return RTMoSRConfig(
            in_channels=channels,
            out_channels=channels,
            scale=shuffle_factor(rows, channels, "RTMoSR: to_img.0") // unshuffle,
            alignment=2 * unshuffle,
            blocks=len(indices(state_dict, "body.")),
            width=len(first),
            hidden=len(state_dict[f"body.0.fc1.{FOLDED}.weight"]) // 2,
            square=square,
            gated="body.0.conv.2.squeezing.0.weight" in state_dict,
            unshuffle=unshuffle,
        )

    def statistics(self, config: RTMoSRConfig) -> str:
        return "the means of the channels" if config.gated else ""

    def build(self, config: RTMoSRConfig) -> RTMoSR:
        return RTMoSR(config)


ARCHITECTURE = RTMoSRArch
