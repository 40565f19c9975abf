"""A block of Dense-Iso-ViT on a CPU with oneDNN: weights are packed once, GELU is fused.

GELU is computed within the depthwise convolution. The two halves of ``g_proj`` are two products
with outputs of their own, because cutting the halves out of one output would copy them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.attention import attend, prefers_products
from ...kernels.onednn import convolve_gelu
from ...kernels.products import Product
from ..network import GDFN, Attention, TransformerBlock

_OWN_LAYERS = (Attention, GDFN, nn.Linear, nn.Conv2d)


class PackedBlock:
    """Computes what a block computes, by packed copies of its weights. (B, N, C) -> (B, N, C)."""

    @staticmethod
    def suits(block: TransformerBlock) -> bool:
        """Whether the block has its original layers: none replaced by another kind, none hooked."""
        inner = [block.attention, block.gdfn, *block.attention.children(), *block.gdfn.children()]
        return all(
            type(module) in _OWN_LAYERS
            and not module._forward_hooks
            and not module._forward_pre_hooks
            for module in inner
        )

    def __init__(self, block: TransformerBlock) -> None:
        attention, gdfn = block.attention, block.gdfn
        self.norms = block.norm1, block.norm2
        self.layer_scales = block.layer_scale_1, block.layer_scale_2
        self.heads = attention.heads
        self.qkv = _packed(attention.qkv)
        self.projection = None if attention.projection is None else _packed(attention.projection)
        self.grid, self.gate_first = gdfn.grid, gdfn.gate_first
        self.halves = _halves(gdfn)
        self.paths = [(path.weight, path.bias) for path in (gdfn.path_1, gdfn.path_2)]
        self.out_proj = _packed(gdfn.out_proj)

    def __call__(self, x: Tensor) -> Tensor:
        for branch, norm, scale in zip(
            (self.attend, self.feed_forward), self.norms, self.layer_scales
        ):
            y = branch(norm(x))
            x = y.add_(x) if scale is None else torch.addcmul(x, scale, y)
        return x

    def attend(self, x: Tensor) -> Tensor:
        """`Attention.forward`."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, heads, C / heads)
        products = prefers_products(x.shape[1], x.dtype, x.device)
        x = attend(qkv, qkv.shape[-1] ** -0.5, products=products)  # (B, N, C)
        return x if self.projection is None else self.projection(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        """`GDFN.forward`."""
        mixed = []
        for half, path, gated in zip(
            self.halves, self.paths, (self.gate_first, not self.gate_first)
        ):
            image = (
                half(x).unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
            )  # (B, hidden, grid, grid)
            groups = image.shape[1]
            y = (
                convolve_gelu(image, *path, (1, 1), groups)
                if gated
                else F.conv2d(image, *path, padding=1, groups=groups)
            )
            mixed.append(y.permute(0, 2, 3, 1).flatten(1, 2))  # (B, N, hidden)
        return self.out_proj(mixed[0].mul_(mixed[1]))


def _packed(linear: nn.Linear) -> Product:
    return Product.of(linear.weight, linear.bias)


def _halves(gdfn: GDFN) -> list[Product]:
    weights = gdfn.g_proj.weight.chunk(2)
    biases = (None, None) if gdfn.g_proj.bias is None else gdfn.g_proj.bias.chunk(2)
    return [Product.of(weight, bias) for weight, bias in zip(weights, biases)]
