"""Dense-Iso-ViT with plans of stages that shapes do not tell: equal widths, few transitions, norms
on some stages."""

# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false,
# reportOptionalMemberAccess=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false,
# reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.dense_iso_variants.parts import (
    LN,
    TransformerBlock,
    bilinear,
    depthwise,
    softmax_attention,
    to_map,
    to_tokens,
)


# one flat list of six blocks, six stages of one block each, all widths equal, no transition
class SixInARow(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.pos = nn.Parameter(torch.randn(1, 16, 8))
        self.blocks = nn.ModuleList(TransformerBlock(8, 2, 12) for _ in range(6))
        self.fuse = nn.Conv2d(48, 12, 1)
        self.up1 = nn.Conv2d(12, 12 * 16, 3, 1, 1)
        self.up2 = nn.Conv2d(12, 3 * 16, 3, 1, 1)

    def forward(self, x):
        t, outs = to_tokens(self.patch(x)) + self.pos, []
        for block in self.blocks:
            t = block(t)
            outs.append(t)
        f = F.pixel_shuffle(self.up1(self.fuse(to_map(torch.cat(outs, -1)))), 4)
        return F.pixel_shuffle(self.up2(f), 4) + bilinear(x, 4)


# a transition in every second place of equal widths, Identity in the others; norms after the second
# and the last stage
class SomeTransitions(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Sequential(nn.Conv2d(3, 12, 4, 4))
        self.pos_table = nn.Parameter(torch.randn(1, 16, 12))
        self.stages = nn.ModuleList(
            nn.Sequential(*[TransformerBlock(12, 3, 18)] * 1) for _ in range(4)
        )
        self.projections = nn.ModuleList([nn.Identity(), nn.Linear(12, 12), nn.Identity()])
        self.norms = nn.ModuleList([nn.Identity(), LN(12), nn.Identity(), LN(12)])
        self.reconstruction = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(48, 6, 3, 1, 1), nn.GELU()),
                nn.Sequential(nn.Conv2d(6, 96, 3, 1, 1)),
            ]
        )
        self.reconstruction.append(
            nn.ModuleList([nn.Sequential(nn.PixelShuffle(4), nn.Conv2d(6, 48, 3, 1, 1))])
        )

    def forward(self, x):
        t, outs = to_tokens(self.embedding(x)) + self.pos_table, []
        for i, stage in enumerate(self.stages):
            t = self.norms[i](stage(t))
            outs.append(t)
            t = self.projections[i](t) if i < 3 else t
        r = self.reconstruction
        f = r[2][0](r[1](r[0](to_map(torch.cat(outs, -1)))))
        return F.pixel_shuffle(f, 4) + bilinear(x, 4)


# equal widths without transitions, and a 1x1 convolution of the head that has a transition's shape
class PointwiseHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 2, 2)
        self.code = nn.Parameter(
            torch.randn(1, 16, 4, 4)
        )  # channels or grid first? both are 16 / 4 x 4
        self.level_1 = nn.ModuleList([TransformerBlock(16, 4, 24)])
        self.level_2 = nn.ModuleList([TransformerBlock(16, 4, 24)])
        self.head = nn.Sequential(
            nn.Conv2d(32, 16, 1),
            nn.Conv2d(16, 16, 1),
            nn.Conv2d(16, 3 * 64, 3, 1, 1),
            nn.PixelShuffle(8),
        )

    def forward(self, x):
        a = self.level_1[0](to_tokens(self.first(x) + self.code))
        b = self.level_2[0](a)
        return self.head(to_map(torch.cat([a, b], -1))) + bilinear(x, 4)


# a table of positions that has the shape of a transition (16 tokens of 16 channels), and no
# transition
class PositionLikeTransition(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, 4)
        self.pos_embed = nn.Parameter(torch.randn(16, 16))
        self.encoder1 = nn.Sequential(TransformerBlock(16, 2, 20), TransformerBlock(16, 2, 20))
        self.encoder2 = nn.Sequential(TransformerBlock(16, 2, 20), TransformerBlock(16, 2, 20))
        self.sr_head = nn.Module()
        self.sr_head.fusion = nn.Conv2d(32, 8, 3, 1, 1)
        self.sr_head.upsampler = nn.Conv2d(8, 8 * 64, 3, 1, 1)
        self.sr_head.to_rgb = nn.Conv2d(8, 12, 3, 1, 1)

    def forward(self, x):
        a = self.encoder1(to_tokens(self.embed(x)) + self.pos_embed)
        b = self.encoder2(a)
        h = self.sr_head
        f = F.pixel_shuffle(h.upsampler(h.fusion(to_map(torch.cat((a, b), -1)))), 8)
        return F.pixel_shuffle(h.to_rgb(f), 2) + bilinear(x, 4)


# a grid as wide as the channels, channels last: (1, 8, 8, 8); x2, patch 2, five stages, biases only
# in the last two
class WideGrid(nn.Module):
    class Unit(nn.Module):
        def __init__(self, c, heads, bias):
            super().__init__()
            self.heads = heads
            self.ln_attn, self.ln_mlp = LN(c), LN(c)
            self.attn_qkv, self.attn_out = (
                nn.Linear(c, 3 * c, bias=bias),
                nn.Linear(c, c, bias=bias),
            )
            self.mlp_up, self.mlp_down = (
                nn.Linear(c, 4 * c, bias=bias),
                nn.Linear(2 * c, c, bias=bias),
            )
            self.mlp_dw = depthwise(4 * c, bias)

        def forward(self, x):
            x = x + self.attn_out(
                softmax_attention(*self.attn_qkv(self.ln_attn(x)).chunk(3, -1), self.heads)
            )
            a, b = self.mlp_dw(to_map(self.mlp_up(self.ln_mlp(x)))).chunk(2, 1)
            return x + self.mlp_down(to_tokens(a * F.gelu(b)))

    def __init__(self, dims=(8, 8, 12, 12, 16)):
        super().__init__()
        self.pe = nn.Conv2d(3, 8, 2, 2)
        self.pos = nn.Parameter(torch.randn(1, 8, 8, 8))
        self.s = nn.ModuleList(nn.ModuleList([self.Unit(c, 2, i > 2)]) for i, c in enumerate(dims))
        self.t = nn.ModuleDict(
            {"1_2": nn.Linear(8, 12, bias=False), "3_4": nn.Linear(12, 16, bias=False)}
        )
        self.cat_conv = nn.Conv2d(sum(dims), 4, 3, 1, 1)
        self.ups = nn.ModuleList([nn.Conv2d(4, 16, 3, 1, 1), nn.Conv2d(4, 16, 3, 1, 1)])
        self.out_conv = nn.Conv2d(4, 3, 3, 1, 1)

    def forward(self, x):
        t, outs = to_tokens(self.pe(x)) + self.pos.flatten(1, 2), []
        for i, stage in enumerate(self.s):
            t = stage[0](t)
            outs.append(t)
            t = self.t[f"{i}_{i + 1}"](t) if f"{i}_{i + 1}" in self.t else t
        f = self.cat_conv(to_map(torch.cat(outs, -1)))
        for conv in self.ups:
            f = F.pixel_shuffle(conv(f), 2)
        return self.out_conv(f) + bilinear(x, 2)
