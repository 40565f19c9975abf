"""CFSR: convolutions of large kernels in place of attention.

Source: Wu et al., "Transforming Image Super-Resolution: A ConvFormer-Based Efficient Approach",
IEEE TIP 2024, whose repository defines the names of the tensors; also in neosr. Published, x4 on
Set5 (luma): 32.33 dB.

    image - mean -> conv -> layers -> norm -> conv, + skip -> conv, pixel shuffle -> + mean

A block, with norms over the channels and learned factors s1, s2 per channel:

    x += s1 * proj(depthwise9x9(gelu(a(n1 x))) * v(n1 x))
    x += s2 * fc2(y + gelu(depthwise3x3(y))),  y = gelu(fc1(n2 x))

In training the 3x3 is a sum with Sobel and Laplace filters, which are folded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ModelLoadError
from .member import Member, MemberConfig, indices, one_of, shuffle_factor

EPS = 1e-6
RGB_MEAN = (0.4488, 0.4371, 0.4040)
MEANS = ("rgb", "none")
EDGES = ("sobel_x", "sobel_y", "laplacian")


@dataclass(frozen=True, kw_only=True)
class CFSRConfig(MemberConfig):
    """Hyperparameters.

    Attributes:
        width, hidden: features C, and those of the feed-forward part.
        depths: blocks of every layer.
        kernel: side of the large kernel.
        mean: what is taken off the colours before and added after: "rgb", or "none".
        adds: the picture is added to the result, whose scale is 1.
    """

    width: int = 48
    hidden: int = 96
    depths: tuple[int, ...] = (6, 6)
    kernel: int = 9
    mean: str = "rgb"
    adds: bool = False


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, EPS)
        return tokens.movedim(-1, 1)


class LargeKernel(nn.Module):
    """A depthwise convolution by the name that checkpoints give it."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.lkb_reparam = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        return self.lkb_reparam(x)


class Modulation(nn.Module):
    """The part with the large kernel; (B, C, H, W)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.a = nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU(), LargeKernel(width, kernel))
        self.v = nn.Conv2d(width, width, 1)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.proj(self.a(x) * self.v(x))


class FeedForward(nn.Module):
    """The part between two 1x1 convolutions; (B, C, H, W)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.fc1 = nn.Conv2d(width, hidden, 1)
        self.pos = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.fc1(self.norm(x)))
        return self.fc2(x + F.gelu(self.pos(x)))


class ConvFormerBlock(nn.Module):
    """(B, C, H, W) -> (B, C, H, W), as described at the top."""

    def __init__(self, config: CFSRConfig) -> None:
        super().__init__()
        self.attn = Modulation(config.width, config.kernel)
        self.mlp = FeedForward(config.width, config.hidden)
        self.layer_scale_1 = nn.Parameter(torch.ones(config.width))
        self.layer_scale_2 = nn.Parameter(torch.ones(config.width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale_1[:, None, None] * self.attn(x)
        return x + self.layer_scale_2[:, None, None] * self.mlp(x)


class BlockLayer(nn.Module):
    """Blocks, a 1x1 convolution, and a skip around that; (B, C, H, W)."""

    def __init__(self, config: CFSRConfig, depth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ConvFormerBlock(config) for _ in range(depth)))
        self.conv = nn.Conv2d(config.width, config.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x)
        return self.conv(x) + x


class CFSR(nn.Module):
    """(B, C, H, W) in [0, 1] -> (B, C, H * scale, W * scale), unclamped; any H, W >= 1."""

    mean: Tensor

    def __init__(self, config: CFSRConfig) -> None:
        super().__init__()
        width, channels, scale = config.width, config.in_channels, config.scale
        shifted = config.mean == "rgb" and channels == 3
        mean = torch.tensor(RGB_MEAN if shifted else [0.0] * channels)[:, None, None]
        self.register_buffer("mean", mean, persistent=False)
        self.conv_first = nn.Conv2d(channels, width, 3, padding=1)
        self.layers = nn.Sequential(*(BlockLayer(config, depth) for depth in config.depths))
        self.norm = ChannelNorm(width)
        self.conv_after_body = nn.Conv2d(width, width, 3, padding=1)
        self.adds = config.adds
        last = nn.Conv2d(width, channels * scale**2, 3, padding=1)
        if self.adds:
            self.conv_last = last
        else:
            self.upsample = nn.Sequential(last, nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.mean
        shallow = self.conv_first(x)
        deep = self.conv_after_body(self.norm(self.layers(shallow))) + shallow
        return (x + self.conv_last(deep) if self.adds else self.upsample(deep)) + self.mean


class CFSRArch(Member):
    """Detects and loads CFSR, as it was trained and folded.

    The option ``mean``: "rgb" as its authors train, "none" as neosr does by default.
    """

    title = "CFSR"
    source = "its authors, neosr"
    options = ("mean",)
    examples = (
        CFSRConfig(width=16, hidden=32, depths=(2, 1), scale=4),
        CFSRConfig(width=16, hidden=48, depths=(1,), scale=1, kernel=7, adds=True),
        CFSRConfig(width=16, hidden=32, depths=(1,), scale=1),
        CFSRConfig(width=16, hidden=32, depths=(1,), scale=3, in_channels=1, out_channels=1),
    )

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        names = ("attn.a.2.lkb_reparam.weight", "mlp.pos.weight", "layer_scale_1")
        return all(f"layers.0.blocks.0.{name}" in state_dict for name in names)

    def prepare(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        prepared = dict(state_dict)
        for key in [key for key in state_dict if key.endswith("mlp.scale_sobel_x")]:
            start = key.removesuffix("scale_sobel_x")
            for edge in EDGES:
                scale = prepared.pop(f"{start}scale_{edge}")
                prepared[f"{start}pos.weight"] = prepared[
                    f"{start}pos.weight"
                ] + scale * prepared.pop(f"{start}mask_{edge}")
                bias = prepared.pop(f"{start}{edge}_bias")
                prepared[f"{start}pos.bias"] = prepared[f"{start}pos.bias"] + bias
        return prepared

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> CFSRConfig:
        width, channels = state_dict["conv_first.weight"].shape[:2]
        adds = "conv_last.weight" in state_dict
        last = "conv_last" if adds else "upsample.0"
        factor = shuffle_factor(len(state_dict[f"{last}.weight"]), channels, f"CFSR: {last}")
        if adds and factor > 1:
            raise ModelLoadError(f"CFSR: conv_last makes x{factor}; x1 was expected")
        block = "layers.0.blocks.0."
        return CFSRConfig(
            in_channels=channels,
            out_channels=channels,
            scale=factor,
            width=width,
            hidden=len(state_dict[f"{block}mlp.fc1.weight"]),
            depths=tuple(
                len(indices(state_dict, f"layers.{i}.blocks."))
                for i in indices(state_dict, "layers.")
            ),
            kernel=state_dict[f"{block}attn.a.2.lkb_reparam.weight"].shape[-1],
            mean=one_of("mean", options.get("mean"), MEANS),
            adds=adds,
        )

    def assumed(self, config: CFSRConfig, options: Mapping[str, Any]) -> list[str]:
        told = "mean" in options or config.in_channels != 3
        return [] if told else ["assumed mean=rgb (as its authors; neosr's default is none)"]

    def build(self, config: CFSRConfig) -> CFSR:
        return CFSR(config)


ARCHITECTURE = CFSRArch
