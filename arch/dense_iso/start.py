"""Initial weights of an untrained Dense-Iso-ViT. Loading a checkpoint overwrites all of them.

Every layer keeps the variance of its input, at any width. Two places need more than that:
transitions have no skip around them, and the head is one linear map where it has no activations.
Differences between inputs that they shrink are lost to all later layers, and training stalls. So
the rows of their weights are orthogonal.
"""

from __future__ import annotations

import torch
from torch import nn

BRANCH_ENDS = ("projection", "out_proj")
POSITION_DEVIATION = 0.02
HEAD_START = 0.01
"""Factor of the head's last weights, so that at first the network's output is nearly its skip."""


def initialise(network: nn.Module, *, blocks: int, mid_grey: float) -> None:
    """Initialise every weight and bias of a `DenseIsoViT`; norms and layer scales are left at one.

    Args:
        network: to be changed in place.
        blocks: number of blocks in all stages. Each has two branches, which start so small that all
            branches together add as much variance as the first block's input has.
        mid_grey: value of a grey pixel in the patch embedding's input; it is mapped to zero at
            first.
    """
    for path, module in network.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        name = path.rpartition(".")[2]
        if path.startswith(("head.", "transitions.")):
            nn.init.orthogonal_(module.weight)
        else:
            variance = 1 / (2 * blocks) if name in BRANCH_ENDS else 1.0
            nn.init.normal_(module.weight, std=(variance / module.weight[0].numel()) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        embedding = network.patch_embedding
        assert isinstance(embedding, nn.Conv2d) and isinstance(network.head, nn.ModuleList)
        if embedding.bias is not None:
            embedding.bias.copy_(-mid_grey * embedding.weight.sum((1, 2, 3)))
        for parameter in network.head[-1].parameters():
            parameter.mul_(HEAD_START)
    if isinstance(network.position_embedding, nn.Parameter):
        nn.init.trunc_normal_(network.position_embedding, std=POSITION_DEVIATION)
