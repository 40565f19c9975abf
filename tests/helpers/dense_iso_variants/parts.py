"""What several variants share: attention, layout changes, the block of the README in timm's
spelling."""

# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false,
# reportOptionalMemberAccess=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false,
# reportGeneralTypeIssues=false

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LN = nn.LayerNorm


def depthwise(c: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(c, c, 3, 1, 1, groups=c, bias=bias)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    b, n, c = q.shape
    q, k, v = (t.reshape(b, n, heads, c // heads).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(c // heads)).softmax(-1)
    return (weights @ v).transpose(1, 2).reshape(b, n, c)


def to_map(t: Tensor) -> Tensor:
    side = math.isqrt(t.shape[1])
    return t.transpose(1, 2).reshape(t.shape[0], -1, side, side)


def to_tokens(m: Tensor) -> Tensor:
    return m.flatten(2).transpose(1, 2)


def bilinear(x: Tensor, s: int, **kw) -> Tensor:
    return F.interpolate(
        x, scale_factor=s, mode="bilinear", align_corners=kw.get("align_corners", False)
    )


class TimmAttention(nn.Module):
    def __init__(self, dim, num_heads, bias=True):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, dim * 3, bias=bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        return self.proj(softmax_attention(*self.qkv(x).chunk(3, -1), self.num_heads))


class ReadmeGDFN(nn.Module):
    def __init__(self, embed_dim, hidden):
        super().__init__()
        self.g_proj = nn.Linear(embed_dim, 2 * hidden)
        self.path_1 = depthwise(hidden)
        self.path_2 = depthwise(hidden)
        self.out_proj = nn.Linear(hidden, embed_dim)

    def forward(self, x):
        a, b = to_map(self.g_proj(x)).chunk(2, 1)
        return self.out_proj(to_tokens(self.path_1(a) * F.gelu(self.path_2(b))))


class TransformerBlock(nn.Module):
    def __init__(self, d, heads, hidden):
        super().__init__()
        self.norm1 = LN(d)
        self.attn = TimmAttention(d, heads)
        self.norm2 = LN(d)
        self.gdfn = ReadmeGDFN(d, hidden)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.gdfn(self.norm2(x))


class LayerScale(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(c))

    def forward(self, x):
        return x * self.gamma
