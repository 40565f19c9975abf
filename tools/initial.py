"""Initialises networks as bicubic interpolation: minutes of training on one core then surpass it.

Both networks end in a 3x3 convolution to ``scale ** 2`` pixels per input pixel. Its input features
begin with copies of the image, shifted by -1, 0, 1 in both directions, and its kernels hold the
bicubic taps at -2..2 (the shift of a copy plus that of a kernel's tap). What the blocks add is zero
at first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT, TransformerBlock, Transition
from fdat_dense_iso.arch.fdat.network import FDAT
from tools.bicubic import cubic_kernel

RGB = 3
SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
COPIES = RGB * len(SHIFTS)
OFFSETS = np.arange(-2, 3)

Kernel = Callable[[NDArray[np.floating]], NDArray[np.floating]]


def phase_kernels(kernel: Kernel, scale: int) -> NDArray[np.float64]:
    """Weights (scale, scale, 5, 5) of the pixels at -2..2, for every output pixel of a pixel."""
    taps = np.stack([kernel((i + 0.5) / scale - 0.5 - OFFSETS) for i in range(scale)])
    return taps[:, None, :, None] * taps[None, :, None, :]


def linear_kernel(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """The kernel of bilinear interpolation."""
    return np.maximum(0.0, 1 - np.abs(x))


def set_phases(convolution: nn.Module, kernels: NDArray[np.float64]) -> None:
    """Make a 3x3 convolution compute `phase_kernels` from the shifted copies; set the rest to zero.

    Its outputs are RGB x scale x scale.
    """
    scale = kernels.shape[0]
    assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
    nn.init.zeros_(convolution.weight)
    nn.init.zeros_(convolution.bias)
    with torch.no_grad():
        for phase_y, phase_x, i, j in np.ndindex(*kernels.shape):
            y, x = OFFSETS[i], OFFSETS[j]
            copy_y, copy_x = int(np.clip(y, -1, 1)), int(np.clip(x, -1, 1))
            source = SHIFTS.index((copy_y, copy_x)) * RGB
            for colour in range(RGB):
                row = colour * scale**2 + phase_y * scale + phase_x
                place = convolution.weight[row, source + colour]
                place[1 + y - copy_y, 1 + x - copy_x] += float(kernels[phase_y, phase_x, i, j])


def fdat_as_bicubic(model: FDAT) -> None:
    """Make an untrained FDAT compute bicubic interpolation (away from the border).

    Its upsampler must be ``pixelshuffledirect``.
    """
    config = model.config
    if (
        config.upsampler_type != "pixelshuffledirect"
        or config.unshuffle_mod
        or config.num_in_ch != RGB
    ):
        raise ValueError(
            "a bicubic start needs an FDAT of RGB with pixelshuffledirect and without unshuffle"
        )
    if config.embed_dim < COPIES:
        raise ValueError(
            f"a bicubic start needs embed_dim of at least {COPIES}, not {config.embed_dim}"
        )
    nn.init.zeros_(model.conv_after.weight)
    first = model.conv_first
    assert isinstance(first, nn.Conv2d) and first.bias is not None
    with torch.no_grad():
        first.weight[:COPIES] = 0
        first.bias.zero_()
        for index, (dy, dx) in enumerate(SHIFTS):
            for colour in range(RGB):
                first.weight[index * RGB + colour, colour, 1 + dy, 1 + dx] = 1
    set_phases(model.upsampler[0], phase_kernels(cubic_kernel, config.scale))


def fdat_grown(model: FDAT, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a shallower FDAT, and those of ``model`` for the blocks and groups it lacks.

    A new block adds nothing at first, since what it adds to its tokens begins at zero; so does the
    convolution of a new group. ``model`` with these tensors computes what the shallower one did.
    """
    joins = ("attn.proj.weight", "attn.proj.bias", "conv.0.weight", "ffn.fc2.weight")
    grown = dict(weights)
    for name, tensor in model.state_dict().items():
        if name.startswith("groups.") and name not in weights:
            _, group, rest = name.split(".", 2)
            new_group = f"groups.{group}.conv.weight" not in weights
            joined = rest == "conv.weight" if new_group else rest.endswith(joins)
            grown[name] = torch.zeros_like(tensor) if joined else tensor
    return grown


def dense_iso_as_bicubic(model: DenseIsoViT) -> None:
    """Make an untrained Dense-Iso-ViT compute bicubic interpolation (away from the border).

    The head must be fusion, then one convolution that shuffles tokens back to pixels, then one to
    ``scale`` ** 2 times RGB. The copies are never negative, so leaky ReLUs don't change them.
    """
    config = model.config
    patch, pixels = config.patch_size, RGB * config.patch_size**2
    wide = config.dims[0] >= pixels and config.head[0].channels >= pixels
    if [layer.shuffle for layer in config.head] != [1, patch, config.scale] or not wide:
        raise ValueError(
            f"a bicubic start needs a head of fusion, PixelShuffle({patch}), PixelShuffle(scale)"
        )
    fusion, shuffle, last = model.head
    assert isinstance(fusion, nn.Conv2d) and isinstance(shuffle, nn.Conv2d)
    for module in model.modules():
        if isinstance(module, TransformerBlock):
            for layer in (module.attention.projection, module.gdfn.out_proj):
                assert layer is not None
                nn.init.zeros_(layer.weight)
        elif isinstance(module, Transition):
            nn.init.eye_(module.linear.weight)
    with torch.no_grad():
        if model.position_embedding is not None:
            model.position_embedding.zero_()
        _identity(model.patch_embedding.weight[:pixels].view(pixels, pixels))
        if model.patch_embedding.bias is not None:
            model.patch_embedding.bias[:pixels] = 0
        _identity(fusion.weight[:pixels], middle=fusion.weight.shape[-1] // 2)
        copies = shuffle.weight[: COPIES * patch**2].zero_()
        for index, (dy, dx) in enumerate(SHIFTS):
            for colour, y, x in np.ndindex(RGB, patch, patch):
                token_y, pixel_y = divmod(y + dy, patch)
                token_x, pixel_x = divmod(x + dx, patch)
                row = (index * RGB + colour) * patch**2 + y * patch + x
                copies[
                    row, (colour * patch + pixel_y) * patch + pixel_x, 1 + token_y, 1 + token_x
                ] = 1
    skip, wanted = (
        phase_kernels(linear_kernel, config.scale),
        phase_kernels(cubic_kernel, config.scale),
    )
    set_phases(last, wanted - skip)


def _identity(weight: Tensor, middle: int | None = None) -> None:
    """Make rows copy the first channels: rows of a matrix, or the middle taps of a convolution."""
    weight.zero_()
    matrix = weight if middle is None else weight[:, :, middle, middle]
    matrix.fill_diagonal_(1)
