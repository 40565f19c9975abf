"""How an untrained Dense-Iso-ViT starts. Loading a checkpoint overwrites all of it.

Every layer keeps the variance of what it is given, at any width. Two places need more than that:
transitions have no skip around them, and the head is one linear map where it has no activations.
What they shrink, or map nearly alike, is lost to all that follows, and training stands still. Their
rows are orthogonal.
"""

from __future__ import annotations

import torch
from torch import nn

BRANCH_ENDS = ("projection", "out_proj")
POSITION_DEVIATION = 0.02
HEAD_START = 0.01
"""Factor of the head's last weights: the network starts near its skip."""


def initialise(network: nn.Module, *, blocks: int, mid_grey: float) -> None:
    """Initialise every weight and bias of a `DenseIsoViT`; norms and layer scales are left at one.

    Args:
        network: to be changed in place.
        blocks: of all stages together. Each has two branches, which start so small that all of them
            together add as much as is given to the first.
        mid_grey: value of a grey pixel as the patch embedding gets it; it starts as nothing.
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
