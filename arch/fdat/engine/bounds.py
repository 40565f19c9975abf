"""Where values of an FDAT provably fit float16, so that a fused run in bfloat16 can hold them in it.

Float16 rounds an eighth as much as bfloat16, but ends at 65,504. Within a block every value is a
function of LayerNorm's output, whose length has a bound; so the weights bound them all. The maps
are the image's features and what blocks add to them, so they have a bound, too, that grows by the
gain of every group's convolution: trained networks of a few groups fit as a whole, of others the
first groups, where a rounding costs most, because all that follows amplifies it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..network import FDAT, DualPathBlock, ResidualGroup

SAFE_FLOAT16 = 1e-2, 3e4
"""Values are held in float16 instead of bfloat16 where their bounds lie between."""


@dataclass(frozen=True)
class Fitting:
    """What of a group fits float16.

    Attributes:
        blocks: for every block, whether its weights and the values within it do.
        maps: whether all of them do, and the maps that its blocks read and write.
    """

    blocks: list[bool]
    maps: bool


def fitting(model: FDAT) -> list[Fitting]:
    """What of each group fits, for images in [0, 1]."""
    least, most = SAFE_FLOAT16
    found = []
    for largest, trunk, branch in bounds_of(model):
        blocks = [least <= value <= most for value in largest]
        found.append(Fitting(blocks, all(blocks) and least <= trunk and branch <= most))
    return found


def bounds_of(model: FDAT) -> list[tuple[list[float], float, float]]:
    """For every group: bounds of what is in each of its blocks, of the map that the first of them
    reads, and of those that they write; for images in [0, 1]."""
    first = model.conv_first[1] if isinstance(model.conv_first, nn.Sequential) else model.conv_first
    trunk = _gain(first) + _offset(first)
    bounds = []
    for group in model.groups:
        assert isinstance(group, ResidualGroup)
        largest, added = zip(*(_bounds(block) for block in group.blocks))
        branch = trunk + torch.stack(added).sum()
        bounds.append(torch.stack([*largest, trunk, branch]))
        trunk = trunk + branch * _gain(group.conv) + _offset(group.conv)
    values = (one.tolist() for one in bounds)
    return [(largest, trunk, branch) for *largest, trunk, branch in values]


def _gain(convolution: nn.Module) -> Tensor:
    """The largest value that a convolution makes of values in [-1, 1], without its bias."""
    weight = convolution.get_parameter("weight").detach().float()
    return weight.abs().flatten(1).sum(1).max()


def _offset(convolution: nn.Module) -> Tensor | float:
    bias = convolution.bias
    return bias.detach().float().abs().max() if isinstance(bias, Tensor) else 0.0


def _bounds(block: nn.Module) -> tuple[Tensor, Tensor]:
    """Bounds of all values in a block but the maps and the sums over the image, and of what it adds
    to the map."""
    assert isinstance(block, DualPathBlock)
    attention, hidden = block.attn, block.ffn.fc1.weight

    def of(norm: nn.LayerNorm) -> Tensor:  # of the length of LayerNorm's output
        return norm.weight.abs().max() * norm.weight.numel() ** 0.5 + norm.bias.norm()

    def gain(weight: Tensor) -> Tensor:  # of the largest value of a product, by that length
        return weight.norm(dim=1).max()

    with torch.no_grad():
        values = of(block.n1) * gain(attention.qkv.weight)  # q, k, v, and v weighted by attention
        mixed = of(block.n1) * gain(block.conv[0].get_parameter("weight").flatten(1)) * 3
        made = of(block.n2) * gain(hidden)
        after = made * block.ffn.smix.weight.abs().flatten(1).sum(1).max()
        branch = values * attention.proj.weight.abs().sum(1).max() + attention.proj.bias.abs().max()
        back = after * block.ffn.fc2.weight.abs().sum(1).max()
        bounds = [values, mixed, made, after, branch + mixed, back]
        bounds += [parameter.abs().max() for parameter in block.parameters()]
        largest = torch.stack([bound.float() for bound in bounds]).max()
        return largest, (branch + mixed + back).float()
