"""FDAT's upsamplers, but the sampling ones, on bands that overlap.

In engine/tail.py a stage keeps the rows that it lacks, which joins every band to the rows before
it: a copy of the widest maps of all. Here a band is read with as many rows around it as its last
layer sees, and they are computed again: a few rows of a hundred, and no copies. A convolution is one
fused operator with the enlargement before it and the LeakyReLU and pixel shuffle behind it, and so
is a transposed one with its GELU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..engine.maps import AnyMap
from ..engine.tail import layer_stage
from . import operators
from .twins import pack_corners

Kind = TypeVar("Kind", bound=nn.Module)
Apply = Callable[[Tensor, bool, bool], Tensor]
"""Rows, and whether the image ends above and below them -> rows, where it does not without halo."""


@dataclass(frozen=True)
class Layer:
    """One layer on rows: its factor of enlargement, and the rows around it that it needs."""

    apply: Apply
    scale: int = 1
    halo: int = 0


def _convolution(layer: nn.Conv2d, enlarge: int = 1, slope: float = 1, shuffle: int = 1) -> Layer:
    weight = layer.weight.contiguous(memory_format=torch.channels_last)
    scale, outputs = enlarge * shuffle, layer.out_channels // shuffle**2
    how = enlarge, slope, shuffle

    def apply(rows: Tensor, top: bool, bottom: bool) -> Tensor:
        above, below = int(not top), int(not bottom)
        height, width = rows.shape[0] - above - below, rows.shape[1]
        out = rows.new_empty(height * scale, width * scale, outputs, dtype=weight.dtype)
        operators.convolve(rows, out, above, below, weight, layer.bias, None, *how)
        return out

    return Layer(apply, scale, halo=1)


def _transposed(layer: nn.ConvTranspose2d, gelu: bool) -> Layer:
    packed, bias = pack_corners(layer.weight), layer.get_parameter("bias")

    def apply(rows: Tensor, top: bool, bottom: bool) -> Tensor:
        place = rows.to(packed.dtype), int(not top), int(not bottom)
        return operators.corners(*place, layer.weight, packed, bias, gelu)

    return Layer(apply, scale=2, halo=1)


def tail_layers(layers: Sequence[nn.Module]) -> list[Layer]:
    """The layers of an upsampler, those merged that are computed together."""
    rest = [layer for layer in layers if not isinstance(layer, nn.Identity)]
    for index in range(len(rest) - 1):
        # LeakyReLU may as well come before the values are copied
        if isinstance(rest[index], nn.Upsample) and isinstance(rest[index + 1], nn.LeakyReLU):
            rest[index : index + 2] = rest[index + 1], rest[index]
    made = []
    while rest:
        layer = rest.pop(0)
        enlarge = 1
        if isinstance(layer, nn.Upsample) and rest and isinstance(rest[0], nn.Conv2d):
            enlarge, layer = _factor(layer), rest.pop(0)
        if isinstance(layer, nn.Conv2d):
            leaky, shuffle = _next(rest, nn.LeakyReLU), _next(rest, nn.PixelShuffle)
            slope = 1.0 if leaky is None else leaky.negative_slope
            made.append(
                _convolution(layer, enlarge, slope, 1 if shuffle is None else _factor(shuffle))
            )
        elif isinstance(layer, nn.ConvTranspose2d) and layer.stride == (2, 2):
            made.append(_transposed(layer, _next(rest, nn.GELU) is not None))
        else:
            made.append(_pointwise(layer, _factor(layer)))
    return made


def _next(rest: list[nn.Module], kind: type[Kind]) -> Kind | None:
    """Take the next layer away, if it is of this kind."""
    if rest and isinstance(rest[0], kind):
        return rest.pop(0)  # type: ignore[return-value]
    return None


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
