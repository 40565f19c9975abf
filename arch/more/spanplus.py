"""SPANPlus: SPAN with several groups of blocks and upsampling by DySample.

Source: umzi (SPANPlus, neosr) and traiNNer-redux, which define the names of the tensors; SPAN: Wan
et al., "Swift Parameter-free Attention Network for Efficient Super-Resolution", CVPR Workshops
2024.

    image -> conv -> groups -> DySample, or conv and pixel shuffle

In training each 3x3 convolution is three in turn beside a 1x1; here they are folded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..fdat.upsampler import DYSAMPLE_GROUPS, DySample
from .folding import FOLDED, Folded, with_conv3xc_folded
from .member import Member, MemberConfig, indices, shuffle_factor


@dataclass(frozen=True, kw_only=True)
class SPANPlusConfig(MemberConfig):
    """Hyperparameters.

    Attributes:
        groups: blocks in the middle of every group.
        width: features C.
        upsampler: "dys" (DySample), "ps" (convolution and pixel shuffle) or "conv" (x1).
    """

    groups: tuple[int, ...] = (4,)
    width: int = 48
    upsampler: str = "dys"


class AttentionBlock(nn.Module):
    """Three convolutions, whose result weighs itself and the input; (B, C, H, W).

    The result, and that of the first convolution.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c1_r = Folded(width, width)
        self.c2_r = Folded(width, width)
        self.c3_r = Folded(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.c1_r(x)
        # the activation overwrites its input where it was trained, so this is what is passed on
        activated = F.mish(first)
        third = self.c3_r(F.mish(self.c2_r(activated)))
        return (third + x) * (third.sigmoid() - 0.5), activated


class Group(nn.Module):
    """Blocks, whose ends and beginnings are joined by a 1x1 convolution; (B, C, H, W)."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.block_1 = AttentionBlock(width)
        self.block_n = nn.ModuleList(AttentionBlock(width) for _ in range(blocks))
        self.block_end = AttentionBlock(width)
        self.conv_2 = Folded(width, width)
        self.conv_cat = nn.Conv2d(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        begin, _ = self.block_1(x)
        middle = begin
        for block in self.block_n:
            middle, _ = block(middle)
        end, inner = self.block_end(middle)
        return self.conv_cat(torch.cat([x, self.conv_2(end), begin, inner], 1))


class SPANPlus(nn.Module):
    """(B, in, H, W) in [0, 1] -> (B, out, H * scale, W * scale), unclamped; any H, W >= 1."""

    def __init__(self, config: SPANPlusConfig) -> None:
        super().__init__()
        width, scale = config.width, config.scale
        self.feats = nn.Sequential(
            Folded(config.in_channels, width), *(Group(width, blocks) for blocks in config.groups)
        )
        last = nn.Conv2d(width, config.out_channels * scale**2, 3, padding=1)
        self.upsampler = {
            "dys": lambda: DySample(width, config.out_channels, scale),
            "ps": lambda: nn.Sequential(last, nn.PixelShuffle(scale)),
            "conv": lambda: last,
        }[config.upsampler]()

    def forward(self, x: Tensor) -> Tensor:
        return self.upsampler(self.feats(x))


class SPANPlusArch(Member):
    """Detects and loads SPANPlus, as it was trained and folded."""

    title = "SPANPlus"
    source = "traiNNer-redux, neosr"
    examples = (
        SPANPlusConfig(groups=(2, 1), width=8, scale=4),
        SPANPlusConfig(groups=(1,), width=8, scale=2, upsampler="ps"),
        SPANPlusConfig(groups=(1,), width=8, scale=1, upsampler="conv"),
        SPANPlusConfig(groups=(1,), width=8, scale=3, in_channels=1, out_channels=3),
    )

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        first = any(f"feats.0.{name}.weight" in state_dict for name in ("eval_conv", "sk"))
        return first and "feats.1.conv_cat.weight" in state_dict

    def prepare(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return with_conv3xc_folded(state_dict)

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> SPANPlusConfig:
        width, entering = state_dict[f"feats.0.{FOLDED}weight"].shape[:2]
        groups = indices(state_dict, "feats.")[1:]
        if "upsampler.offset.weight" in state_dict:
            kind, leaving = "dys", len(state_dict["upsampler.end_conv.weight"])
            rows = len(state_dict["upsampler.offset.weight"])
            scale = math.isqrt(rows // (2 * DYSAMPLE_GROUPS))
        elif "upsampler.0.weight" in state_dict:
            kind, leaving = "ps", entering  # the trainer has no other
            scale = shuffle_factor(len(state_dict["upsampler.0.weight"]), leaving, "upsampler.0")
        else:
            kind, leaving, scale = "conv", len(state_dict["upsampler.weight"]), 1
        return SPANPlusConfig(
            in_channels=entering,
            out_channels=leaving,
            scale=scale,
            groups=tuple(len(indices(state_dict, f"feats.{i}.block_n.")) for i in groups),
            width=width,
            upsampler=kind,
        )

    def build(self, config: SPANPlusConfig) -> SPANPlus:
        return SPANPlus(config)


ARCHITECTURE = SPANPlusArch
