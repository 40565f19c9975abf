"""DLGSANet: depthwise convolutions whose kernels depend on the picture, and sparse attention.

Source: Li et al., "DLGSANet: Lightweight Dynamic Local and Global Self-Attention Networks for Image
Super-Resolution", ICCV 2023, whose repository defines the names of the tensors. Its dynamic
convolution is a CUDA kernel there, and plain torch here.

    image - mean -> conv -> groups -> conv, + skip -> conv, pixel shuffle -> + mean

A group has blocks of two kinds in turn, each followed by a gated feed-forward part, a convolution
and a skip:

    local:  every pixel has 7x7 weights of its own for each group of channels
    global: attention between channels, relu(q k^T * temperature) v, within windows of 96, 72, 48
            pixels (x2, x3, x4) whose overlaps are averaged, as its authors evaluate it (TLC)

The windows divide the whole picture evenly, so tiles change the result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .member import Member, MemberConfig, indices, shuffle_factor, whole_number

RGB_MEAN = (0.4488, 0.4371, 0.4040)
WINDOWS = {2: 96, 3: 72, 4: 48}


@dataclass(frozen=True, kw_only=True)
class DLGSANetConfig(MemberConfig):
    """Hyperparameters.

    Attributes:
        width: features C.
        groups, blocks: groups, and pairs of blocks in each.
        kernel: side of the dynamic kernels.
        kernels: groups of channels that share a dynamic kernel.
        heads: attention heads.
        hidden: width of the feed-forward parts, half of what enters the gate.
        window: side of the windows of attention, in pixels.
    """

    width: int = 48
    groups: int = 4
    blocks: int = 3
    kernel: int = 7
    kernels: int = 8
    heads: int = 6
    hidden: int = 96
    window: int = 48


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (B, C, H, W), by the names that checkpoints have."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.movedim(1, -1)).movedim(-1, 1)


def pointwise(entering: int, leaving: int, bias: bool = False) -> nn.Conv2d:
    """1x1 convolution."""
    return nn.Conv2d(entering, leaving, 1, bias=bias)


class DynamicConvolution(nn.Module):
    """Every pixel is the sum of its neighbours, weighed by what two small convolutions say."""

    def __init__(self, config: DLGSANetConfig) -> None:
        super().__init__()
        narrow, self.side, self.kernels = config.width // 4, config.kernel, config.kernels
        self.conv1 = nn.Sequential(
            pointwise(config.width, narrow, bias=True),
            nn.Conv2d(narrow, narrow, self.side, padding=self.side // 2, groups=narrow),
        )
        rows = self.side**2 * self.kernels
        self.conv2 = nn.Sequential(pointwise(narrow, rows, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        weights = self.conv2(self.conv1(x)).unflatten(1, (self.kernels, self.side**2))
        padded = F.pad(x, [self.side // 2] * 4).unflatten(1, (self.kernels, -1))
        result = torch.zeros_like(x).unflatten(1, (self.kernels, -1))
        for tap in range(self.side**2):
            top, left = divmod(tap, self.side)
            shifted = padded[..., top : top + height, left : left + width]
            result = result.addcmul_(shifted, weights[:, :, tap, None])
        return result.flatten(1, 2)


class LocalMixer(nn.Module):
    """The dynamic convolution between two 1x1 convolutions; (B, C, H, W)."""

    def __init__(self, config: DLGSANetConfig) -> None:
        super().__init__()
        self.conv0 = pointwise(config.width, config.width)
        self.conv = DynamicConvolution(config)
        self.conv1 = pointwise(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(self.conv(self.conv0(x)))


class GatedFeedForward(nn.Module):
    """Restormer's: a depthwise 3x3, half of which gates the other half; (B, C, H, W)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.project_in = pointwise(width, 2 * hidden)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = pointwise(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, passed = self.dwconv(self.project_in(x)).chunk(2, 1)
        return self.project_out(F.gelu(gate) * passed)


def window_starts(length: int, side: int) -> list[int]:
    """Where as few windows as cover an axis start, at even distances."""
    count = math.ceil(length / side)
    if count == 1:
        return [0]
    step = math.ceil((length - side) / (count - 1) - 1e-8)
    starts = list(range(0, length - side, step))
    return [*starts, length - side]


class SparseAttention(nn.Module):
    """Attention between channels within windows; (B, C, H, W)."""

    def __init__(self, config: DLGSANetConfig) -> None:
        super().__init__()
        width, self.window, self.heads = config.width, config.window, config.heads
        self.temperature = nn.Parameter(torch.ones(self.heads, 1, 1))
        self.qkv = pointwise(width, 3 * width)
        self.qkv_dwconv = nn.Conv2d(
            3 * width, 3 * width, 3, padding=1, groups=3 * width, bias=False
        )
        self.project_out = pointwise(width, width)

    def mixed(self, qkv: Tensor) -> Tensor:
        """One window: (B, 3C, h, w) -> (B, C, h, w)."""
        q, k, v = qkv.flatten(2).unflatten(1, (3, self.heads, -1)).unbind(1)  # (B, heads, c, N)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.temperature).relu()
        return (attention @ v).flatten(1, 2).unflatten(-1, qkv.shape[-2:])

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv_dwconv(self.qkv(x))
        height, width = (min(side, self.window) for side in x.shape[-2:])
        total, count = torch.zeros_like(x), torch.zeros_like(x[:1, :1])
        for top in window_starts(x.shape[-2], height):
            for left in window_starts(x.shape[-1], width):
                place = (..., slice(top, top + height), slice(left, left + width))
                total[place] += self.mixed(qkv[place])
                count[place] += 1
        return self.project_out(total / count)


class LocalBlock(nn.Module):
    """The dynamic convolution and a feed-forward part; (B, C, H, W)."""

    def __init__(self, config: DLGSANetConfig) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(config.width)
        self.IDynamicDWConv = LocalMixer(config)
        self.norm2 = ChannelNorm(config.width)
        self.IDynamic_ffn = GatedFeedForward(config.width, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = self.IDynamicDWConv(self.norm1(x)) + x
        return self.IDynamic_ffn(self.norm2(x)) + x


class GlobalBlock(nn.Module):
    """Attention and a feed-forward part; (B, C, H, W)."""

    def __init__(self, config: DLGSANetConfig) -> None:
        super().__init__()
        self.norm3 = ChannelNorm(config.width)
        self.restormer_attn = SparseAttention(config)
        self.norm4 = ChannelNorm(config.width)
        self.restormer_ffn = GatedFeedForward(config.width, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = self.restormer_attn(self.norm3(x)) + x
        return self.restormer_ffn(self.norm4(x)) + x


class BlockGroup(nn.Module):
    """Pairs of blocks, a convolution, and a skip; (B, C, H, W)."""

    def __init__(self, config: DLGSANetConfig) -> None:
        super().__init__()
        pairs = [kind(config) for _ in range(config.blocks) for kind in (LocalBlock, GlobalBlock)]
        self.body = nn.Sequential(*pairs, nn.Conv2d(config.width, config.width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x


class DLGSANet(nn.Module):
    """(B, C, H, W) in [0, 1] -> (B, C, H * scale, W * scale), unclamped; any H, W >= 1."""

    mean: Tensor

    def __init__(self, config: DLGSANetConfig) -> None:
        super().__init__()
        width, channels = config.width, config.in_channels
        mean = torch.tensor(RGB_MEAN if channels == 3 else [0.0] * channels)[:, None, None]
        self.register_buffer("mean", mean, persistent=False)
        embed = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.overlap_embed = nn.Sequential(nn.ModuleDict({"proj": embed}))
        self.deep_feature_extraction = nn.Sequential(
            *(BlockGroup(config) for _ in range(config.groups)),
            nn.Conv2d(width, width, 3, padding=1),
        )
        last = nn.Conv2d(width, channels * config.scale**2, 3, padding=1)
        self.upsample = nn.Sequential(last, nn.PixelShuffle(config.scale))

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.overlap_embed.get_submodule("0.proj")(x - self.mean)
        return self.upsample(self.deep_feature_extraction(shallow) + shallow) + self.mean


class DLGSANetArch(Member):
    """Detects and loads DLGSANet as published; its option ``window`` is the side of the windows of
    attention, which tensors don't tell."""

    title = "DLGSANet"
    source = "its authors"
    options = ("window",)
    examples = (
        DLGSANetConfig(width=12, groups=1, blocks=1, kernels=2, heads=2, hidden=24, scale=4),
        DLGSANetConfig(
            width=12, groups=1, blocks=1, kernels=2, heads=2, hidden=24, scale=2, window=96,
            in_channels=1, out_channels=1, kernel=5,
        ),
    )  # fmt: skip

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        start = "deep_feature_extraction.0.body."
        names = ("0.IDynamicDWConv.conv.conv2.0.weight", "1.restormer_attn.temperature")
        return all(start + name in state_dict for name in names)

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> DLGSANetConfig:
        width, channels = state_dict["overlap_embed.0.proj.weight"].shape[:2]
        rows = len(state_dict["upsample.0.weight"])
        scale = shuffle_factor(rows, channels, "DLGSANet: upsample.0")
        body = "deep_feature_extraction.0.body."
        dynamic = f"{body}0.IDynamicDWConv.conv."
        kernel = state_dict[f"{dynamic}conv1.1.weight"].shape[-1]
        window = whole_number("window", options.get("window")) or WINDOWS.get(scale, WINDOWS[4])
        return DLGSANetConfig(
            in_channels=channels,
            out_channels=channels,
            scale=scale,
            width=width,
            groups=len(indices(state_dict, "deep_feature_extraction.")) - 1,
            blocks=len(indices(state_dict, body)) // 2,
            kernel=kernel,
            kernels=len(state_dict[f"{dynamic}conv2.0.weight"]) // kernel**2,
            heads=len(state_dict[f"{body}1.restormer_attn.temperature"]),
            hidden=state_dict[f"{body}0.IDynamic_ffn.project_out.weight"].shape[1],
            window=window,
        )

    def statistics(self, config: DLGSANetConfig) -> str:
        return "windows of attention are laid"

    def assumed(self, config: DLGSANetConfig, options: Mapping[str, Any]) -> list[str]:
        window = [] if "window" in options else [f"assumed window={config.window}"]
        return [*window, "assumed sparse attention (ReLU), as published"]

    def build(self, config: DLGSANetConfig) -> DLGSANet:
        return DLGSANet(config)


ARCHITECTURE = DLGSANetArch
