"""Numbers that are the same everywhere, for comparisons with networks that are not here.

`tests/arch/more/parity` holds what the authors' classes made of them: for every case the shapes of
the tensors, buffers that are no weights, and a sample of the result's values.
"""

from __future__ import annotations

import math
import zlib

import numpy
import torch
from torch import Tensor

SAMPLES = 64


def numbers(name: str, count: int) -> numpy.ndarray:
    """``count`` float64 in [-1, 1) that depend on ``name`` alone (SplitMix64)."""
    with numpy.errstate(over="ignore"):
        x = numpy.arange(1, count + 1, dtype=numpy.uint64) + (
            numpy.uint64(zlib.crc32(name.encode())) << numpy.uint64(32)
        )
        x *= numpy.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        x ^= x >> numpy.uint64(31)
    return (x >> numpy.uint64(11)).astype(numpy.float64) * 2.0**-52 - 1


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """Weights of unit gain, biases within 0.1, and other vectors around 0.5; float64."""
    values = torch.from_numpy(numbers(name, math.prod(shape))).reshape(shape)
    if name.endswith(("bias", "offset", "b0", "b1")):
        return 0.1 * values
    inputs = math.prod(shape[1:])
    if len(shape) < 2 or inputs == 1 or shape[0] == 1:
        return 0.5 + 0.25 * values
    return values * math.sqrt(3 / inputs)


def picture(shape: tuple[int, ...]) -> Tensor:
    """(B, C, H, W) float64 in [0, 1)."""
    return 0.5 + 0.5 * torch.from_numpy(numbers("picture", math.prod(shape))).reshape(shape)


def sample(result: Tensor) -> Tensor:
    """`SAMPLES` values of a result, anywhere in it."""
    places = numpy.floor((numbers("places", SAMPLES) + 1) / 2 * result.numel()).astype(numpy.int64)
    return result.flatten()[torch.from_numpy(places)]
