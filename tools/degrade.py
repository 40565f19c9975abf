"""Spoils pictures as cameras, programs and the web do, to train networks that undo it.

The scheme of two stages of Real-ESRGAN (Wang et al., 2021) with the shuffled order of BSRGAN (Zhang
et al., 2021): blur, resizing, noise and compression in random order, perhaps once more, then the
reduction to the final size, and the noise, sharpening and compression of the file that one meets. The
strengths are milder than theirs, after telephones and web pages rather than films from the
archives.

Pictures are float32 tensors (3, H, W) of sRGB in [0, 1]. All chance comes from the generator that
is passed in, so that the same seed gives the same picture.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tools.bicubic import imresize

GAMMA = 2.2
"""Between sRGB and linear light, closely enough for noise."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Strengths:
    """How far each step of a stage goes; a step that is not drawn is left out."""

    blur: float = 0.25
    """Probability of a blur, for each stage."""
    sigma: Range = (0.2, 1.0)
    """Pixels; each axis of a kernel is drawn for itself."""
    resize: float = 0.3
    factor: Range = (0.75, 1.2)
    noise: float = 0.5
    gaussian: Range = (1.0, 12.0)
    """Standard deviation in levels of 8 bit."""
    photons: Range = (150.0, 4000.0)
    """Photons that make white; their logarithm is drawn evenly."""
    read: Range = (0.0, 0.01)
    """Noise of the sensor's reading, in parts of white."""
    compress: float = 0.3
    quality: tuple[int, int] = (25, 92)
    second_stage: float = 0.15
    last_noise: float = 0.7
    sharpen: float = 0.25
    """Probability that a camera's program sharpens what it has, noise and all, before it compresses."""
    amount: Range = (0.2, 1.2)
    width: Range = (0.5, 1.6)
    """Pixels; sigma of what is taken for unsharp."""
    last_compress: float = 0.95


STRENGTHS = Strengths()


def blur_kernel(sigma_x: float, sigma_y: float, angle: float, exponent: float) -> Tensor:
    """A centred kernel (n, n), n odd, that sums to 1: a Gaussian of two axes, turned by ``angle``.

    ``exponent`` 1 is the Gaussian, less has longer tails and more a plateau (generalised Gaussian).
    """
    reach = int(np.ceil(3 * max(sigma_x, sigma_y))) or 1
    across = torch.arange(-reach, reach + 1, dtype=torch.float64)
    y, x = torch.meshgrid(across, across, indexing="ij")
    along = (x * np.cos(angle) + y * np.sin(angle)) / sigma_x
    aside = (y * np.cos(angle) - x * np.sin(angle)) / sigma_y
    kernel = torch.exp(-0.5 * (along**2 + aside**2) ** exponent)
    return (kernel / kernel.sum()).float()


def blur(image: Tensor, kernel: Tensor) -> Tensor:
    """The picture under the kernel; beyond its border it is continued by its outermost pixels."""
    reach = kernel.shape[-1] // 2
    padded = F.pad(image[None], (reach,) * 4, mode="replicate")
    return F.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)[0]


def resize(image: Tensor, size: tuple[int, int], kind: str) -> Tensor:
    """To (height, width) by "area", "bilinear" or "bicubic"; all but area widen when reducing."""
    options = {} if kind == "area" else {"antialias": True}
    return F.interpolate(image[None], size, mode=kind, **options)[0]


def gaussian_noise(image: Tensor, sigma: float, grey: bool, rng: np.random.Generator) -> Tensor:
    """Adds noise of ``sigma`` (parts of white) to every value, or to all colours of a pixel alike."""
    noise = rng.standard_normal((1 if grey else 3, *image.shape[1:]), dtype=np.float32)
    return image + sigma * torch.from_numpy(noise)


def sensor_noise(image: Tensor, photons: float, read: float, rng: np.random.Generator) -> Tensor:
    """Noise in linear light x of variance x / photons + read ** 2: counted light, and its reading."""
    light = image.clamp(0, 1).numpy().astype(np.float64) ** GAMMA
    light = rng.poisson(light * photons) / photons + read * rng.standard_normal(light.shape)
    return torch.from_numpy(np.clip(light, 0, None) ** (1 / GAMMA)).float()


def sharpen(image: Tensor, amount: float, sigma: float) -> Tensor:
    """Adds ``amount`` of what a Gaussian of ``sigma`` takes away: an unsharp mask."""
    return image + amount * (image - blur(image, blur_kernel(sigma, sigma, 0.0, 1.0)))


def compress(image: Tensor, kind: str, quality: int, subsampling: int = 2) -> Tensor:
    """Through a "JPEG" (``subsampling`` of colours as Pillow counts it) or a lossy "WEBP" file."""
    file = io.BytesIO()
    options = {"subsampling": subsampling} if kind == "JPEG" else {"method": 2}
    Image.fromarray(to_bytes(image)).save(file, kind, quality=quality, **options)
    return to_picture(np.asarray(Image.open(file).convert("RGB")))


def to_bytes(image: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) in [0, 1] as (H, W, 3) of 8 bit."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def to_picture(pixels: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) of 8 bit as (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


class Degradation:
    """Draws a way to spoil a picture, and goes it.

    Args:
        scale: by which the result is smaller.
        rng: source of random numbers.
        strengths: how much.
    """

    def __init__(
        self, scale: int, rng: np.random.Generator, strengths: Strengths = STRENGTHS
    ) -> None:
        self.scale, self.rng, self.strengths = scale, rng, strengths

    def __call__(self, high: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) to (H // scale, W // scale, 3); both cover the same field without a shift."""
        size = high.shape[0] // self.scale, high.shape[1] // self.scale
        image = to_picture(high)
        for _ in range(1 + self._happens(self.strengths.second_stage)):
            steps = [self._blur, self._resize, self._noise, self._compress]
            for index in self.rng.permutation(len(steps)):
                image = steps[index](image)
        if image.shape[1:] != size:
            image = self._to_size(image, size)
        return self.finish(image)

    def finish(self, image: Tensor) -> NDArray[np.uint8]:
        """The last noise, sharpening and compression of a picture of its final size; 8 bit."""
        if self._happens(self.strengths.last_noise):
            image = self._noise(image, always=True)
        if self._happens(self.strengths.sharpen):
            strength = self._between(self.strengths.amount), self._between(self.strengths.width)
            image = sharpen(image, *strength).clamp(0, 1)
        if self._happens(self.strengths.last_compress):
            image = self._compress(image, always=True)
        return to_bytes(image)

    def _happens(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def _between(self, bounds: Range) -> float:
        return float(self.rng.uniform(*bounds))

    def _blur(self, image: Tensor) -> Tensor:
        if not self._happens(self.strengths.blur):
            return image
        # A blur of the large picture counts for less after a reduction by 4 than by 2.
        wider = max(1.0, self.scale / 2)
        sigmas = [self._between(self.strengths.sigma) * wider for _ in range(2)]
        if self._happens(0.5):
            sigmas[1] = sigmas[0]
        exponent = self._between((0.5, 2.0)) if self._happens(0.3) else 1.0
        return blur(image, blur_kernel(*sigmas, self._between((0, np.pi)), exponent))

    def _resize(self, image: Tensor) -> Tensor:
        if not self._happens(self.strengths.resize):
            return image
        factor = self._between(self.strengths.factor)
        height, width = (max(8, round(side * factor)) for side in image.shape[1:])
        return self._to_size(image, (height, width))

    def _to_size(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        smaller = size[0] <= image.shape[1]
        kinds = ("area", "bilinear", "bicubic") if smaller else ("bilinear", "bicubic")
        return resize(image, size, kinds[self.rng.integers(len(kinds))]).clamp(0, 1)

    def _noise(self, image: Tensor, always: bool = False) -> Tensor:
        if not (always or self._happens(self.strengths.noise)):
            return image
        if self._happens(0.5):
            sigma = self._between(self.strengths.gaussian) / 255
            return gaussian_noise(image, sigma, self._happens(0.4), self.rng).clamp(0, 1)
        few, many = np.log(self.strengths.photons)
        photons = float(np.exp(self._between((few, many))))
        return sensor_noise(image, photons, self._between(self.strengths.read), self.rng).clamp(
            0, 1
        )

    def _compress(self, image: Tensor, always: bool = False) -> Tensor:
        if not (always or self._happens(self.strengths.compress)):
            return image
        low, high = self.strengths.quality
        kind = "WEBP" if self._happens(0.2) else "JPEG"
        subsampling = 2 if self._happens(0.8) else 0
        return compress(image, kind, int(self.rng.integers(low, high + 1)), subsampling)


def reduced(high: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """The clean reduction: MATLAB-style bicubic, 8 bit; the picture itself for scale 1."""
    return high if scale == 1 else imresize(high, 1 / scale)
