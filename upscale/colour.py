"""Colour consistency: gives the result the low-frequency colour of the input.

GAN-trained models shift it. The correction leaves detail untouched:

    result + enlarged(low_pass(input - reduced(result)))

The two low-pass filters are those that are in common use: "average" compares neighbourhood means,
"wavelet" the coarsest layer of an a-trous wavelet decomposition. StableSR
(https://arxiv.org/abs/2305.07015) decomposes the enlarged picture; here it is done at the input's
size, so that the reach does not depend on the scale.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .resize import enlarged_bands
from .seamless import Margins

AVERAGE_RADIUS = 16
"""Radius of a box filter in input pixels. It is run twice, which makes a tent of radius 32."""

WAVELET_LEVELS = 5
"""Dilations 1, 2, 4, 8, 16 of the kernel 1/4, 1/2, 1/4: 31 pixels to either side."""


REACH = 36
"""Pixels that the filters and the enlarging read to either side, rounded up."""

LEAST_WEIGHT = 1e-8
NO_MARGINS = Margins(0, 0)


def fix_colour_(
    result: Tensor,
    frame: Tensor,
    method: str,
    known: Tensor | None = None,
    margins: Margins = NO_MARGINS,
    rows: int = 64,
) -> None:
    """Correct ``result`` in place, in bands of ``rows`` input rows.

    Args:
        result: (H * scale, W * scale, C) in [0, 1].
        frame: (H, W, C), the input.
        method: "average" or "wavelet".
        known: (H, W) bool, where ``result`` is valid; other pixels are ignored. None: everywhere.
        margins: of ``frame``: what lies beyond a seam is taken from the opposite side.
    """
    scale = result.shape[0] // frame.shape[0]
    bands = [band.permute(2, 0, 1)[None] for band in result.split(rows * scale)]
    reduced = torch.cat([F.avg_pool2d(band, scale)[0] for band in bands], 1).permute(1, 2, 0)
    weight = torch.ones_like(frame[..., :1]) if known is None else known.to(frame)[..., None]
    shift = torch.cat([(frame - reduced) * weight, weight], -1)

    beyond = Margins(*(REACH if periodic else 0 for periodic in margins.wrap))
    wide = Margins(margins.rows + beyond.rows, margins.columns + beyond.columns, margins.periodic)
    smooth = {"average": average, "wavelet": wavelet}[method](
        wide.add(margins.crop(shift)).permute(2, 0, 1)
    )
    smooth = beyond.crop(smooth.permute(1, 2, 0)).permute(2, 0, 1)
    for band, correction in enlarged_bands(
        smooth[:-1] / smooth[-1:].clamp_min(LEAST_WEIGHT), scale, rows
    ):
        result[band] += correction
        result[band].clamp_(0, 1)


def average(planes: Tensor) -> Tensor:
    """Tent filter (C, H, W), zero beyond the borders."""
    for dim in (1, 2):
        for _ in range(2):
            planes = _box(planes, dim, AVERAGE_RADIUS)
    return planes


def wavelet(planes: Tensor) -> Tensor:
    """The coarsest layer of an a-trous decomposition of (C, H, W), zero beyond the borders."""
    for level in range(WAVELET_LEVELS):
        for dim in (1, 2):
            planes = _spread(planes, dim, 2**level)
    return planes


def _box(planes: Tensor, dim: int, radius: int) -> Tensor:
    """Mean of the 2 * radius + 1 neighbours along one axis, by running sums in float64."""
    length = planes.shape[dim]
    sums = F.pad(planes.movedim(dim, -1).double().cumsum(-1), (1, 0))
    position = torch.arange(length)
    first, last = (position - radius).clamp_min(0), (position + radius + 1).clamp_max(length)
    mean = (sums[..., last] - sums[..., first]) / (2 * radius + 1)
    return mean.to(planes.dtype).movedim(-1, dim)


def _spread(planes: Tensor, dim: int, step: int) -> Tensor:
    """The kernel 1/4, 1/2, 1/4 with ``step`` pixels between its taps, along one axis."""
    length = planes.shape[dim]
    result = planes / 2
    if step < length:
        result.narrow(dim, step, length - step).add_(
            planes.narrow(dim, 0, length - step), alpha=0.25
        )
        result.narrow(dim, 0, length - step).add_(
            planes.narrow(dim, step, length - step), alpha=0.25
        )
    return result
