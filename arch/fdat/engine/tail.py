"""FDAT's upsamplers on a stream of rows.

A tail is a list of stages, each a function ``(rows (h, W, C), last) -> rows``. A stage with a 3x3
kernel holds back the row that still lacks its lower neighbour, so nothing is computed twice however
many stages follow each other. The two upsamplers that sample the features at learnt positions,
``dysample`` and ``lda``, are in sampling.py; the stages before and behind them are here.

Some layers are computed in another way than the network writes them, with equal results:

- ConvTranspose2d(C, O, 4, stride 2, padding 1) with few O: the four output pixels around a corner
  of input pixels are linear functions of the four pixels that meet there, so it is a 2x2
  convolution to 4 * O channels and a pixel shuffle.
- LeakyReLU after a nearest-neighbour enlargement is computed before it, on fewer pixels.
- GELU after a wide transposed convolution is computed within that convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.onednn import transposed_gelu
from ...kernels.products import linear
from ..config import FDATConfig
from ..upsampler import DySample, LDAUpsample, PixelAttention, upscale_steps
from .rows import Halo, Seam, as_image, as_rows, convolve, convolve_band, repeat_rows, shuffle_rows

RowStage = Callable[[Tensor, bool], Tensor]

FEW_OUTPUTS = 8  # with so few, a strided transposed convolution leaves most of the machine idle


def convolution_stage(weight: Tensor, bias: Tensor | None) -> RowStage:
    """3x3 convolution. Bands are joined before or after it, where rows have fewer channels."""
    weight = weight.contiguous(memory_format=torch.channels_last)
    outputs, channels = weight.shape[:2]
    if outputs * 2 > channels:
        halo = Halo()
        return lambda rows, last: convolve(halo.extend(rows, last), weight, bias)
    seam = Seam()

    def stage(rows: Tensor, last: bool) -> Tensor:
        parts = [convolve_band(*piece, weight, bias) for piece in seam.pieces(rows, last)]
        return (
            parts[0]
            if len(parts) == 1
            else torch.cat(parts)
            if parts
            else rows.new_empty(0, rows.shape[1], outputs)
        )

    return stage


def corner_kernel(weight: Tensor) -> Tensor:
    """The weight of a transposed convolution as that of a convolution before a pixel shuffle.

    ConvTranspose2d weight (C, O, 4, 4), stride 2, padding 1 -> Conv2d weight (4 * O, C, 2, 2).
    Between input rows i and i + 1 lie output rows 2i + 1 + p; to each of them input row i + d
    contributes by kernel row 2 + p - 2d.
    """
    by_row = torch.stack([weight[:, :, 2:], weight[:, :, :2]], 2)  # (C, O, d, p, 4)
    by_column = torch.stack([by_row[..., 2:], by_row[..., :2]], 4)  # (C, O, d, p, e, q)
    return by_column.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)


def corner_stage(weight: Tensor, bias: Tensor) -> RowStage:
    """ConvTranspose2d with (kernel, stride, padding) (4, 2, 1), computed at the corners of pixels.

    Its output ends half an input row above the rows that have arrived.
    """
    kernel, bias = (
        corner_kernel(weight).contiguous(memory_format=torch.channels_last),
        bias.repeat_interleave(4),
    )
    above: Tensor | None = None

    def corners(rows: Tensor, top: bool, bottom: bool) -> Tensor:
        """Rows (h, W, C) -> output rows between them (2h - 2 + top + bottom, 2W, O).

        At the image's top and bottom these include the outermost output row.
        """
        outer = int(top or bottom)
        y = as_rows(F.conv2d(as_image(rows), kernel, bias, padding=(outer, 1)))
        y = shuffle_rows(y[outer - top : y.shape[0] - (outer - bottom)], 2)
        return y[int(top) : y.shape[0] - int(bottom), 1:-1]

    def stage(rows: Tensor, last: bool) -> Tensor:
        nonlocal above
        before, above = above, rows[-1:].clone()
        if before is None:
            return corners(rows, True, last)
        seam = torch.cat([before, rows[:1]])
        if rows.shape[0] == 1:
            return corners(seam, False, last)
        return torch.cat([corners(seam, False, False), corners(rows, False, last)])

    return stage


def transposed_stage(layer: nn.ConvTranspose2d) -> RowStage:
    """ConvTranspose2d to few outputs with (kernel, stride, padding) (3, 3, 0) or (4, 2, 1)."""
    weight, bias = layer.weight, layer.get_parameter("bias")
    if layer.stride == (3, 3):  # no overlap: a linear map of each pixel
        matrix, spread = weight.flatten(1).T.contiguous(), bias.repeat_interleave(9)  # (9 * O, C)
        return lambda rows, last: shuffle_rows(linear(rows, matrix, spread), 3)
    return corner_stage(weight, bias)


def is_wide(layer: nn.Module) -> bool:
    """Whether ``layer`` is a transposed convolution that is faster directly than at corners."""
    return (
        isinstance(layer, nn.ConvTranspose2d)
        and layer.stride == (2, 2)
        and layer.out_channels > FEW_OUTPUTS
    )


def transposed_gelu_stage(layer: nn.ConvTranspose2d) -> RowStage:
    """ConvTranspose2d with (kernel, stride, padding) (4, 2, 1), and GELU."""
    weight, bias, halo = layer.weight, layer.get_parameter("bias"), Halo()

    def stage(rows: Tensor, last: bool) -> Tensor:
        extended = halo.extend(rows, last)
        if extended.shape[0] < 3:
            return rows.new_empty(0, 2 * rows.shape[1], weight.shape[1])
        # padding 3 instead of 1 leaves out the two output rows that each row of the halo would give
        return as_rows(transposed_gelu(as_image(extended), weight, bias, (3, 1)))

    return stage


def layer_stage(layer: nn.Module) -> RowStage:
    """The stage that equals one layer of an upsampler, in the precision of its parameters."""
    stage = _layer_stage(layer)
    dtype = next((parameter.dtype for parameter in layer.parameters()), None)
    return stage if dtype is None else lambda rows, last: stage(rows.to(dtype), last)


def _layer_stage(layer: nn.Module) -> RowStage:
    if isinstance(layer, nn.Conv2d):
        return convolution_stage(layer.weight, layer.bias)
    if isinstance(layer, nn.ConvTranspose2d):
        return transposed_stage(layer)
    if isinstance(layer, nn.Sequential):  # from `build_stages`
        wide = layer[0]
        assert isinstance(wide, nn.ConvTranspose2d)
        return transposed_gelu_stage(wide)
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
    """Split an upsampler's layers: those before its sampling layer, that layer, those after it.

    If there is no sampling layer, all layers are in the last part.
    """
    for index, layer in enumerate(layers):
        if isinstance(layer, DySample | LDAUpsample):
            return list(layers[:index]), layer, list(layers[index + 1 :])
    return [], None, list(layers)


def build_stages(layers: Sequence[nn.Module]) -> list[RowStage]:
    """New stages for one image: they keep rows between bands, so images can't share them."""
    ordered = list(layers)
    for index in range(len(ordered) - 1):
        if isinstance(ordered[index], nn.Upsample) and isinstance(ordered[index + 1], nn.LeakyReLU):
            ordered[index : index + 2] = ordered[index + 1], ordered[index]
        elif is_wide(ordered[index]) and isinstance(ordered[index + 1], nn.GELU):
            ordered[index : index + 2] = [nn.Sequential(*ordered[index : index + 2]), nn.Identity()]
    return [layer_stage(layer) for layer in ordered if not isinstance(layer, nn.Identity)]


def run_stages(stages: Sequence[RowStage], rows: Tensor, last: bool) -> Tensor:
    """Pass rows (h, W, C) through the stages; return the rows (maybe none) finished by now."""
    for stage in stages:
        if not rows.shape[0]:
            break
        rows = stage(rows, last)
    return rows


def widths_of_tail(config: FDATConfig) -> list[int]:
    """Values per feature pixel that each layer of an upsampler holds: input (with halo), output."""
    dim, mid, out, scale = (
        config.embed_dim,
        config.mid_dim,
        config.num_out_ch,
        config.upsampler_scale,
    )
    kind = config.upsampler_type
    if scale == 1 or kind in ("conv", "pixelshuffledirect"):
        return [2 * dim + 2 * out * scale**2]
    if kind == "transpose+conv":
        direct = {2: 2 * dim + 2 * out * 4, 3: dim + 2 * out * 9, 4: 2 * dim + 4 * dim}
        last = {2: 0, 3: 0, 4: 2 * 4 * dim + 16 * out}
        return [direct[scale], last[scale], 3 * out * scale**2]
    widths, area = [], 1
    for index, step in enumerate(upscale_steps(scale)):
        before, area = area, area * step**2
        if kind == "pixelshuffle":
            widths += [3 * dim, before * 2 * mid + area * mid, 2 * area * mid]
        elif kind == "nearest+conv":
            widths += [before * 3 * dim, before * dim + area * dim]
        else:  # pa_up
            entering = dim if index == 0 else mid
            widths += [
                before * entering + area * entering,
                area * (2 * entering + mid),
                area * 3 * mid,
            ]
    final = mid if kind in ("pixelshuffle", "pa_up") else dim
    return [*widths, area * ((3 if kind == "nearest+conv" else 2) * final + out)]
