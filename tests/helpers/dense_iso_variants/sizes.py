"""Dense-Iso-ViT of other sizes, scales and heads, and with parts that others leave out."""

# ruff: noqa: RUF007
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


# 3: the smaller sibling: no output projection, no biases, separate query, key, value
class SmallBlock(nn.Module):
    def __init__(self, c, h, hid):
        super().__init__()
        self.h = h
        self.ln_a = LN(c)
        self.ln_b = LN(c)
        self.query = nn.Linear(c, c, bias=False)
        self.key = nn.Linear(c, c, bias=False)
        self.value = nn.Linear(c, c, bias=False)
        self.expand = nn.Linear(c, 2 * hid, bias=False)
        self.dw_a = depthwise(hid, False)
        self.dw_b = depthwise(hid, False)
        self.squeeze = nn.Linear(hid, c, bias=False)

    def forward(self, x):
        y = self.ln_a(x)
        x = x + softmax_attention(self.query(y), self.key(y), self.value(y), self.h)
        a, b = to_map(self.expand(self.ln_b(x))).chunk(2, 1)
        return x + self.squeeze(to_tokens(self.dw_a(a) * F.gelu(self.dw_b(b))))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        dims, heads = (8, 12, 20), (4, 3, 5)
        self.stem = nn.Conv2d(3, 8, 4, 4, bias=False)
        self.body = nn.ModuleList(
            [nn.ModuleList([SmallBlock(c, h, c) for _ in range(3)]) for c, h in zip(dims, heads)]
        )
        self.link = nn.ModuleList([nn.Linear(a, b, bias=False) for a, b in zip(dims, dims[1:])])
        self.fuse = nn.Conv2d(40, 16, 3, 1, 1)
        self.up = nn.ModuleList([nn.Conv2d(16, 64, 3, 1, 1) for _ in range(4)])
        self.last = nn.Conv2d(16, 3, 3, 1, 1)

    def forward(self, x):
        t, keep = to_tokens(self.stem(x)), []
        for i, blocks in enumerate(self.body):
            for b in blocks:
                t = b(t)
            keep.append(t)
            t = self.link[i](t) if i < 2 else t
        f = self.fuse(to_map(torch.cat(keep, 2)))
        for c in self.up:
            f = F.pixel_shuffle(c(f), 2)
        return self.last(f) + bilinear(x, 4)


# 6: layer scale, hidden width equal to the width (so that all linears look alike), sine-cosine
# buffer
class ScaledBlock(nn.Module):
    def __init__(self, w, heads):
        super().__init__()
        self.heads = heads
        self.gamma_1 = nn.Parameter(torch.rand(w))
        self.gamma_2 = nn.Parameter(torch.rand(w))
        self.norm_1 = LN(w, eps=1e-6)
        self.attention = nn.ModuleDict(
            {k: nn.Linear(w, w) for k in ("q_proj", "k_proj", "v_proj", "o_proj")}
        )
        self.norm_2 = LN(w, eps=1e-6)
        self.gdfn = nn.ModuleDict(
            {"lift": nn.Linear(w, 2 * w), "dw": depthwise(2 * w), "drop": nn.Linear(w, w)}
        )

    def forward(self, x):
        y, a, g = self.norm_1(x), self.attention, self.gdfn
        x = x + self.gamma_1 * a["o_proj"](
            softmax_attention(a["q_proj"](y), a["k_proj"](y), a["v_proj"](y), self.heads)
        )
        u, v = g["dw"](to_map(g["lift"](self.norm_2(x)))).chunk(2, 1)
        return x + self.gamma_2 * g["drop"](to_tokens(u * F.gelu(v)))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        angle = torch.arange(16)[:, None] / 10 ** (torch.arange(4) / 4)
        self.register_buffer("table", torch.cat([angle.sin(), angle.cos()], 1)[None])
        self.tokenizer = nn.Conv2d(3, 8, 4, 4)
        self.phase1 = nn.ModuleList([ScaledBlock(8, 2) for _ in range(2)])
        self.phase2 = nn.ModuleList([ScaledBlock(16, 2) for _ in range(2)])
        self.grow = nn.Linear(8, 16)
        self.decoder = nn.Sequential(
            nn.Conv2d(24, 8, 3, 1, 1),
            nn.Conv2d(8, 8 * 16, 3, 1, 1),
            nn.PixelShuffle(4),
            nn.Conv2d(8, 3 * 16, 3, 1, 1),
            nn.PixelShuffle(4),
        )

    def forward(self, x):
        t = to_tokens(self.tokenizer(x)) + self.table
        for b in self.phase1:
            t = b(t)
        u = self.grow(t)
        for b in self.phase2:
            u = b(u)
        return self.decoder(to_map(torch.cat((t, u), -1))) + bilinear(x, 4)


# 8: two convolutions of fusion, a final norm only, activation after fusion and between
class FinalNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj_in = nn.Conv2d(3, 8, 4, 4)
        self.pe = nn.Parameter(torch.randn(1, 16, 8))
        self.trunk = nn.ModuleDict(
            {
                "a": nn.Sequential(*[TransformerBlock(8, 1, 24) for _ in range(2)]),
                "b": nn.Sequential(*[TransformerBlock(10, 2, 30) for _ in range(2)]),
            }
        )
        self.bridge = nn.Linear(8, 10)
        self.norm_out = LN(10)
        self.fuse = nn.Sequential(
            nn.Conv2d(18, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 1), nn.ReLU()
        )
        self.up = nn.Sequential(
            *[
                m
                for i in range(4)
                for m in (
                    [nn.Conv2d(6, 24, 3, 1, 1), nn.PixelShuffle(2)] + ([nn.ReLU()] if i < 3 else [])
                )
            ]
        )
        self.tail = nn.Conv2d(6, 3, 3, 1, 1)

    def forward(self, x):
        a = self.trunk["a"](to_tokens(self.proj_in(x)) + self.pe)
        b = self.norm_out(self.trunk["b"](self.bridge(a)))
        return self.tail(self.up(self.fuse(to_map(torch.cat((a, b), -1))))) + bilinear(x, 4)


# 9: x2, patch 4, no position embedding, no qkv bias, four stages
class BareBlock(nn.Module):
    def __init__(self, c, nh):
        super().__init__()
        self.nh = nh
        self.n1 = LN(c)
        self.qkv_lin = nn.Linear(c, 3 * c, bias=False)
        self.merge_heads = nn.Linear(c, c)
        self.n2 = LN(c)
        self.w_in = nn.Linear(c, 3 * c)
        self.dw = depthwise(3 * c)
        self.w_out = nn.Linear(3 * c // 2, c)

    def forward(self, x):
        x = x + self.merge_heads(softmax_attention(*self.qkv_lin(self.n1(x)).chunk(3, -1), self.nh))
        a, b = self.dw(to_map(self.w_in(self.n2(x)))).chunk(2, 1)
        return x + self.w_out(to_tokens(a * F.gelu(b)))


class TimesTwo(nn.Module):
    def __init__(self):
        super().__init__()
        dims = (8, 12, 16, 20)
        self.patches = nn.Conv2d(3, 8, 4, 4, bias=False)
        self.blocks = nn.ModuleList([BareBlock(d, 2) for d in dims for _ in range(2)])
        self.adapt = nn.ModuleDict(
            {f"{i}to{i + 1}": nn.Linear(dims[i], dims[i + 1], bias=False) for i in range(3)}
        )
        self.mix = nn.Conv2d(56, 14, 3, 1, 1)
        self.px1 = nn.Conv2d(14, 48, 3, 1, 1)
        self.px2 = nn.Conv2d(12, 40, 3, 1, 1)
        self.px3 = nn.Conv2d(10, 24, 3, 1, 1)
        self.rgb = nn.Conv2d(6, 3, 5, 1, 2)

    def forward(self, x):
        t, outs = to_tokens(self.patches(x)), []
        for i, b in enumerate(self.blocks):
            t = b(t)
            if i % 2:
                outs.append(t)
                t = self.adapt[f"{i // 2}to{i // 2 + 1}"](t) if i < 7 else t
        f = self.mix(to_map(torch.cat(outs, -1)))
        for c in (self.px1, self.px2, self.px3):
            f = F.pixel_shuffle(F.leaky_relu(c(f), 0.1), 2)
        return self.rgb(f) + bilinear(x, 2)


# 12: equal widths, transitions of equal widths, x3
class EqualWidths(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.pos = nn.Parameter(torch.randn(1, 16, 12))
        self.stage_list = nn.ModuleList(
            [
                nn.ModuleDict(
                    {
                        "blocks": nn.Sequential(*[TransformerBlock(12, 3, 18) for _ in range(n)]),
                        "next": nn.Linear(12, 12),
                    }
                )
                for n in (1, 2)
            ]
            + [nn.ModuleDict({"blocks": nn.Sequential(TransformerBlock(12, 3, 18))})]
        )
        self.sr = nn.Sequential(
            nn.Conv2d(36, 16, 3, 1, 1),
            nn.Conv2d(16, 16 * 9, 3, 1, 1),
            nn.PixelShuffle(3),
            nn.Conv2d(16, 16 * 4, 3, 1, 1),
            nn.PixelShuffle(2),
            nn.Conv2d(16, 12, 3, 1, 1),
            nn.PixelShuffle(2),
        )

    def forward(self, x):
        t, outs = to_tokens(self.patch(x)) + self.pos, []
        for stage in self.stage_list:
            t = stage["blocks"](t)
            outs.append(t)
            t = stage["next"](t) if "next" in stage else t
        return self.sr(to_map(torch.cat(outs, -1))) + bilinear(x, 3)


# 13: x8, equal widths without any transition
class TimesEight(nn.Module):
    def __init__(self):
        super().__init__()
        self.pe = nn.Conv2d(3, 8, 4, 4)
        self.pp = nn.Parameter(torch.randn(1, 16, 8))
        self.part0 = nn.Sequential(TransformerBlock(8, 2, 8), TransformerBlock(8, 2, 8))
        self.part1 = nn.Sequential(TransformerBlock(8, 2, 8), TransformerBlock(8, 2, 8))
        self.out = nn.ModuleList(
            [nn.Conv2d(16, 6, 3, 1, 1)]
            + [nn.Conv2d(6, 24, 3, 1, 1) for _ in range(5)]
            + [nn.Conv2d(6, 3, 3, 1, 1)]
        )

    def forward(self, x):
        a = self.part0(to_tokens(self.pe(x)) + self.pp)
        b = self.part1(a)
        f = self.out[0](to_map(torch.cat((a, b), -1)))
        for c in self.out[1:-1]:
            f = F.pixel_shuffle(c(f), 2)
        return self.out[-1](f) + bilinear(x, 8)


# 15: hand-written norm (gamma, beta), qkv stored head by head, signed value range
class HandNorm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(c))
        self.beta = nn.Parameter(torch.zeros(c))

    def forward(self, x):
        d = x - x.mean(-1, keepdim=True)
        return d / (d.square().mean(-1, keepdim=True) + 1e-5).sqrt() * self.gamma + self.beta


class HeadMajorBlock(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.heads = heads
        self.pre_att = HandNorm(c)
        self.att = nn.ModuleDict({"mixed": nn.Linear(c, 3 * c), "unify": nn.Linear(c, c)})
        self.pre_ff = HandNorm(c)
        self.ff = nn.ModuleList(
            [nn.Linear(c, 4 * c), depthwise(2 * c), depthwise(2 * c), nn.Linear(2 * c, c)]
        )

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = (
            self.att["mixed"](self.pre_att(x)).view(b, n, self.heads, 3, c // self.heads).unbind(3)
        )
        x = x + self.att["unify"](
            softmax_attention(q.flatten(2), k.flatten(2), v.flatten(2), self.heads)
        )
        a, g = to_map(self.ff[0](self.pre_ff(x))).chunk(2, 1)
        return x + self.ff[3](to_tokens(self.ff[1](a) * F.gelu(self.ff[2](g))))


class HeadMajor(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 4, 4)
        self.learned = nn.Parameter(torch.randn(1, 16, 8))
        self.g1 = nn.Sequential(*[HeadMajorBlock(8, 4) for _ in range(2)])
        self.g2 = nn.Sequential(*[HeadMajorBlock(12, 3) for _ in range(2)])
        self.reproject = nn.Sequential(LN(8), nn.Linear(8, 12))
        self.cat_norm = LN(20)
        self.head0 = nn.Conv2d(20, 8, 3, 1, 1)
        self.head1 = nn.Conv2d(8, 128, 3, 1, 1)
        self.head2 = nn.Conv2d(8, 128, 3, 1, 1)
        self.head3 = nn.Conv2d(8, 3, 3, 1, 1)

    def forward(self, x):
        x = x * 2 - 1
        a = self.g1(to_tokens(self.first(x)) + self.learned)
        b = self.g2(self.reproject(a))
        f = self.head0(to_map(self.cat_norm(torch.cat((a, b), -1))))
        return (
            self.head3(F.pixel_shuffle(self.head2(F.pixel_shuffle(self.head1(f), 4)), 4))
            + bilinear(x, 4)
            + 1
        ) / 2


# 16: widths of the head fall, the fusion is a Linear on tokens, activations between
class TokenFusion(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok = nn.Conv2d(3, 8, 4, 4)
        self.pos_emb = nn.Parameter(torch.randn(1, 16, 8))
        self.stage_a = nn.ModuleList([TransformerBlock(8, 2, 20), TransformerBlock(8, 2, 20)])
        self.stage_b = nn.ModuleList([TransformerBlock(10, 2, 25), TransformerBlock(10, 2, 25)])
        self.a_to_b = nn.Linear(8, 10)
        self.dense = nn.Linear(18, 16)
        self.c1 = nn.Conv2d(16, 48, 3, 1, 1)
        self.c2 = nn.Conv2d(12, 40, 3, 1, 1)
        self.c3 = nn.Conv2d(10, 32, 3, 1, 1)
        self.c4 = nn.Conv2d(8, 24, 3, 1, 1)
        self.c5 = nn.Conv2d(6, 3, 3, 1, 1)

    def forward(self, x):
        t = to_tokens(self.tok(x)) + self.pos_emb
        for b in self.stage_a:
            t = b(t)
        u = self.a_to_b(t)
        for b in self.stage_b:
            u = b(u)
        f = to_map(self.dense(torch.cat((t, u), -1)))
        for c in (self.c1, self.c2, self.c3):
            f = F.leaky_relu(F.pixel_shuffle(c(f), 2), 0.2)
        return self.c5(F.pixel_shuffle(self.c4(f), 2)) + bilinear(x, 4)


# 20: one stage only, byte range
class OneStage(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 4, 4)
        self.pos = nn.Parameter(torch.randn(1, 16, 16))
        self.layers = nn.ModuleList([TransformerBlock(16, 4, 32) for _ in range(11)])
        self.norm = LN(16)
        self.upsampler = nn.Sequential(nn.Conv2d(16, 768, 3, 1, 1), nn.PixelShuffle(16))

    def forward(self, x):
        x = x * 255
        t = to_tokens(self.conv(x)) + self.pos
        for b in self.layers:
            t = b(t)
        return (self.upsampler(to_map(self.norm(t))) + bilinear(x, 4)) / 255
