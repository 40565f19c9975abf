"""Resamples frames: bicubic, antialiased, RGBA with premultiplied colours.

Textures that must tile are resampled periodically.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor

from .channels import premultiply, unpremultiply_
from .seamless import extend

REACH = 3
"""Input pixels to either side that enlarging reads for an output pixel, rounded up."""


def resize(
    frame: Tensor, size: tuple[int, int], wrap: tuple[bool, bool] = (False, False)
) -> Tensor:
    """Resample (H, W, C) in [0, 1] to ``size`` = (height, width).

    ``wrap``: whether the frame continues periodically, vertically and horizontally; else the filter
        ends at its border.
    """
    if frame.shape[:2] == size:
        return frame
    source = premultiply(frame) if frame.shape[-1] == 4 else frame
    planes = source.permute(2, 0, 1)
    if any(wrap):
        for dim, length, periodic in zip((1, 2), size, wrap):
            planes = _resample_axis(planes, dim, length, periodic)
    else:
        planes = _interpolate(planes, size)
    result = planes.permute(1, 2, 0).clamp(0, 1).contiguous()
    if frame.shape[-1] == 4:
        unpremultiply_(result)
    return result


def enlarged_bands(planes: Tensor, scale: int, rows: int = 64) -> Iterator[tuple[slice, Tensor]]:
    """Enlarge (C, H, W) ``scale`` times, in bands of ``rows`` input rows from the top.

    Yields the slice of output rows, and the rows (h, W * scale, C), not clamped. The values are
    those of `resize` for the whole, but take the memory of one band only.
    """
    height = planes.shape[-2]
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        band = enlarged_rows(lambda a, b: planes[:, a:b], height, top, bottom, scale)
        yield slice(top * scale, bottom * scale), band


def enlarged_rows(
    read: Callable[[int, int], Tensor], height: int, top: int, bottom: int, scale: int
) -> Tensor:
    """What rows [top, bottom) of ``height`` become in a picture enlarged ``scale`` times.

    ``read(first, last)`` gives rows (C, last - first, W) -> (h * scale, W * scale, C), not clamped.
    """
    first, last = max(top - REACH, 0), min(bottom + REACH, height)
    band = read(first, last)
    if scale != 1:
        band = _interpolate(band, (band.shape[1] * scale, band.shape[2] * scale))
    return band[:, (top - first) * scale : (bottom - first) * scale].permute(1, 2, 0)


def _interpolate(planes: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(planes[None], size, mode="bicubic", antialias=True, align_corners=False)[0]


def _resample_axis(planes: Tensor, dim: int, length: int, periodic: bool) -> Tensor:
    """Resample (C, H, W) to ``length`` along one axis.

    A periodic axis is first continued by so many pixels that they become a whole number of output
    pixels. So the sampling positions stay those of the axis itself. Memory is bounded by working in
    bands of the other axis.
    """
    found, other = planes.shape[dim], 3 - dim
    if found == length:
        return planes
    if not periodic:
        size = (length, planes.shape[2]) if dim == 1 else (planes.shape[1], length)
        return _interpolate(planes, size)
    unit = found // math.gcd(found, length)
    margin = unit * math.ceil((REACH * max(found / length, 1) + 1) / unit)
    offset = margin * length // found
    shape = list(planes.shape)
    shape[dim] = length
    result = planes.new_empty(shape)
    for band, into in zip(planes.split(256, other), result.split(256, other)):
        size = list(band.shape)
        size[dim] = length + 2 * offset
        into.copy_(
            _interpolate(extend(band, dim, margin, True), (size[1], size[2])).narrow(
                dim, offset, length
            )
        )
    return result
