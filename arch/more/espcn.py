"""ESPCN: three or four convolutions and a pixel shuffle, most often for luma alone.

Source: Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
Convolutional Neural Network", CVPR 2016, with the names of tensors of three widespread versions:
Lornatang's and yjn870's (tanh), and PyTorch's example (four convolutions, ReLU).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ModelLoadError
from .member import Member, MemberConfig, one_of, shuffle_factor

LAYOUTS = {  # names of the convolutions in order
    "feature_maps": ("feature_maps.0", "feature_maps.2", "sub_pixel.0"),
    "first_part": ("first_part.0", "first_part.2", "last_part.0"),
    "conv": ("conv1", "conv2", "conv3", "conv4"),
}
ENDS = ("none", "sigmoid")


@dataclass(frozen=True, kw_only=True)
class ESPCNConfig(MemberConfig):
    """Hyperparameters.

    Attributes:
        layout: a key of `LAYOUTS`.
        widths: features behind every convolution but the last.
        kernels: sides of the convolutions.
        end: what follows the pixel shuffle, one of `ENDS`.
    """

    layout: str = "feature_maps"
    widths: tuple[int, ...] = (64, 32)
    kernels: tuple[int, ...] = (5, 3, 3)
    end: str = "none"


class ESPCN(nn.Module):
    """(B, C, H, W) in [0, 1] -> (B, C, H * scale, W * scale), unclamped; any H, W >= 1."""

    def __init__(self, config: ESPCNConfig) -> None:
        super().__init__()
        self.config = config
        last = config.out_channels * config.scale**2
        sides = (config.in_channels, *config.widths, last)
        for name, (entering, leaving), kernel in zip(
            LAYOUTS[config.layout], pairwise(sides), config.kernels, strict=True
        ):
            conv = nn.Conv2d(entering, leaving, kernel, padding=kernel // 2)
            parent, _, child = name.rpartition(".")
            if parent and not hasattr(self, parent):
                self.add_module(parent, nn.ModuleDict())
            (self.get_submodule(parent) if parent else self).add_module(child, conv)

    def forward(self, x: Tensor) -> Tensor:
        *first, last = LAYOUTS[self.config.layout]
        for name in first:
            x = self.get_submodule(name)(x)
            x = x.relu() if self.config.layout == "conv" else x.tanh()
        x = F.pixel_shuffle(self.get_submodule(last)(x), self.config.scale)
        return x.sigmoid() if self.config.end == "sigmoid" else x


class ESPCNArch(Member):
    """Detects and loads ESPCN in three layouts.

    The option ``end``: "sigmoid" for early files of Lornatang's, whose tensors are the same.
    """

    title = "ESPCN"
    source = "Lornatang, yjn870, PyTorch's example"
    options = ("end",)
    examples = (
        ESPCNConfig(scale=3, in_channels=3, widths=(16, 8)),
        ESPCNConfig(
            layout="first_part", scale=4, in_channels=1, out_channels=1, widths=(16, 8)
        ),
        ESPCNConfig(
            layout="conv", scale=2, in_channels=1, out_channels=1, widths=(16, 16, 8),
            kernels=(5, 3, 3, 3),
        ),
    )  # fmt: skip

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        names = {f"{key}.{kind}" for key in _layers(state_dict) for kind in ("weight", "bias")}
        return bool(names) and names == set(state_dict)

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> ESPCNConfig:
        layers = _layers(state_dict)
        weights = [state_dict[f"{name}.weight"] for name in layers]
        for before, after in pairwise(weights):
            if len(before) != after.shape[1]:
                raise ModelLoadError(
                    f"ESPCN: {after.shape[1]} channels enter where {len(before)} leave"
                )
        channels = weights[0].shape[1]
        return ESPCNConfig(
            in_channels=channels,
            out_channels=channels,
            scale=shuffle_factor(len(weights[-1]), channels, f"ESPCN: {layers[-1]}"),
            layout=next(name for name, names in LAYOUTS.items() if names == layers),
            widths=tuple(len(weight) for weight in weights[:-1]),
            kernels=tuple(weight.shape[-1] for weight in weights),
            end=one_of("end", options.get("end"), ENDS),
        )

    def assumed(self, config: ESPCNConfig, options: Mapping[str, Any]) -> list[str]:
        doubtful = config.layout == "feature_maps" and "end" not in options
        return ["assumed end=none (early files of Lornatang's have a sigmoid)"] if doubtful else []

    def build(self, config: ESPCNConfig) -> ESPCN:
        return ESPCN(config)


def _layers(state_dict: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The names of the convolutions, if they are those of a layout and 4-dimensional."""
    for names in LAYOUTS.values():
        found = [state_dict.get(f"{name}.weight") for name in names]
        if all(weight is not None and weight.ndim == 4 for weight in found):
            return names
    return ()


ARCHITECTURE = ESPCNArch
