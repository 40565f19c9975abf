"""Folds what only training needs into the convolution that computes the same."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FOLDED = "eval_conv."
"""What the folded convolution of ``Conv3XC`` is called, beside "sk." and "conv." of the training."""

Kernel = tuple[Tensor, Tensor]
"""Weight (out, in, 3, 3) and bias (out,)."""


def in_turn(kernels: list[Kernel]) -> Kernel:
    """1x1 and 3x3 convolutions one after the other, without padding between them, as one.

    Exact where the input is padded before the first one, by the zeros that it is padded with for
    the result.
    """
    weight, bias = kernels[0]
    for after, after_bias in kernels[1:]:
        # sum over the middle channels; of two kernels at most one is larger than 1x1
        bias = torch.einsum("omhw,m->o", after, bias) + after_bias
        side = max(after.shape[-1], weight.shape[-1])
        weight = torch.einsum("omhw,mixy->oihwxy", after, weight)
        weight = weight.reshape(*weight.shape[:2], side, side)
    return weight, bias


def beside(kernels: list[Kernel]) -> Kernel:
    """The sum of 1x1 and larger convolutions of the same input, as one of the largest size."""
    side = max(weight.shape[-1] for weight, _ in kernels)
    padded = [F.pad(weight, [(side - weight.shape[-1]) // 2] * 4) for weight, _ in kernels]
    return torch.stack(padded).sum(0), torch.stack([bias for _, bias in kernels]).sum(0)


def conv3xc(tensors: Mapping[str, Tensor], start: str) -> Kernel:
    """SPAN's block ``Conv3XC``: 1x1, 3x3 and 1x1 in turn, beside a 1x1 (``sk``)."""
    return beside(
        [
            in_turn([layer(tensors, f"{start}conv.{i}") for i in (0, 1, 2)]),
            layer(tensors, f"{start}sk"),
        ]
    )


def layer(tensors: Mapping[str, Tensor], name: str) -> Kernel:
    """The weight and bias of a convolution."""
    return tensors[f"{name}.weight"], tensors[f"{name}.bias"]


class Folded(nn.Module):
    """A folded ``Conv3XC``: a 3x3 convolution by the name that checkpoints give it."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        self.eval_conv = nn.Conv2d(entering, leaving, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.eval_conv(x)


def with_conv3xc_folded(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with every ``Conv3XC`` folded into its `FOLDED` convolution."""
    starts = [key.removesuffix("sk.weight") for key in state_dict if key.endswith(".sk.weight")]
    training = tuple(f"{start}{part}." for start in starts for part in ("sk", "conv"))
    folded = {key: value for key, value in state_dict.items() if not key.startswith(training)}
    for start in starts:
        weight, bias = conv3xc(state_dict, start)
        folded |= {f"{start}{FOLDED}weight": weight, f"{start}{FOLDED}bias": bias}
    return folded
