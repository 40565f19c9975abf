"""FDAT (FastDAT): the network, from its blocks to the whole.

Source: "DAT Inspired Lightweight Attention Network for Real World Image Super Resolution" by
sharekhan; reference implementations in traiNNer-redux (Apache-2.0) and spandrel >= 0.4.2 (MIT).
Written anew here; attribute names are kept because checkpoints carry them.

    image (B, 3, H, W) in [0, 1]
      -> [pixel unshuffle] -> conv_first            -> shallow features (B, C, H, W)
      -> groups: blocks on tokens (B, H, W, C), window and channel attention in turn; conv, + skip
      -> conv_after, + shallow                      -> upsampler -> (B, 3, H * scale, W * scale)

A block, with the norms n1 and n2:

    x += AIM(attention(n1 x), gelu(depthwise(n1 x)))
    x += fc2(depthwise(gelu(fc1(n2 x))))

Two parts see the whole image, so tiles change the result: the channel attention (its C x C logits
are sums over all tokens) and the average pool in AIM's channel gate.

Differences from spandrel 0.4.2: those of `Upsampler` (see upsampler.py); a ``conv`` that claims a
scale above 1 is read as the x1 network that it is; images smaller than the padding work;
``load_state_dict`` does not modify its argument.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.reflection import reflect
from ..contract import TileContract
from .config import PRESETS, FDATConfig
from .upsampler import Upsampler

TILE_OVERLAP = 32


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): in training, drops a branch for whole samples.

    The branches that remain are rescaled, so that their mean does not change.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * keep / (1 - self.rate)


def depthwise(dim: int) -> nn.Conv2d:
    """3x3 convolution of each channel by itself, (B, dim, H, W) -> (B, dim, H, W)."""
    return nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)


def convolve_tokens(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution to tokens (B, H, W, C), seen as a channels-last image without a copy."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class WindowAttention(nn.Module):
    """Attention inside windows aligned to the top left, with a learnt bias per pair of positions.

    The last windows are padded with zero tokens, which take part in the softmax as in training.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.bias = nn.Parameter(torch.empty(num_heads, window_size**2, window_size**2))
        nn.init.trunc_normal_(self.bias, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, dim = x.shape
        size, heads = self.window_size, self.num_heads
        x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
        rows, columns = x.shape[1] // size, x.shape[2] // size
        x = x.view(batch, rows, size, columns, size, dim).transpose(
            2, 3
        )  # (B, rows, columns, s, s, C)
        qkv = self.qkv(x.reshape(-1, size**2, dim))  # (windows, s*s, 3C)
        q, k, v = qkv.unflatten(-1, (3, heads, dim // heads)).permute(
            2, 0, 3, 1, 4
        )  # (windows, heads, s*s, c)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        x = self.proj(x.transpose(1, 2).reshape(-1, size**2, dim))  # (windows, s*s, C)
        x = x.view(batch, rows, columns, size, size, dim).transpose(2, 3)
        return x.reshape(batch, rows * size, columns * size, dim)[:, :height, :width]


class ChannelAttention(nn.Module):
    """Attention between channels (Zamir et al., Restormer, 2022).

    Its logits are sums over all tokens of the image.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.temp = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        dim = x.shape[-1]
        qkv = self.qkv(x).flatten(1, 2).unflatten(-1, (3, self.num_heads, dim // self.num_heads))
        q, k, v = qkv.permute(2, 0, 3, 4, 1)  # (B, heads, c, N)
        logits = (
            F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temp
        )  # (B, heads, c, c)
        mixed = logits.softmax(-1) @ v  # (B, heads, c, N)
        return self.proj(mixed.flatten(1, 2).transpose(1, 2)).view_as(x)


class AIM(nn.Module):
    """Attention interaction module: fuses the attention and the convolution branch by a gate.

    Spatial blocks scale the attention per channel (``cg``, from the mean of the convolution branch
    over the image); channel blocks scale the convolution per token (``sg``, from the attention).
    Every block has both gates and uses one.
    """

    def __init__(self, dim: int, reduction_ratio: int) -> None:
        super().__init__()
        self.sg = nn.Sequential(nn.Conv2d(dim, 1, 1, bias=False), nn.Sigmoid())
        self.cg = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(dim, dim // reduction_ratio, 1, bias=False),
            nn.GELU(),
            nn.Conv2d(dim // reduction_ratio, dim, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, attention: Tensor, convolution: Tensor, kind: str) -> Tensor:
        if kind == "spatial":
            # gate (B, 1, 1, C)
            return attention * convolve_tokens(self.cg, convolution) + convolution
        return attention + convolution * convolve_tokens(self.sg, attention)  # gate (B, H, W, 1)


class FeedForward(nn.Module):
    """Linear, GELU, depthwise 3x3, Linear."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim, bias=False)
        self.smix = depthwise(hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(convolve_tokens(self.smix, F.gelu(self.fc1(x))))


class DualPathBlock(nn.Module):
    """One dual-path block on tokens (B, H, W, C); ``kind`` is "spatial" or "channel"."""

    def __init__(self, config: FDATConfig, kind: str, drop_path: float) -> None:
        super().__init__()
        dim, heads = config.embed_dim, config.num_heads
        self.kind = kind
        self.n1 = nn.LayerNorm(dim)
        self.n2 = nn.LayerNorm(dim)
        self.attn = (
            WindowAttention(dim, heads, config.window_size)
            if kind == "spatial"
            else ChannelAttention(dim, heads)
        )
        self.conv = nn.Sequential(depthwise(dim), nn.GELU())
        self.inter = AIM(dim, config.aim_reduction_ratio)
        self.ffn = FeedForward(dim, config.ffn_dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        n1 = self.n1(x)
        x = x + self.drop_path(self.inter(self.attn(n1), convolve_tokens(self.conv, n1), self.kind))
        return x + self.drop_path(self.ffn(self.n2(x)))


class ResidualGroup(nn.Module):
    """Blocks on tokens, a 3x3 convolution, and a skip around both; features (B, C, H, W)."""

    def __init__(self, config: FDATConfig, drop_paths: list[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            DualPathBlock(config, kind, d) for kind, d in zip(config.blocks_per_group, drop_paths)
        )
        self.conv = nn.Conv2d(config.embed_dim, config.embed_dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1).contiguous()  # (B, H, W, C)
        for block in self.blocks:
            tokens = block(tokens)
        return self.conv(tokens.permute(0, 3, 1, 2)) + x


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (B, C, H, W) at the bottom and right by reflection, to a multiple of ``multiple``."""
    for dim in (2, 3):
        x = reflect(x, dim, 0, -x.shape[dim] % multiple)
    return x


class FDAT(nn.Module):
    """The network. It takes any H, W >= 1 in float64, float32, bfloat16 and float16.

    (B, num_in_ch, H, W) in [0, 1] -> (B, num_out_ch, H * scale, W * scale), not clamped.
    """

    def __init__(self, config: FDATConfig = PRESETS["medium"]) -> None:
        super().__init__()
        self.config = config
        dim, blocks = config.embed_dim, len(config.blocks_per_group)
        first = nn.Conv2d(config.num_in_ch * config.unshuffle**2, dim, 3, padding=1)
        self.conv_first = (
            nn.Sequential(nn.PixelUnshuffle(config.unshuffle), first)
            if config.unshuffle_mod
            else first
        )
        last = max(1, config.num_groups * blocks - 1)
        rates = [config.drop_path_rate * i / last for i in range(config.num_groups * blocks)]
        self.groups = nn.Sequential(
            *(
                ResidualGroup(config, rates[i * blocks : (i + 1) * blocks])
                for i in range(config.num_groups)
            )
        )
        self.conv_after = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.upsampler = Upsampler(
            config.upsampler_type, config.upsampler_scale, dim, config.num_out_ch, config.mid_dim
        )
        self.apply(self._init_weights)

    @staticmethod
    def _init_weights(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    @property
    def tile_contract(self) -> TileContract:
        """Tiles of any size. Tiles aligned to windows have the same windows as the whole image.

        Convolutions, windows and depthwise mixers all pad with zeros, which darkens the border of
        a flat white picture by 4 levels of 8 bit (bundled x2) and 9 (x4).
        """
        return TileContract(
            window=None,
            overlap=TILE_OVERLAP,
            alignment=self.config.window_size * self.config.unshuffle,
            network=self,
            mirror_borders=True,
        )

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] * self.config.scale, x.shape[3] * self.config.scale
        shallow = self.conv_first(pad_to_multiple(x, self.config.unshuffle))  # (B, C, H, W)
        deep = self.conv_after(self.groups(shallow))
        return self.upsampler(deep + shallow)[:, :, :height, :width]
