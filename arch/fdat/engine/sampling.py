"""FDAT's sampling upsamplers, ``dysample`` and ``lda``, for one band of rows of a feature map.

Both sample the features at learnt positions. Their coordinates count from the top of the whole
image, and what lies outside the image, not outside the band, is padding. Coordinates and samples
are in the residual's precision.

dysample: offsets come from the pixel itself and have no bound, so it samples the whole map.
lda: offsets are at most 11 output pixels plus one for the 3x3 taps, so it is known beforehand which
rows of the map a band can reach; only they are read.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.products import linear
from ..upsampler import LDA_GROUPS, DySample, LDAUpsample


def dysample_rows(layer: DySample, features: Tensor, start: int, stop: int) -> Tensor:
    """Output rows of ``dysample`` for the feature rows [start, stop).

    Features (H, W, C) -> ((stop - start) * scale, W * scale, O)
    """
    height, width, _ = features.shape
    scale, groups = layer.scale, layer.groups
    rows = features[start:stop].to(layer.offset.weight.dtype)
    scope = linear(rows, layer.scope.weight.flatten(1)).sigmoid_()
    offset = linear(rows, layer.offset.weight.flatten(1), layer.offset.bias).mul_(
        scope
    )  # (h, W, 2 * groups * s * s)
    offset = (offset.to(features.dtype) * 0.5 + layer.init_pos.flatten()).unflatten(
        -1, (2, groups, scale, scale)
    )
    x, y = offset.unbind(2)  # (h, W, groups, s, s), in feature pixels from the pixel's centre
    column = torch.arange(width, device=x.device, dtype=x.dtype) + 0.5
    row = torch.arange(start, stop, device=x.device, dtype=x.dtype) + 0.5
    grid = torch.stack(
        [
            (x + column[:, None, None, None]) * (2 / width) - 1,
            (y + row[:, None, None, None, None]) * (2 / height) - 1,
        ],
        -1,
    )
    grid = grid.permute(2, 0, 3, 1, 4, 5).reshape(groups, (stop - start) * scale, width * scale, 2)
    grouped = features.unflatten(-1, (groups, -1)).permute(2, 3, 0, 1)  # (groups, C / groups, H, W)
    sampled = F.grid_sample(
        grouped, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    rows = sampled.permute(2, 3, 0, 1).flatten(2).to(rows.dtype)  # (sh, sW, C)
    return linear(rows, layer.end_conv.weight.flatten(1), layer.end_conv.bias)


def lda_reach(layer: LDAUpsample, height: int, start: int, stop: int) -> tuple[int, int]:
    """The feature rows [first, end), of ``height``, on which output rows [start, stop) depend."""
    reach = layer.OFFSET_RANGE + layer.KERNEL // 2 + 1
    last = height * layer.scale - 1
    first_row = (max(0, start - reach) * (height - 1)) // last
    last_row = (min(last, stop - 1 + reach) * (height - 1)) // last
    return first_row, min(height, last_row + 2)


def _query_rows(low: Tensor, below: int, height: int, scale: int, start: int, stop: int) -> Tensor:
    """Bilinear enlargement with aligned corners, for output rows [start, stop) only.

    ``low`` (h, W, D) -> (1, D, rows, sW). ``low`` holds the rows from ``below`` on, of ``height``.
    """
    position = torch.arange(start, stop, device=low.device, dtype=low.dtype) * (
        (height - 1) / (height * scale - 1)
    )
    above = position.floor()
    fraction = (position - above)[:, None, None]
    above = above.long() - below
    rows = (
        low[above] * (1 - fraction) + low[(above + 1).clamp_max(low.shape[0] - 1)] * fraction
    )  # (rows, W, D)
    rows = rows.permute(2, 0, 1)[None]
    return F.interpolate(
        rows, (stop - start, low.shape[1] * scale), mode="bilinear", align_corners=True
    )


def lda_rows(
    layer: LDAUpsample, features: Tensor, below: int, height: int, start: int, stop: int
) -> Tensor:
    """Output rows [start, stop) of ``lda``: (stop - start, W * scale, C).

    ``features`` (h, W, C) holds the rows that `lda_reach` names, from row ``below`` on, of
    ``height`` in all, in the residual's precision.
    """
    rows, width, channels = features.shape
    scale, taps, half = layer.scale, layer.KERNEL**2, layer.KERNEL // 2
    norm, dtype = layer.layer_norm, layer.proj_q.weight.dtype
    normed = F.layer_norm(features.to(dtype), (channels,), norm.weight, norm.bias, norm.eps)
    key = linear(normed, layer.proj_k.weight.flatten(1)).to(features.dtype)  # (h, W, D)
    low_query = linear(normed, layer.proj_q.weight.flatten(1)).to(features.dtype)

    # conv_offset holds two 3x3 convolutions, so it needs two more rows of queries above and below,
    # as far as the image has them
    first, last = max(0, start - 2), min(height * scale, stop + 2)
    query = _query_rows(low_query, below, height, scale, first, last)  # (1, D, rows + 4, sW)
    offset = layer.conv_offset(
        query.to(dtype).unflatten(1, (LDA_GROUPS, -1))[0]
    )  # (groups, 2 * taps, rows + 4, sW)
    own = slice(start - first, stop - first)
    offset = offset[:, :, own].tanh().to(features.dtype) * layer.OFFSET_RANGE
    query = query[0, :, own].unflatten(0, (LDA_GROUPS, -1))  # (groups, D / groups, rows, sW)

    row = torch.arange(start, stop, device=features.device, dtype=features.dtype)[:, None]
    column = torch.arange(width * scale, device=features.device, dtype=features.dtype)
    to_row, to_column = (height - 1) / (height * scale - 1), (width - 1) / (width * scale - 1)

    def sample(grouped: Tensor, tap: int) -> Tensor:
        """(h, W, D) -> (groups, D / groups, rows, sW), at one tap."""
        y = (
            row + offset[:, 2 * tap] + (tap // layer.KERNEL - half)
        ) * to_row - below  # (groups, rows, sW)
        x = (column + offset[:, 2 * tap + 1] + (tap % layer.KERNEL - half)) * to_column
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / rows - 1], -1)
        grouped = grouped.unflatten(-1, (LDA_GROUPS, -1)).permute(2, 3, 0, 1)
        return F.grid_sample(
            grouped, grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )

    bias = layer.relative_position_bias_table[0, 0, 0].to(features.dtype)  # (taps, D)
    logits = [
        (query * (sample(key, tap) + bias[tap].view(LDA_GROUPS, -1, 1, 1))).sum((0, 1))
        * key.shape[-1] ** -0.5
        for tap in range(taps)
    ]
    attention = torch.stack(logits).softmax(0)  # (taps, rows, sW)
    output = sample(features, 0) * attention[0]  # (groups, C / groups, rows, sW)
    for tap in range(1, taps):
        output += sample(features, tap) * attention[tap]
    return output.flatten(0, 1).permute(1, 2, 0).to(dtype)
