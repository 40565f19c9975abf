"""MoSRv2: gated convolutions after MambaOut, for super resolution.

Source: umzi (neosr) and traiNNer-redux, which define the names of the tensors; MambaOut: Yu and
Wang, CVPR 2025; its mixer is InceptionNeXt's (Yu et al., CVPR 2024). No paper of its own.

    image -> [pixel unshuffle] -> conv -> blocks -> three convolutions -> upsampler
          -> + bilinear enlargement of the image

A block, with hidden width h:

    gate, plain, mixed = split(conv3x3(norm(x)))         (h, h - C, C channels)
    x += gamma * mish(conv3x3(mish(gate) * [plain, inception(mixed)]))
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
from ..errors import ModelLoadError
from ..fdat.checkpoint import infer_upsampler
from ..fdat.upsampler import Upsampler
from .member import Member, MemberConfig, indices, whole_number

EPS = 1e-6
UNSHUFFLED_SCALE = 4
BAND = 11  # taps of the long convolutions


@dataclass(frozen=True, kw_only=True)
class MoSRv2Config(MemberConfig):
    """Hyperparameters.

    Attributes:
        blocks, width, hidden: number of blocks, features C, and the gate's width h.
        rms_norm: whether the blocks normalise by the mean square alone.
        upsampler: one of `arch.fdat.upsampler.UPSAMPLER_TYPES`; mid_width: its inner width.
        unshuffle: factor of the pixel unshuffle before the first convolution; 1: none.
    """

    blocks: int = 24
    width: int = 64
    hidden: int = 96
    rms_norm: bool = False
    upsampler: str = "pixelshuffledirect"
    mid_width: int = 32
    unshuffle: int = 1


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, EPS)
        return tokens.movedim(-1, 1)


class ChannelRMSNorm(nn.Module):
    """Division by the root of the mean square over the channels of (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width, 1, 1))
        self.offset = nn.Parameter(torch.zeros(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=1, keepdim=True) / math.sqrt(x.shape[1])
        return self.scale * (x / (size + EPS)) + self.offset


class Inception(nn.Module):
    """Depthwise 3x3, 1x11 and 11x1, each on an eighth of the channels; the others stay."""

    def __init__(self, width: int) -> None:
        super().__init__()
        part, reach = width // 8, BAND // 2
        self.dwconv_hw = nn.Conv2d(part, part, 3, padding=1, groups=part)
        self.dwconv_w = nn.Conv2d(part, part, (1, BAND), padding=(0, reach), groups=part)
        self.dwconv_h = nn.Conv2d(part, part, (BAND, 1), padding=(reach, 0), groups=part)
        self.parts = [width - 3 * part, part, part, part]

    def forward(self, x: Tensor) -> Tensor:
        same, square, wide, high = x.split(self.parts, 1)
        return torch.cat(
            [same, self.dwconv_hw(square), self.dwconv_w(wide), self.dwconv_h(high)], 1
        )


class GatedBlock(nn.Module):
    """(B, C, H, W) -> (B, C, H, W), as described at the top."""

    def __init__(self, config: MoSRv2Config) -> None:
        super().__init__()
        width, hidden = config.width, config.hidden
        self.norm = (ChannelRMSNorm if config.rms_norm else ChannelNorm)(width)
        self.fc1 = nn.Conv2d(width, 2 * hidden, 3, padding=1)
        self.conv = Inception(width)
        self.fc2 = nn.Conv2d(hidden, width, 3, padding=1)
        self.gamma = nn.Parameter(torch.ones(1, width, 1, 1))
        self.parts = [hidden, hidden - width, width]

    def forward(self, x: Tensor) -> Tensor:
        gate, plain, mixed = self.fc1(self.norm(x)).split(self.parts, 1)
        gated = F.mish(gate) * torch.cat([plain, self.conv(mixed)], 1)
        return F.mish(self.fc2(gated)) * self.gamma + x


class MoSRv2(nn.Module):
    """(B, C, H, W) in [0, 1] -> (B, C, H * scale, W * scale), unclamped; any H, W >= 1."""

    def __init__(self, config: MoSRv2Config) -> None:
        super().__init__()
        self.config = config
        width, unshuffle = config.width, config.unshuffle
        first = [nn.Conv2d(config.in_channels * unshuffle**2, width, 3, padding=1)]
        self.gblocks = nn.Sequential(
            *([nn.PixelUnshuffle(unshuffle), *first] if unshuffle > 1 else first),
            *(GatedBlock(config) for _ in range(config.blocks)),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.Mish(),
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.Mish(),
            nn.Conv2d(width, width, 1),
        )
        self.to_img = Upsampler(
            config.upsampler,
            config.scale * unshuffle,
            width,
            config.out_channels,
            config.mid_width,
        )

    def forward(self, x: Tensor) -> Tensor:
        height, width = (side * self.config.scale for side in x.shape[-2:])
        for dim in (2, 3):
            x = reflect(x, dim, 0, -x.shape[dim] % self.config.unshuffle)
        enlarged = F.interpolate(x, scale_factor=self.config.scale, mode="bilinear")
        return (self.to_img(self.gblocks(x)) + enlarged)[:, :, :height, :width]


class MoSRv2Arch(Member):
    """Detects and loads MoSRv2; its option ``scale`` is for upsamplers that don't tell theirs."""

    title = "MoSRv2"
    source = "traiNNer-redux, neosr"
    options = ("scale",)
    examples = (
        MoSRv2Config(blocks=2, width=16, hidden=24, scale=4),
        MoSRv2Config(blocks=1, width=16, hidden=20, scale=2, unshuffle=2, alignment=2),
        MoSRv2Config(
            blocks=1, width=16, hidden=24, scale=1, unshuffle=4, alignment=4, rms_norm=True,
            upsampler="pixelshuffle", mid_width=8, in_channels=1, out_channels=1,
        ),
        MoSRv2Config(blocks=1, width=16, hidden=24, scale=3, upsampler="dysample", mid_width=8),
    )  # fmt: skip

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        blocks = [f"gblocks.{i}." for i in (1, 2)]
        return any(
            f"{block}gamma" in state_dict and f"{block}conv.dwconv_hw.weight" in state_dict
            for block in blocks
        ) and any(key.startswith("to_img.") for key in state_dict)

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> MoSRv2Config:
        scale = whole_number("scale", options.get("scale"))
        unshuffled = "gblocks.0.weight" not in state_dict
        width, entering = state_dict[f"gblocks.{int(unshuffled)}.weight"].shape[:2]
        blocks = [i for i in indices(state_dict, "gblocks.") if f"gblocks.{i}.gamma" in state_dict]
        block = f"gblocks.{blocks[0]}."
        upsampler = infer_upsampler(
            {
                k.removeprefix("to_img."): v
                for k, v in state_dict.items()
                if k.startswith("to_img.")
            },
            width,
            None if unshuffled else entering,
            UNSHUFFLED_SCALE if unshuffled else scale,
            of="MoSRv2",
        )
        channels, unshuffle = int(upsampler["num_out_ch"]), 1
        if unshuffled:
            unshuffle = math.isqrt(entering // channels)
            if unshuffle not in (2, 4) or channels * unshuffle**2 != entering:
                raise ModelLoadError(
                    f"MoSRv2: gblocks.1 takes {entering} channels; an unshuffle by 2 or 4 was expected"
                )
        found = int(upsampler["scale"]) // unshuffle
        if scale not in (None, found):
            raise ModelLoadError(
                f"MoSRv2: scale={scale} contradicts the tensors, which say {found}"
            )
        return MoSRv2Config(
            in_channels=channels,
            out_channels=channels,
            scale=found,
            alignment=unshuffle,
            blocks=len(blocks),
            width=width,
            hidden=state_dict[f"{block}fc2.weight"].shape[1],
            rms_norm=f"{block}norm.scale" in state_dict,
            upsampler=str(upsampler["upsampler_type"]),
            mid_width=int(upsampler["mid_dim"]),
            unshuffle=unshuffle,
        )

    def build(self, config: MoSRv2Config) -> MoSRv2:
        return MoSRv2(config)


ARCHITECTURE = MoSRv2Arch
