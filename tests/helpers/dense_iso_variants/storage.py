"""Dense-Iso-ViT as tensors are stored otherwise: reparametrised, beside buffers, without biases,
under odd names."""

# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false,
# reportOptionalMemberAccess=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false,
# reportGeneralTypeIssues=false

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from tests.helpers.dense_iso_variants.parts import (
    LN,
    TransformerBlock,
    bilinear,
    depthwise,
    softmax_attention,
    to_map,
    to_tokens,
)


# weight normalisation, as a parametrisation (original0, original1) or as weight_g and weight_v
class WeightNormed(nn.Module):
    def __init__(self, old=False):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wn = torch.nn.utils.weight_norm if old else weight_norm
            self.patch = wn(nn.Conv2d(3, 8, 4, 4))
            self.pos = nn.Parameter(torch.randn(1, 16, 8))
            self.one = nn.ModuleList([TransformerBlock(8, 2, 16)])
            self.two = nn.ModuleList([TransformerBlock(12, 2, 24)])
            self.middle = wn(nn.Linear(8, 12))
            self.head = nn.Sequential(
                wn(nn.Conv2d(20, 8, 3, 1, 1)),
                wn(nn.Conv2d(8, 128, 3, 1, 1)),
                nn.PixelShuffle(4),
                wn(nn.Conv2d(8, 48, 3, 1, 1)),
                nn.PixelShuffle(4),
            )

    def forward(self, x):
        a = self.one[0](to_tokens(self.patch(x)) + self.pos)
        b = self.two[0](self.middle(a))
        return self.head(to_map(torch.cat([a, b], -1))) + bilinear(x, 4)


# nn.MultiheadAttention without bias, positions (N, 1, C), buffers of integers that only describe
class SequenceFirstBlock(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(c, heads, bias=False)
        self.linear1, self.dw1, self.dw2 = nn.Linear(c, 2 * c), depthwise(c), depthwise(c)
        self.linear2 = nn.Linear(c, c)
        self.norm1, self.norm2 = LN(c), LN(c)
        self.register_buffer("num_batches_tracked", torch.tensor(7))

    def forward(self, t):  # (N, B, C)
        y = self.norm1(t)
        t = t + self.self_attn(y, y, y, need_weights=False)[0]
        a, b = to_map(self.linear1(self.norm2(t)).transpose(0, 1)).chunk(2, 1)
        return t + self.linear2(to_tokens(self.dw1(a) * F.gelu(self.dw2(b)))).transpose(0, 1)


class SequenceFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.tensor([16, 16]))
        self.register_buffer("scale_factor", torch.tensor(4, dtype=torch.uint8))
        self.register_buffer("trained", torch.tensor(True))
        self.input_proj = nn.Conv2d(3, 8, 4, 4)
        self.query_pos = nn.Parameter(torch.randn(16, 1, 8))
        self.encoder = nn.ModuleList(
            nn.ModuleDict({"layers": nn.ModuleList(SequenceFirstBlock(c, 4) for _ in range(2))})
            for c in (8, 12)
        )
        self.bridge = nn.Linear(8, 12)
        self.conv = nn.Sequential(
            nn.Conv2d(20, 8, 3, 1, 1), nn.Conv2d(8, 8 * 16, 3, 1, 1), nn.PixelShuffle(4)
        )
        self.conv_out = nn.Sequential(nn.Conv2d(8, 48, 3, 1, 1), nn.PixelShuffle(4))

    def forward(self, x):
        t = self.input_proj(x).flatten(2).permute(2, 0, 1) + self.query_pos
        for layer in self.encoder[0]["layers"]:
            t = layer(t)
        u = self.bridge(t)
        for layer in self.encoder[1]["layers"]:
            u = layer(u)
        return self.conv_out(self.conv(to_map(torch.cat((t, u), -1).transpose(0, 1)))) + bilinear(
            x, 4
        )


# names outside ASCII and of single letters; hidden = width, so that only order tells query from key
class OddNames(nn.Module):
    class Einheit(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.α, self.β = LN(c), LN(c)
            self.a, self.b, self.c, self.d = (nn.Linear(c, c) for _ in range(4))
            self.hinein, self.tiefe, self.heraus = (
                nn.Linear(c, 2 * c),
                depthwise(2 * c),
                nn.Linear(c, c),
            )

        def forward(self, x):
            y = self.α(x)
            x = x + self.d(softmax_attention(self.a(y), self.b(y), self.c(y), 2))
            u, v = self.tiefe(to_map(self.hinein(self.β(x)))).chunk(2, 1)
            return x + self.heraus(to_tokens(u * F.gelu(v)))

    def __init__(self):
        super().__init__()
        self.größe = nn.Conv2d(3, 8, 4, 4)
        self.位置 = nn.Parameter(torch.randn(1, 16, 8))
        self.段 = nn.ModuleList(
            nn.ModuleList([self.Einheit(c), self.Einheit(c)]) for c in (8, 12, 16)
        )
        self.橋 = nn.ModuleList([nn.Linear(8, 12), nn.Linear(12, 16)])
        self.頭 = nn.Sequential(
            nn.Conv2d(36, 8, 3, 1, 1), nn.Conv2d(8, 768, 3, 1, 1), nn.PixelShuffle(16)
        )

    def forward(self, x):
        t, outs = to_tokens(self.größe(x)) + self.位置, []
        for i, stage in enumerate(self.段):
            for unit in stage:
                t = unit(t)
            outs.append(t)
            t = self.橋[i](t) if i < 2 else t
        return self.頭(to_map(torch.cat(outs, -1))) + bilinear(x, 4)


# value range -1..1 seen by the network alone: the residual is added to the image in [0, 1]; bicubic
# skip
class PlainResidual(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, 8, 4, 4)
        self.row = nn.Parameter(torch.randn(1, 8, 4, 1))
        self.column = nn.Parameter(torch.randn(1, 8, 1, 4))
        self.block = nn.ModuleList([TransformerBlock(8, 2, 16)])
        self.act = nn.PReLU()
        self.up = nn.ModuleList(nn.Conv2d(8, 32, 3, 1, 1) for _ in range(3))
        self.up.append(nn.Conv2d(8, 12, 3, 1, 1))

    def forward(self, x):
        f = to_map(self.block[0](to_tokens(self.proj(x * 2 - 1) + self.row + self.column)))
        for conv in self.up[:3]:
            f = self.act(F.pixel_shuffle(conv(f), 2))
        skip = F.interpolate(x, scale_factor=4, mode="bicubic", align_corners=False)
        return F.pixel_shuffle(self.up[3](f), 2) + skip
