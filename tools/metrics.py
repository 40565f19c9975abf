"""PSNR and SSIM as the super-resolution literature reports them: on Y of YCbCr, borders cropped by the scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

BT601_Y = np.array([65.481, 128.553, 24.966]) / 255


def luma(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Y (H, W) in [16, 235] of RGB (H, W, 3), rounded as MATLAB's rgb2ycbcr of uint8 does; grey images pass through."""
    if image.ndim == 2:
        return image.astype(np.float64)
    return np.floor(16 + image.astype(np.float64) @ BT601_Y + 0.5)


def modcrop(image: NDArray, scale: int) -> NDArray:
    """Crop (H, W, ...) at the bottom and right to multiples of ``scale``."""
    return image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale]


def psnr(a: NDArray, b: NDArray, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB."""
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))


def ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Structural similarity of (H, W) in [0, 255]: Gaussian window of 11 pixels, sigma 1.5 (Wang et al., 2004)."""
    _, full = structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    return float(full[5:-5, 5:-5].mean())


def evaluate(result: NDArray[np.uint8], truth: NDArray[np.uint8], scale: int) -> tuple[float, float]:
    """(PSNR, SSIM) of two uint8 pictures of the same size."""
    if result.shape != truth.shape:
        raise ValueError(f"the result is {result.shape}, the ground truth {truth.shape}; they must have the same shape")
    crop = (slice(scale, -scale), slice(scale, -scale))
    a, b = luma(result)[crop], luma(truth)[crop]
    return psnr(a, b), ssim(a, b)
