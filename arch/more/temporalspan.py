"""TemporalSPAN: SPAN with a normalisation in its blocks, on several frames that are joined early.

Source: traiNNer-redux, which defines the names of the tensors; SPAN: Wan et al., "Swift
Parameter-free Attention Network for Efficient Super-Resolution", CVPR Workshops 2024.

    middle frame -> conv (C), every other frame -> a conv of its own, narrower
      -> side by side -> two convs -> six blocks, some of which are joined -> conv, pixel shuffle

In training each 3x3 convolution is three in turn beside a 1x1; here they are folded. GroupNorm
takes means and deviations over the whole picture, so tiles change the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contract import Recall
from .clip import ClipNetwork
from .folding import FOLDED, Folded, with_conv3xc_folded
from .member import Member, MemberConfig, indices, shuffle_factor

BLOCKS = 6
NORM_GROUPS = 8


@dataclass(frozen=True, kw_only=True)
class TemporalSPANConfig(MemberConfig):
    """Hyperparameters.

    Attributes:
        frames: that the network takes.
        width: features C of the middle frame, and of everything that follows.
        history: features of each other frame.
    """

    frames: int = 5
    width: int = 48
    history: int = 12


class NormedBlock(nn.Module):
    """Three normalised convolutions, whose result weighs itself and the input; (B, C, H, W).

    The result, and that of the first convolution.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c1_r, self.c2_r, self.c3_r = (Folded(width, width) for _ in range(3))
        self.norm1, self.norm2, self.norm3 = (nn.GroupNorm(NORM_GROUPS, width) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # the activation overwrites its input where it was trained, so this is what is passed on
        first = F.silu(self.norm1(self.c1_r(x)))
        third = self.norm3(self.c3_r(F.silu(self.norm2(self.c2_r(first)))))
        return (third + x) * (third.sigmoid() - 0.5), first


class TemporalSPAN(ClipNetwork):
    """Several frames (see `ClipNetwork`) -> the middle one, enlarged; any H, W >= 1."""

    def __init__(self, config: TemporalSPANConfig) -> None:
        super().__init__(config.frames, config.in_channels)
        width, entering = config.width, config.in_channels
        others = config.frames - 1
        self.center_conv = Folded(entering, width)
        self.history_convs = nn.ModuleList(Folded(entering, config.history) for _ in range(others))
        self.fusion_conv = nn.Sequential(
            Folded(width + config.history * others, width), Folded(width, width)
        )
        for number in range(1, BLOCKS + 1):
            self.add_module(f"block_{number}", NormedBlock(width))
        self.conv_cat = nn.Conv2d(4 * width, width, 1)
        self.conv_2 = Folded(width, width)
        last = nn.Conv2d(width, config.out_channels * config.scale**2, 3, padding=1)
        self.upsampler = nn.Sequential(last, nn.PixelShuffle(config.scale))

    def joined(self, clip: Tensor, recall: Recall) -> Tensor:
        middle = self.frames // 2
        convs = list(self.history_convs)
        convs.insert(middle, self.center_conv)
        features = [conv(frame) for conv, frame in zip(convs, clip.unbind(1))]
        fused = self.fusion_conv(torch.cat(features, 1))
        results, inner = [fused], fused
        for number in range(1, BLOCKS + 1):
            result, inner = self.get_submodule(f"block_{number}")(results[-1])
            results.append(result)
        last = self.conv_2(results[-1])
        return self.upsampler(self.conv_cat(torch.cat([fused, last, results[1], inner], 1)))


class TemporalSPANArch(Member):
    """Detects and loads TemporalSPAN, as it was trained and folded."""

    title = "TemporalSPAN"
    source = "traiNNer-redux"
    examples = (
        TemporalSPANConfig(width=32, history=8, scale=2),
        TemporalSPANConfig(frames=3, width=8, history=3, scale=4, in_channels=1, out_channels=1),
        TemporalSPANConfig(frames=7, width=8, history=2, scale=1),
    )

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        starts = ("center_conv.", "history_convs.0.", "fusion_conv.0.")
        return "block_1.norm1.weight" in state_dict and all(
            any(f"{start}{name}.weight" in state_dict for name in ("eval_conv", "sk"))
            for start in starts
        )

    def prepare(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return with_conv3xc_folded(state_dict)

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> TemporalSPANConfig:
        width, channels = state_dict[f"center_conv.{FOLDED}weight"].shape[:2]
        rows = len(state_dict["upsampler.0.weight"])
        return TemporalSPANConfig(
            in_channels=channels,
            out_channels=channels,  # the trainer has no other
            scale=shuffle_factor(rows, channels, "upsampler.0"),
            frames=len(indices(state_dict, "history_convs.")) + 1,
            width=width,
            history=len(state_dict[f"history_convs.0.{FOLDED}weight"]),
        )

    def statistics(self, config: TemporalSPANConfig) -> str:
        return "the means and deviations of groups of channels"

    def build(self, config: TemporalSPANConfig) -> TemporalSPAN:
        return TemporalSPAN(config)


ARCHITECTURE = TemporalSPANArch
