"""FDAT's upsamplers on a stream of rows.

A tail is a list of stages, each a function ``(rows (h, W, C), last) -> rows``. A stage with a 3x3 kernel holds back the
row that still lacks its lower neighbour, so nothing is computed twice however many stages follow each other. The two
upsamplers that sample the features at learnt positions, ``dysample`` and ``lda``, are in fdat_sampling.py; the stages
before and behind them are here.

Two layers are computed differently from how they are written, with equal results:
    ConvTranspose2d(C, O, 4, stride 2, padding 1) with few O: each of the 2x2 sub-pixels of an input pixel is a linear
        function of its 3x3 neighbours, so it is a 3x3 convolution to 4 * O channels and a pixel shuffle.
    LeakyReLU behind a nearest-neighbour enlargement goes in front of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fdat_rows import Halo, Seam, as_image, as_rows, convolve, convolve_band, repeat_rows, shuffle_rows
from .fdat_upsampler import DySample, LDAUpsample, PixelAttention
from .products import linear

Stage = Callable[[Tensor, bool], Tensor]

FEW_OUTPUTS = 8  # below, a strided transposed convolution leaves most of the machine idle


def convolution_stage(weight: Tensor, bias: Tensor | None) -> Stage:
    """3x3 convolution. Rows are joined before it or behind it, wherever they are fewer channels to copy."""
    weight = weight.contiguous(memory_format=torch.channels_last)
    outputs, channels = weight.shape[:2]
    if outputs * 2 > channels:
        halo = Halo()
        return lambda rows, last: convolve(halo.extend(rows, last), weight, bias)
    seam = Seam()

    def stage(rows: Tensor, last: bool) -> Tensor:
        parts = [convolve_band(*piece, weight, bias) for piece in seam.pieces(rows, last)]
        return parts[0] if len(parts) == 1 else torch.cat(parts) if parts else rows.new_empty(0, rows.shape[1], outputs)

    return stage


def transposed_as_convolution(weight: Tensor) -> Tensor:
    """ConvTranspose2d weight (C, O, 4, 4), stride 2, padding 1 -> Conv2d weight (4 * O, C, 3, 3) for a pixel shuffle.

    Output row 2i + p gets input row i + d by kernel row p + 1 - 2d.
    """
    channels, outputs = weight.shape[:2]
    result = weight.new_zeros(outputs, 2, 2, channels, 3, 3)
    taps = [(p, d, p + 1 - 2 * d) for p in (0, 1) for d in (-1, 0, 1) if 0 <= p + 1 - 2 * d < 4]
    for p, d, kernel_row in taps:
        for q, e, kernel_column in taps:
            result[:, p, q, :, d + 1, e + 1] = weight[:, :, kernel_row, kernel_column].T
    return result.flatten(0, 2)


def transposed_stage(layer: nn.ConvTranspose2d) -> Stage:
    """ConvTranspose2d with (kernel, stride, padding) (3, 3, 0) or (4, 2, 1)."""
    weight, bias = layer.weight, layer.get_parameter("bias")
    if layer.stride == (3, 3):  # no overlap: a linear map of each pixel
        matrix, spread = weight.flatten(1).T.contiguous(), bias.repeat_interleave(9)  # (9 * O, C)
        return lambda rows, last: shuffle_rows(linear(rows, matrix, spread), 3)
    if weight.shape[1] <= FEW_OUTPUTS:
        convolution = convolution_stage(transposed_as_convolution(weight), bias.repeat_interleave(4))
        return lambda rows, last: shuffle_rows(convolution(rows, last), 2)
    halo = Halo()

    def stage(rows: Tensor, last: bool) -> Tensor:
        extended = halo.extend(rows, last)
        if extended.shape[0] < 3:
            return rows.new_empty(0, 2 * rows.shape[1], weight.shape[1])
        # padding 3 instead of 1 leaves out the two output rows that each row of the halo would give
        return as_rows(F.conv_transpose2d(as_image(extended), weight, bias, stride=2, padding=(3, 1)))

    return stage


def layer_stage(layer: nn.Module) -> Stage:
    """The stage that equals one layer of an upsampler."""
    if isinstance(layer, nn.Conv2d):
        return convolution_stage(layer.weight, layer.bias)
    if isinstance(layer, nn.ConvTranspose2d):
        return transposed_stage(layer)
    if isinstance(layer, nn.PixelShuffle):
        return lambda rows, last: shuffle_rows(rows, layer.upscale_factor)
    if isinstance(layer, nn.Upsample):
        factor = layer.scale_factor
        assert isinstance(factor, float), "one factor for both axes"
        return lambda rows, last: repeat_rows(rows, int(factor))
    if isinstance(layer, PixelAttention):
        convolution = layer.conv[0]
        assert isinstance(convolution, nn.Conv2d)
        matrix, bias = convolution.weight.flatten(1), convolution.bias
        return lambda rows, last: torch.sigmoid(linear(rows, matrix, bias)).mul_(rows)
    return lambda rows, last: layer(rows)  # an activation


def split_at_sampler(
    layers: Sequence[nn.Module],
) -> tuple[list[nn.Module], DySample | LDAUpsample | None, list[nn.Module]]:
    """An upsampler's layers -> those before its sampling layer, that layer, those behind (all, if there is none)."""
    for index, layer in enumerate(layers):
        if isinstance(layer, DySample | LDAUpsample):
            return list(layers[:index]), layer, list(layers[index + 1 :])
    return [], None, list(layers)


def build_stages(layers: Sequence[nn.Module]) -> list[Stage]:
    """Fresh stages for one image."""
    ordered = list(layers)
    for index in range(len(ordered) - 1):
        if isinstance(ordered[index], nn.Upsample) and isinstance(ordered[index + 1], nn.LeakyReLU):
            ordered[index : index + 2] = ordered[index + 1], ordered[index]
    return [layer_stage(layer) for layer in ordered]


def run_stages(stages: Sequence[Stage], rows: Tensor, last: bool) -> Tensor:
    """Pass rows (h, W, C) through the stages; returns the rows (possibly none) that are finished by now."""
    for stage in stages:
        if not rows.shape[0]:
            break
        rows = stage(rows, last)
    return rows
