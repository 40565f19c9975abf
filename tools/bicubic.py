"""MATLAB-style `imresize`: the bicubic degradation and baseline of the super-resolution literature.

It uses Keys' cubic convolution kernel (a = -0.5), widened by the factor when reducing
(antialiasing), and mirrors borders. Pillow and PyTorch differ at borders or in the kernel, so only
this one reproduces published figures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cubic_kernel(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """The kernel of Keys (1981) with a = -0.5."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resize_matrix(n_in: int, n_out: int, scale: float) -> NDArray[np.float64]:
    """Matrix (n_out, n_in) that resizes one axis by ``scale``."""
    stretch = min(scale, 1.0)
    reach = 2 / stretch
    centres = (np.arange(n_out) + 0.5) / scale - 0.5
    taps = np.floor(centres - reach).astype(int)[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)
    weights = cubic_kernel((centres[:, None] - taps) * stretch)
    weights /= weights.sum(1, keepdims=True)
    mirrored = np.mod(taps, 2 * n_in)
    mirrored = np.where(mirrored >= n_in, 2 * n_in - 1 - mirrored, mirrored)
    matrix = np.zeros((n_out, n_in))
    np.add.at(matrix, (np.arange(n_out)[:, None], mirrored), weights)
    return matrix


def imresize(image: NDArray, scale: float) -> NDArray:
    """Resize (H, W) or (H, W, C) by ``scale`` to ceil(H * scale) x ceil(W * scale).

    uint8 in, uint8 out (rounded, clipped); float in, float64 out.
    """
    height, width = image.shape[:2]
    rows = resize_matrix(height, int(np.ceil(height * scale - 1e-9)), scale)
    columns = resize_matrix(width, int(np.ceil(width * scale - 1e-9)), scale)
    resized = np.einsum("ij,j...->i...", rows, image.astype(np.float64), optimize=True)
    resized = np.moveaxis(np.tensordot(columns, resized, (1, 1)), 0, 1)
    return (
        np.clip(np.floor(resized + 0.5), 0, 255).astype(np.uint8)
        if image.dtype == np.uint8
        else resized
    )
