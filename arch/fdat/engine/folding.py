"""The small matrices of a block, from the sums over the image that statistics.py takes.

Both functions work in the precision of their arguments: float64 for the CPU's engine, at least
float32 elsewhere. The sums of the channel attention come less a pilot p. With N tokens n = d + p

    D = d^T d,  t = 1^T d,  m = p + t / N:    n^T n = (D - t t^T / N) + N m m^T

The bracket is what deviates from the mean. Products with it and with m are taken apart and then
added up: where tokens share a large offset (mean / deviation = 100), that is as precise as the
attention of the tokens themselves in the same precision, and needs no float64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NORMALIZE_EPS = 1e-12  # the default of F.normalize


def gated_projection(mean: Tensor, down: Tensor, up: Tensor, projection: Tensor) -> Tensor:
    """Window attention's projection (C, ...) with AIM's channel gate.

    Args:
        mean: (C,) of the convolution's path over the image.
        down, up: (C // reduction, C), (C, C // reduction).
        projection: (C, ...)
    """
    gate = torch.sigmoid(up @ F.gelu(down @ mean))
    return gate.view(-1, *[1] * (projection.ndim - 1)) * projection


def channel_matrix(
    sums: Tensor,
    pilot: Tensor,
    tokens: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    temperature: Tensor,
    outputs: Tensor,
) -> Tensor:
    """Channel attention as one linear map of the tokens: outputs (softmax(q^T k) V), (C + 1, C).

    Args:
        sums: (C + 1, C): D, and below it t.
        pilot: (C,)
        tokens: how many were summed.
        query, key, value: (C, C)
        temperature: (heads, 1, 1)
        outputs: (C + 1, C), see `ChannelWeights`.
    """
    heads, total = temperature.shape[0], sums[-1]
    mean = total / tokens
    deviation = sums[:-1] - torch.outer(total, mean)  # (C, C)
    mean = pilot + mean
    norms, parts = [], []
    for weight in (query, key):
        deviating, common = weight @ deviation, weight @ mean  # (C, C), (C,)
        norms.append(((deviating * weight).sum(1) + tokens * common.square()).clamp_min(0).sqrt())
        parts.append((deviating.unflatten(0, (heads, -1)), common.unflatten(0, (heads, -1))))
    (deviating, common), (_, common_key) = parts
    logits = deviating @ key.unflatten(0, (heads, -1)).mT  # (heads, c, c)
    logits = logits + tokens * common[:, :, None] * common_key[:, None]
    query_norm, key_norm = (n.clamp_min(NORMALIZE_EPS).unflatten(0, (heads, -1)) for n in norms)
    logits = logits / query_norm[:, :, None] / key_norm[:, None] * temperature
    attended = logits.softmax(-1) @ value.unflatten(0, (heads, -1))  # (heads, c, C)
    return outputs @ attended.flatten(0, 1)
