"""SRGAN's generator: SRResNet as its paper has it, with batch norms and wide kernels at both ends.

Source: Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial
Network", CVPR 2017, with the names of tensors of three widespread versions: leftthomas's (whose
result is (tanh + 1) / 2), Lornatang's and twtygqyy's (LeakyReLU; its later version has instance
norms, which take means and deviations from the whole picture).

    image -> conv 9x9, PReLU -> blocks -> conv, norm -> + -> (conv, pixel shuffle, PReLU) ...
          -> conv 9x9

Batch norms are folded into the convolutions before them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .member import Member, MemberConfig, indices, shuffle_factor

EPSILON = 1e-5  # of the norms
SLOPE = 0.2  # of twtygqyy's activations, which have no tensors
BLOCK = {"conv1": "conv1", "bn1": "norm1", "prelu": "slope", "conv2": "conv2", "bn2": "norm2"}
IN_TURN = {"0": "conv1", "1": "norm1", "2": "slope", "3": "conv2", "4": "norm2"}
LEFTTHOMAS, LORNATANG, TWTYGQYY = (
    "block2.prelu.weight",
    "trunk.0.rcb.2.weight",
    "upscale4x.0.weight",
)


@dataclass(frozen=True, kw_only=True)
class SRGANConfig(MemberConfig):
    """Hyperparameters.

    Attributes:
        width: features C.
        blocks: number of blocks.
        factors: of the pixel shuffles.
        normalised: whether there are instance norms.
        bounded: whether the result is (tanh + 1) / 2.
    """

    width: int = 64
    blocks: int = 16
    factors: tuple[int, ...] = (2, 2)
    normalised: bool = False
    bounded: bool = False


class Layer(nn.Module):
    """A convolution, with the slope of the activation that follows; (B, C, H, W)."""

    def __init__(self, entering: int, leaving: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(entering, leaving, kernel, padding=kernel // 2)
        self.slope = nn.PReLU()


class ResidualBlock(nn.Module):
    """Two convolutions around an activation, and a skip; (B, C, H, W)."""

    def __init__(self, width: int, *, normalised: bool) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv_and_norm(width, normalised=normalised)
        self.slope = nn.PReLU()
        self.conv2, self.norm2 = conv_and_norm(width, normalised=normalised)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm2(self.conv2(self.slope(self.norm1(self.conv1(x)))))


class Norm(nn.InstanceNorm2d):
    """Instance norm. Of a single pixel, nothing but the bias is left."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] * x.shape[-2] == 1:
            return self.bias[:, None, None].expand_as(x)
        return super().forward(x)


def conv_and_norm(width: int, *, normalised: bool) -> tuple[nn.Module, nn.Module]:
    """A 3x3 convolution, and the instance norm behind it or nothing."""
    norm = Norm(width, EPSILON, affine=True) if normalised else nn.Identity()
    return nn.Conv2d(width, width, 3, padding=1), norm


class SRGAN(nn.Module):
    """(B, in, H, W) in [0, 1] -> (B, out, H * scale, W * scale), unclamped; any H, W >= 1."""

    def __init__(self, config: SRGANConfig) -> None:
        super().__init__()
        width, normalised = config.width, config.normalised
        self.entry = Layer(config.in_channels, width, 9)
        self.body = nn.Sequential(
            *(ResidualBlock(width, normalised=normalised) for _ in range(config.blocks))
        )
        self.conv_mid, self.norm_mid = conv_and_norm(width, normalised=normalised)
        self.up = nn.ModuleList(Layer(width, width * f**2, 3) for f in config.factors)
        self.factors, self.last = config.factors, "bounded" if config.bounded else "plain"
        self.add_module(self.last, nn.Conv2d(width, config.out_channels, 9, padding=4))

    def forward(self, x: Tensor) -> Tensor:
        first = self.entry.slope(self.entry.conv(x))
        x = first + self.norm_mid(self.conv_mid(self.body(first)))
        for layer, factor in zip(self.up, self.factors):
            x = layer.slope(F.pixel_shuffle(layer.conv(x), factor))
        x = self.get_submodule(self.last)(x)
        return (x.tanh() + 1) / 2 if self.last == "bounded" else x


class SRGANArch(Member):
    """Detects and loads SRGAN's generator in three namings."""

    title = "SRGAN"
    source = "leftthomas, Lornatang, twtygqyy"
    examples = (
        SRGANConfig(width=8, blocks=2, scale=4),
        SRGANConfig(width=8, blocks=1, scale=2, factors=(2,), bounded=True),
        SRGANConfig(width=8, blocks=2, scale=4, normalised=True),
        SRGANConfig(width=8, blocks=1, scale=8, factors=(2, 2, 2), in_channels=1, out_channels=1),
    )

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        first = {
            LEFTTHOMAS: "block1.1.weight",
            LORNATANG: "upsampling.0.upsample_block.2.weight",
            TWTYGQYY: "residual.0.conv1.weight",
            "entry.slope.weight": "up.0.slope.weight",
        }
        return any(one in state_dict and other in state_dict for one, other in first.items())

    def prepare(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        blocks = [int(i) for i in _found(r"block(\d+)\.conv1\.weight", state_dict)]
        if LEFTTHOMAS in state_dict:
            tensors = _named(state_dict, _leftthomas(max(blocks, default=0)))
        elif LORNATANG in state_dict:
            tensors = _named(state_dict, LORNATANGS)
        elif TWTYGQYY in state_dict:
            tensors = _named(state_dict, TWTYGQYYS)
        else:
            return dict(state_dict)
        for norm in _found(r"(.*norm\w+)\.weight$", tensors):
            conv = norm.replace("norm", "conv")
            _fold(tensors, conv, norm, biased=LEFTTHOMAS in state_dict)
        if TWTYGQYY in state_dict:
            _complete(tensors)
        return tensors

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> SRGANConfig:
        width, entering = state_dict["entry.conv.weight"].shape[:2]
        bounded = "bounded.weight" in state_dict
        factors = tuple(
            shuffle_factor(len(state_dict[f"up.{i}.conv.weight"]), width, f"SRGAN: step {i}")
            for i in indices(state_dict, "up.")
        )
        return SRGANConfig(
            in_channels=entering,
            out_channels=len(state_dict["bounded.weight" if bounded else "plain.weight"]),
            scale=prod(factors),
            width=width,
            blocks=len(indices(state_dict, "body.")),
            factors=factors,
            normalised="norm_mid.weight" in state_dict,
            bounded=bounded,
        )

    def build(self, config: SRGANConfig) -> SRGAN:
        return SRGAN(config)

    def statistics(self, config: SRGANConfig) -> str:
        return "the means and deviations of the channels" if config.normalised else ""


Names = dict[str, Any]
"""Patterns of names, and what is put instead: text, or a function of the match."""


def _leftthomas(last: int) -> Names:
    """``last`` is the number of the last block of the body, which begins with block 2."""
    return {
        r"block1\.0\.": "entry.conv.",
        r"block1\.1\.": "entry.slope.",
        r"block(\d+)\.(conv1|bn1|prelu|conv2|bn2)\.": lambda m: (
            f"body.{int(m[1]) - 2}.{BLOCK[m[2]]}."
        ),
        rf"block{last + 1}\.0\.": "conv_mid.",
        rf"block{last + 1}\.1\.": "norm_mid.",
        rf"block{last + 2}\.(\d+)\.conv\.": r"up.\1.conv.",
        rf"block{last + 2}\.(\d+)\.prelu\.": r"up.\1.slope.",
        rf"block{last + 2}\.\d+\.": "bounded.",
    }


LORNATANGS: Names = {
    r"conv(?:_block)?1\.0\.": "entry.conv.",
    r"conv(?:_block)?1\.1\.": "entry.slope.",
    r"trunk\.(\d+)\.rcb\.([0-4])\.": lambda m: f"body.{m[1]}.{IN_TURN[m[2]]}.",
    r"conv(?:_block)?2\.0\.": "conv_mid.",
    r"conv(?:_block)?2\.1\.": "norm_mid.",
    r"upsampling\.(\d+)\.upsample_block\.0\.": r"up.\1.conv.",
    r"upsampling\.(\d+)\.upsample_block\.2\.": r"up.\1.slope.",
    r"conv(?:_block)?3\.": "plain.",
}
TWTYGQYYS: Names = {
    r"conv_input\.": "entry.conv.",
    r"residual\.(\d+)\.conv([12])\.": r"body.\1.conv\2.",
    r"residual\.(\d+)\.[bi]n([12])\.": r"body.\1.norm\2.",
    r"bn_mid\.": "norm_mid.",
    r"upscale4x\.(\d+)\.": lambda m: f"up.{int(m[1]) // 3}.conv.",
    r"conv_output\.": "plain.",
}


def _found(pattern: str, names: Iterable[str]) -> list[str]:
    """What the pattern's group is in those names that it fits."""
    return [match[1] for name in names if (match := re.match(pattern, name))]


def _named(state_dict: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """The tensors by the names that they have here; those of no pattern keep theirs."""
    tensors = {}
    for key, value in state_dict.items():
        match = next((p for p in names if re.match(p, key)), None)
        own = re.sub(f"^{match}", names[match], key) if match else key
        if not own.endswith("num_batches_tracked"):
            tensors[own] = value
    return tensors


def _fold(tensors: dict[str, Tensor], conv: str, norm: str, *, biased: bool) -> None:
    """Put a batch norm into the convolution before it; an instance norm stays."""
    weight = tensors[f"{conv}.weight"]
    zeros = weight.new_zeros(len(weight))
    bias = tensors[f"{conv}.bias"] if biased else tensors.get(f"{conv}.bias", zeros)
    if f"{norm}.running_mean" in tensors or f"{norm}.running_var" in tensors:
        mean, variance = (tensors.pop(f"{norm}.running_{what}") for what in ("mean", "var"))
        factor = tensors.pop(f"{norm}.weight") * (variance + EPSILON).rsqrt()
        weight = weight * factor[:, None, None, None]
        bias = (bias - mean) * factor + tensors.pop(f"{norm}.bias")
    tensors[f"{conv}.weight"], tensors[f"{conv}.bias"] = weight, bias


def _complete(tensors: dict[str, Tensor]) -> None:
    """Add what twtygqyy's version does not have: biases of zeros, and one slope for all."""
    blocks = [f"body.{i}" for i in indices(tensors, "body.")]
    steps = [f"up.{i}" for i in indices(tensors, "up.")]
    for name in ["entry", *blocks, *steps]:
        tensors[f"{name}.slope.weight"] = tensors["plain.weight"].new_full((1,), SLOPE)
    for name in ["entry.conv", *(f"{step}.conv" for step in steps), "plain"]:
        weight = tensors[f"{name}.weight"]
        tensors[f"{name}.bias"] = weight.new_zeros(len(weight))


ARCHITECTURE = SRGANArch
