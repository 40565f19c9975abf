"""PSNR and SSIM as the super-resolution literature reports them.

On Y of YCbCr or on RGB, borders cropped by the scale. Also LPIPS (Zhang et al., 2018) where the
``lpips`` library is installed.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

from tools.alexnet import read_alexnet

logger = logging.getLogger(__name__)

BT601_Y = np.array([65.481, 128.553, 24.966]) / 255


def luma(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Y (H, W) in [16, 235] of RGB (H, W, 3), rounded like MATLAB's rgb2ycbcr of uint8.

    Grey images (H, W) are returned as they are.
    """
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
    """Structural similarity of (H, W) in [0, 255] (Wang et al., 2004).

    The window is Gaussian, of 11 pixels and sigma 1.5.
    """
    _, full = structural_similarity(  # type: ignore[misc]
        a,
        b,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return float(full[5:-5, 5:-5].mean())


def cropped(
    result: NDArray[np.uint8], truth: NDArray[np.uint8], scale: int
) -> tuple[NDArray, NDArray]:
    """Both pictures without a border of ``scale`` pixels."""
    if result.shape != truth.shape:
        raise ValueError(
            f"the result is {result.shape}, the ground truth {truth.shape}; they must have the same shape"
        )
    inner = (slice(scale, -scale), slice(scale, -scale))
    return result[inner], truth[inner]


def evaluate(
    result: NDArray[np.uint8], truth: NDArray[np.uint8], scale: int
) -> tuple[float, float]:
    """(PSNR, SSIM) on Y of two uint8 pictures of the same size, (H, W, 3) or grey (H, W)."""
    a, b = map(luma, cropped(result, truth, scale))
    return psnr(a, b), ssim(a, b)


def evaluate_rgb(
    result: NDArray[np.uint8], truth: NDArray[np.uint8], scale: int
) -> tuple[float, float]:
    """(PSNR, SSIM) over all colours of two uint8 pictures; SSIM is the mean over the colours."""
    a, b = (np.atleast_3d(image).astype(np.float64) for image in cropped(result, truth, scale))
    return psnr(a, b), float(np.mean([ssim(a[..., i], b[..., i]) for i in range(a.shape[2])]))


def load_lpips(
    package: Path | None = None,
) -> Callable[[NDArray[np.uint8], NDArray[np.uint8], int], float] | None:
    """LPIPS (AlexNet) as a function with the arguments of `evaluate_rgb`; lower is better.

    None if the library or its network is missing. At the first use the library fetches the weights
    of AlexNet from PyTorch's site, if they do not come from ``package`` (`tools.alexnet`).
    """
    if importlib.util.find_spec("lpips") is None:
        return None
    import lpips  # type: ignore[import-not-found]

    try:
        network = lpips.LPIPS(net="alex", pnet_rand=package is not None, verbose=False).eval()
    except OSError as error:  # also what urllib raises without a network
        logger.warning("LPIPS is left out, its network could not be loaded: %s", error)
        return None
    if package is not None:
        network.net.load_state_dict(read_alexnet(package))

    def distance(result: NDArray[np.uint8], truth: NDArray[np.uint8], scale: int) -> float:
        a, b = (_signed(image) for image in cropped(result, truth, scale))
        with torch.inference_mode():
            return float(network(a, b))

    return distance


def _signed(image: NDArray[np.uint8]) -> Tensor:
    """The picture as (1, 3, H, W) in [-1, 1]."""
    colours = torch.from_numpy(np.atleast_3d(image).astype(np.float32)).permute(2, 0, 1)[None]
    return colours.expand(1, 3, -1, -1) / 127.5 - 1
