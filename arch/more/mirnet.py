"""MIRNet: streams at three resolutions that exchange features, for denoising and enhancement.

Source: Zamir et al., "Learning Enriched Features for Real Image Restoration and Enhancement", ECCV
2020, whose repository defines the names of the tensors.

    image -> conv -> groups of multi-scale blocks -> conv -> + image

A multi-scale block runs attention units on every stream, mixes each stream with all others, resized
to its size, and so on; the mixing weighs the streams by their means over the picture, and so do the
attention units: tiles change the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.reflection import reflect
from .member import Member, MemberConfig, indices

REDUCTION = 8


@dataclass(frozen=True, kw_only=True)
class MIRNetConfig(MemberConfig):
    """Hyperparameters.

    Attributes:
        width: features of the first stream; every stream has twice those of the one before it.
        groups, blocks: groups, and multi-scale blocks in each.
        streams: number of resolutions, each half of the one before it.
        columns: attention units of every stream in a block.
    """

    scale: int = 1
    width: int = 64
    groups: int = 3
    blocks: int = 2
    streams: int = 3
    columns: int = 2


def conv(entering: int, leaving: int, kernel: int) -> nn.Conv2d:
    """A convolution that keeps the size, without bias."""
    return nn.Conv2d(entering, leaving, kernel, padding=kernel // 2, bias=False)


class Fusion(nn.Module):
    """The sum of streams of one size, weighed per channel by the mean of their sum."""

    def __init__(self, width: int, streams: int) -> None:
        super().__init__()
        narrow = max(width // REDUCTION, 4)
        self.conv_du = nn.Sequential(conv(width, narrow, 1), nn.PReLU())
        self.fcs = nn.ModuleList(conv(narrow, width, 1) for _ in range(streams))

    def forward(self, streams: list[Tensor]) -> Tensor:
        stacked = torch.stack(streams, 1)  # (B, streams, C, H, W)
        code = self.conv_du(stacked.sum(1).mean((2, 3), keepdim=True))
        weights = torch.stack([fc(code) for fc in self.fcs], 1).softmax(1)
        return (stacked * weights).sum(1)


class SpatialAttention(nn.Module):
    """Weighs pixels by the largest and the mean of their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.ModuleDict({"conv": conv(2, 1, 5)})

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * self.spatial["conv"](pooled).sigmoid()


class ChannelWeights(nn.Module):
    """Weighs channels by their means over the picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_du = nn.Sequential(
            conv(width, width // REDUCTION, 1),
            nn.ReLU(),
            conv(width // REDUCTION, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_du(x.mean((2, 3), keepdim=True))


class DualAttention(nn.Module):
    """Both kinds of attention on two convolutions, and a skip; (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(width, width, 3), nn.PReLU(), conv(width, width, 3))
        self.SA = SpatialAttention()
        self.CA = ChannelWeights(width)
        self.conv1x1 = conv(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        deep = self.body(x)
        return self.conv1x1(torch.cat([self.SA(deep), self.CA(deep)], 1)) + x


class Blur(nn.Module):
    """A fixed 3x3 filter on every channel, at every second pixel; borders are reflected."""

    filt: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0])
        kernel = taps[:, None] * taps / 16
        self.register_buffer("filt", kernel.expand(width, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        for dim in (2, 3):
            x = reflect(x, dim, 1, 1)
        return F.conv2d(x, self.filt, stride=2, groups=len(self.filt))


class Halving(nn.Module):
    """(B, C, H, W) -> (B, 2C, H / 2, W / 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.top = nn.Sequential(
            conv(width, width, 1),
            nn.PReLU(),
            conv(width, width, 3),
            nn.PReLU(),
            Blur(width),
            conv(width, 2 * width, 1),
        )
        self.bot = nn.Sequential(Blur(width), conv(width, 2 * width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.top(x) + self.bot(x)


class Doubling(nn.Module):
    """(B, C, H, W) -> (B, C / 2, 2H, 2W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.top = nn.Sequential(
            conv(width, width, 1),
            nn.PReLU(),
            nn.ConvTranspose2d(width, width, 3, 2, padding=1, output_padding=1, bias=False),
            nn.PReLU(),
            conv(width, width // 2, 1),
        )
        self.bot = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"), conv(width, width // 2, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.top(x) + self.bot(x)


class Steps(nn.Module):
    """Halvings or doublings one after the other."""

    def __init__(self, kind: type[Halving | Doubling], width: int, steps: int) -> None:
        super().__init__()
        growth = 2.0 if kind is Halving else 0.5
        self.body = nn.Sequential(*(kind(int(width * growth**i)) for i in range(steps)))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class MultiScaleBlock(nn.Module):
    """(B, C, H, W) -> (B, C, H, W), as described at the top."""

    def __init__(self, config: MIRNetConfig) -> None:
        super().__init__()
        streams = config.streams
        widths = [config.width * 2**i for i in range(streams)]
        self.blocks = nn.ModuleList(
            nn.ModuleList(DualAttention(width) for _ in range(config.columns)) for width in widths
        )
        # from stream i by so many steps; named by its width and the factor
        self.down = nn.ModuleDict(
            {
                f"{widths[i]}_{2**steps}": Steps(Halving, widths[i], steps)
                for i in range(streams)
                for steps in range(1, streams - i)
            }
        )
        self.up = nn.ModuleDict(
            {
                f"{widths[i]}_{2**steps}": Steps(Doubling, widths[i], steps)
                for i in range(streams)
                for steps in range(1, i + 1)
            }
        )
        self.last_up = nn.ModuleDict(
            {str(i): Steps(Doubling, widths[i], i) for i in range(1, streams)}
        )
        self.conv_out = conv(config.width, config.width, 3)
        self.selective_kernel = nn.ModuleList(Fusion(width, streams) for width in widths)

    def resized(self, x: Tensor, source: int, target: int) -> Tensor:
        """A stream at the size of another one."""
        if source == target:
            return x
        name = f"{x.shape[1]}_{2 ** abs(source - target)}"
        return (self.up if source > target else self.down)[name](x)

    def forward(self, x: Tensor) -> Tensor:
        streams: list[Tensor] = []
        units = [list(row.children()) for row in self.blocks]  # by stream and column
        for i, row in enumerate(units):
            entering = self.resized(streams[-1], i - 1, i) if streams else x
            streams.append(row[0](entering))
        for column in range(1, len(units[0])):
            mixed = [
                fusion([self.resized(stream, k, j) for k, stream in enumerate(streams)])
                for j, fusion in enumerate(self.selective_kernel)
            ]
            streams = [row[column](stream) for row, stream in zip(units, mixed, strict=True)]
        first, *others = streams
        ends = [first, *(self.last_up[str(i)](x) for i, x in enumerate(others, 1))]
        return self.conv_out(self.selective_kernel[0](ends)) + x


class BlockGroup(nn.Module):
    """Multi-scale blocks, a convolution, and a skip; (B, C, H, W)."""

    def __init__(self, config: MIRNetConfig) -> None:
        super().__init__()
        blocks = (MultiScaleBlock(config) for _ in range(config.blocks))
        last = nn.Conv2d(config.width, config.width, 3, padding=1, bias=False)
        self.body = nn.Sequential(*blocks, last)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x


class MIRNet(nn.Module):
    """(B, C, H, W) in [0, 1] -> (B, C, H, W), unclamped; any H, W >= 1."""

    def __init__(self, config: MIRNetConfig) -> None:
        super().__init__()
        self.multiple = 2 ** (config.streams - 1)
        self.conv_in = conv(config.in_channels, config.width, 3)
        self.body = nn.Sequential(*(BlockGroup(config) for _ in range(config.groups)))
        self.conv_out = conv(config.width, config.out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        for dim in (2, 3):
            x = reflect(x, dim, 0, -x.shape[dim] % self.multiple)
        return (self.conv_out(self.body(self.conv_in(x))) + x)[:, :, :height, :width]


class MIRNetArch(Member):
    """Detects and loads MIRNet."""

    title = "MIRNet"
    source = "its authors"
    examples = (
        MIRNetConfig(width=8, groups=1, blocks=1, alignment=4),
        MIRNetConfig(width=8, groups=1, blocks=1, streams=2, columns=3, alignment=2),
    )

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        names = ("blocks.0.0.SA.spatial.conv.weight", "selective_kernel.0.fcs.0.weight")
        return all(f"body.0.body.0.{name}" in state_dict for name in names)

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> MIRNetConfig:
        width, channels = state_dict["conv_in.weight"].shape[:2]
        block = "body.0.body.0.blocks."
        streams = len(indices(state_dict, block))
        return MIRNetConfig(
            in_channels=channels,
            out_channels=len(state_dict["conv_out.weight"]),
            alignment=2 ** (streams - 1),
            width=width,
            groups=len(indices(state_dict, "body.")),
            blocks=len(indices(state_dict, "body.0.body.")) - 1,
            streams=streams,
            columns=len(indices(state_dict, f"{block}0.")),
        )

    def statistics(self, config: MIRNetConfig) -> str:
        return "the means of the channels"

    def build(self, config: MIRNetConfig) -> MIRNet:
        return MIRNet(config)


ARCHITECTURE = MIRNetArch
