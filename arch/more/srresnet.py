"""SRResNet without batch norm ("modified SRResNet"), the start of SRGAN's and ESRGAN's training.

Source: Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial
Network", CVPR 2017, as mmsr, BasicSR, KAIR and mmagic have it, which define three namings:

    image -> conv, LeakyReLU -> blocks -> (conv, pixel shuffle[, LeakyReLU]) ... -> conv,
          LeakyReLU -> conv -> + bilinear enlargement

mmagic has no LeakyReLU behind the pixel shuffles, the others have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .member import Member, MemberConfig, indices, shuffle_factor

SLOPE = 0.1
NAMINGS = {  # start of a name in mmsr, KAIR and mmagic: in BasicSR and here
    "recon_trunk.": "body.",
    "HRconv.": "conv_hr.",
    "trunk_net.": "body.",
}
PLAIN = "upsample{}.upsample_conv"  # mmagic's, which no LeakyReLU follows
ACTIVATED = "upconv{}"


@dataclass(frozen=True, kw_only=True)
class SRResNetConfig(MemberConfig):
    """Hyperparameters.

    Attributes:
        width: features C.
        blocks: number of blocks.
        activated: whether a LeakyReLU follows every pixel shuffle.
    """

    width: int = 64
    blocks: int = 16
    activated: bool = True


class ResidualBlock(nn.Module):
    """Two convolutions around a ReLU, and a skip; (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x).relu())


class SRResNet(nn.Module):
    """(B, in, H, W) in [0, 1] -> (B, out, H * scale, W * scale), unclamped; any H, W >= 1."""

    def __init__(self, config: SRResNetConfig) -> None:
        super().__init__()
        self.config = config
        width, self.factors = config.width, [2, 2] if config.scale == 4 else [config.scale]
        self.conv_first = nn.Conv2d(config.in_channels, width, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(config.blocks)))
        for i, factor in enumerate(self.factors, 1):
            conv = nn.Conv2d(width, width * factor**2, 3, padding=1)
            if config.activated:
                self.add_module(f"upconv{i}", conv)
            else:
                self.add_module(f"upsample{i}", nn.ModuleDict({"upsample_conv": conv}))
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, config.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        deep = self.body(F.leaky_relu(self.conv_first(x), SLOPE))
        for i, factor in enumerate(self.factors, 1):
            name = ACTIVATED if self.config.activated else PLAIN
            deep = F.pixel_shuffle(self.get_submodule(name.format(i))(deep), factor)
            deep = F.leaky_relu(deep, SLOPE) if self.config.activated else deep
        enlarged = F.interpolate(x, scale_factor=self.config.scale, mode="bilinear")
        return self.conv_last(F.leaky_relu(self.conv_hr(deep), SLOPE)) + enlarged


class SRResNetArch(Member):
    """Detects and loads SRResNet in three namings."""

    title = "SRResNet"
    source = "mmsr and KAIR, BasicSR, mmagic"
    examples = (
        SRResNetConfig(width=8, blocks=2, scale=4),
        SRResNetConfig(width=8, blocks=1, scale=3, activated=False),
        SRResNetConfig(width=8, blocks=1, scale=2, in_channels=1, out_channels=1),
    )

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        names = {_own(key) for key in state_dict}
        first, block = "conv_first.weight", ("body.0.conv1.weight", "body.0.conv2.weight")
        found = any(f"{name.format(1)}.weight" in names for name in (ACTIVATED, PLAIN))
        return found and {first, *block, "conv_hr.weight", "conv_last.weight"} <= names

    def prepare(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {_own(key): value for key, value in state_dict.items()}

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> SRResNetConfig:
        width, entering = state_dict["conv_first.weight"].shape[:2]
        activated = f"{ACTIVATED.format(1)}.weight" in state_dict
        name, scale = ACTIVATED if activated else PLAIN, 4
        if f"{name.format(2)}.weight" not in state_dict:
            rows = len(state_dict[f"{name.format(1)}.weight"])
            scale = shuffle_factor(rows, width, f"SRResNet: {name.format(1)}")
        return SRResNetConfig(
            in_channels=entering,
            out_channels=len(state_dict["conv_last.weight"]),
            scale=scale,
            width=width,
            blocks=len(indices(state_dict, "body.")),
            activated=activated,
        )

    def build(self, config: SRResNetConfig) -> SRResNet:
        return SRResNet(config)


def _own(key: str) -> str:
    """A name as BasicSR has it."""
    for start, own in NAMINGS.items():
        if key.startswith(start):
            return own + key[len(start) :]
    return key


ARCHITECTURE = SRResNetArch
