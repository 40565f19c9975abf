"""The shape of pictures whose pixels are not square: sizes of results, and the shape of theirs.

A target in pixels (`1920x1080`, `1920x`, `fit 1920x1080`) is measured on the picture as it is shown,
so that it gets square pixels where its sides allow them. Factors and megapixels are measured on the
stored pixels and keep their shape.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction
from typing import Any

from .source import VideoSource

logger = logging.getLogger(__name__)


def result_size(source: VideoSource, target: Any, scale: int) -> tuple[tuple[int, int], Any]:
    """Height and width of the result as displayed, and the target to upscale frames to.

    Args:
        target: an `upscale.Target`, or None for the model's own ``scale``. The one that is given
            back names both sides, if this one is in pixels.
    """
    height, width = source.size
    if target is None:
        return (height * scale, width * scale), None
    if target.width is None and target.height is None:
        return target.size(height, width), target
    turned = source.orientation.transposed
    aspect = 1 / source.pixel_aspect if turned else source.pixel_aspect
    shown = height, float(width * aspect)
    size = target.size(*shown)
    # other pixels get a shape that makes up for it
    if source.pixel_aspect == 1 and (said := target.stretching(*shown)):
        logger.warning("%s: %s", source, said)
    return size, replace(target, width=size[1], height=size[0], fit=False)


def result_aspect(source: tuple[int, int], aspect: Fraction, result: tuple[int, int]) -> Fraction:
    """The shape of the result's pixels (width / height) that keeps that of the picture.

    Sizes are height and width as stored. Square pixels stay square: other sides stretch then, as
    they do pictures. Of two shapes that differ by less than a pixel of a side, the simpler one is
    taken.
    """
    (height, width), (new_height, new_width) = source, result
    if aspect == 1:
        return aspect
    for simple in (aspect, Fraction(1)):
        expected = new_height * Fraction(width, height) * aspect / simple  # width of the result
        if abs(expected - new_width) < max(1, expected / new_height):
            return simple
    exact = aspect * Fraction(width, height) * Fraction(new_height, new_width)
    return exact.limit_denominator(1000)
