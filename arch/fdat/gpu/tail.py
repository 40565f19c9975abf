"""FDAT's upsamplers, but the sampling ones, on bands that overlap.

In engine/tail.py a stage keeps the rows that it lacks, which joins every band to the rows before
it: a copy of the widest maps of all. Here a band is read with as many rows around it as its last
layer sees, and they are computed again: a few rows of a hundred, and no copies. Transposed
convolutions, with the GELU behind them, are one fused operator; the other convolutions are the
device's library's, which no kernel of ours is quicker than.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..engine.maps import AnyMap
from ..engine.rows import convolve_band
from ..engine.tail import layer_stage
from . import operators
from .twins import pack_corners

Apply = Callable[[Tensor, bool, bool], Tensor]
"""Rows, and whether the image ends above and below them -> rows, where it does not without halo."""


@dataclass(frozen=True)
class Layer:
    """One layer on rows: its factor of enlargement, and the rows around it that it needs."""

    apply: Apply
    scale: int = 1
    halo: int = 0


def _convolution(layer: nn.Conv2d) -> Layer:
    weight = layer.weight.contiguous(memory_format=torch.channels_last)

    def apply(rows: Tensor, top: bool, bottom: bool) -> Tensor:
        return convolve_band(rows.to(weight.dtype), top, bottom, weight, layer.bias)

    return Layer(apply, halo=1)


def _transposed(layer: nn.ConvTranspose2d, gelu: bool) -> Layer:
    packed, bias = pack_corners(layer.weight), layer.get_parameter("bias")

    def apply(rows: Tensor, top: bool, bottom: bool) -> Tensor:
        place = rows.to(packed.dtype), int(not top), int(not bottom)
        return operators.corners(*place, layer.weight, packed, bias, gelu)

    return Layer(apply, scale=2, halo=1)


def tail_layers(layers: Sequence[nn.Module]) -> list[Layer]:
    """The layers of an upsampler, those merged that are computed together."""
    ordered = [layer for layer in layers if not isinstance(layer, nn.Identity)]
    made, index = [], 0
    while index < len(ordered):
        layer, behind = ordered[index], ordered[index + 1 : index + 2]
        if isinstance(layer, nn.Conv2d):
            made.append(_convolution(layer))
        elif isinstance(layer, nn.ConvTranspose2d) and layer.stride == (2, 2):
            gelu = bool(behind) and isinstance(behind[0], nn.GELU)
            made.append(_transposed(layer, gelu))
            index += int(gelu)
        elif isinstance(layer, nn.Upsample) and behind and isinstance(behind[0], nn.LeakyReLU):
            # before the enlargement there are fewer values
            made += [_pointwise(behind[0], 1), _pointwise(layer, _factor(layer))]
            index += 1
        else:
            made.append(_pointwise(layer, _factor(layer)))
        index += 1
    return made


def _factor(layer: nn.Module) -> int:
    if isinstance(layer, nn.PixelShuffle):
        return layer.upscale_factor
    if isinstance(layer, nn.Upsample):
        assert isinstance(layer.scale_factor, float), "one factor for both axes"
        return int(layer.scale_factor)
    return 3 if isinstance(layer, nn.ConvTranspose2d) else 1


def _pointwise(layer: nn.Module, scale: int) -> Layer:
    """A layer whose output rows depend on one input row only, as engine/tail.py computes it."""
    stage = layer_stage(layer)
    return Layer(lambda rows, top, bottom: stage(rows, bottom), scale)


def reach(layers: Sequence[Layer]) -> int:
    """Rows above and below on which a row of the last layer depends."""
    rows = 0
    for layer in reversed(layers):
        rows = -(-rows // layer.scale) + layer.halo
    return rows


def tail_rows(
    modules: Sequence[nn.Module],
    features: AnyMap,
    bands: Sequence[tuple[int, int]],
    dtype: torch.dtype,
) -> Iterator[Tensor]:
    """Yield for every band of the features its output rows: (h * scale, W * scale, num_out_ch)."""
    layers, height = tail_layers(modules), features.shape[0]
    around = reach(layers)
    ranges = [(max(0, start - around), min(height, stop + around)) for start, stop in bands]
    for (start, stop), (first, end), rows in zip(bands, ranges, features.read(ranges, dtype)):
        top, bottom = first == 0, end == height
        above, below = start - first, end - stop  # rows that are not this band's
        for layer in layers:
            rows = layer.apply(rows, top, bottom)
            above = (above - (0 if top else layer.halo)) * layer.scale
            below = (below - (0 if bottom else layer.halo)) * layer.scale
        yield rows[above : rows.shape[0] - below]
