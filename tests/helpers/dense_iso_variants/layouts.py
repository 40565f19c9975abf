"""Dense-Iso-ViT with modules nested, listed and ordered in unusual ways."""

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
    LayerScale,
    ReadmeGDFN,
    TimmAttention,
    TransformerBlock,
    bilinear,
    depthwise,
    softmax_attention,
    to_map,
    to_tokens,
)


# 7: transitions and norms inside the stages; norm only for the head
class StageWithEverything(nn.Module):
    def __init__(self, cin, c, heads, n):
        super().__init__()
        self.enter = nn.Linear(cin, c) if cin != c else nn.Identity()
        self.units = nn.ModuleList([TransformerBlock(c, heads, 2 * c) for _ in range(n)])
        self.out_norm = LN(c)

    def forward(self, x):
        x = self.enter(x)
        for u in self.units:
            x = u(x)
        return x, self.out_norm(x)


class InsideStages(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_embed = nn.Conv2d(3, 8, 4, 4)
        self.abs_pos = nn.Parameter(torch.randn(16, 8))
        self.layer1 = StageWithEverything(8, 8, 2, 2)
        self.layer2 = StageWithEverything(8, 12, 3, 2)
        self.layer3 = StageWithEverything(12, 16, 4, 1)
        self.merge = nn.Conv2d(36, 8, 3, 1, 1)
        self.shuffle1 = nn.Sequential(nn.Conv2d(8, 32, 3, 1, 1), nn.PixelShuffle(2))
        self.shuffle2 = nn.Sequential(nn.Conv2d(8, 32, 3, 1, 1), nn.PixelShuffle(2))
        self.shuffle3 = nn.Sequential(nn.Conv2d(8, 32, 3, 1, 1), nn.PixelShuffle(2))
        self.shuffle4 = nn.Sequential(nn.Conv2d(8, 12, 3, 1, 1), nn.PixelShuffle(2))

    def forward(self, x):
        t, a = self.layer1(to_tokens(self.conv_embed(x)) + self.abs_pos)
        t, b = self.layer2(t)
        _, c = self.layer3(t)
        f = F.silu(self.merge(to_map(torch.cat((a, b, c), -1))))
        return self.shuffle4(self.shuffle3(self.shuffle2(self.shuffle1(f)))) + bilinear(x, 4)


# 10: patch 2, flat names made by a loop, one stage deeper than the others
class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.plan = [(8, 2, 1), (12, 3, 2)]
        self.input_conv = nn.Conv2d(3, 8, 2, 2)
        self.position_code = nn.Parameter(torch.randn(1, 64, 8))
        for i, (c, _, n) in enumerate(self.plan):
            for j in range(n):
                p = f"s{i}_b{j}_"
                for name, module in {
                    "norm1": LN(c),
                    "attn_qkv": nn.Linear(c, 3 * c),
                    "attn_out": nn.Linear(c, c),
                    "norm2": LN(c),
                    "ffn_in": nn.Linear(c, 4 * c),
                    "ffn_dw1": depthwise(2 * c),
                    "ffn_dw2": depthwise(2 * c),
                    "ffn_out": nn.Linear(2 * c, c),
                }.items():
                    self.add_module(p + name, module)
        self.s0_to_s1 = nn.Linear(8, 12)
        self.fuse_conv = nn.Conv2d(20, 8, 3, 1, 1)
        self.up1_conv = nn.Conv2d(8, 32, 3, 1, 1)
        self.up2_conv = nn.Conv2d(8, 32, 3, 1, 1)
        self.up3_conv = nn.Conv2d(8, 32, 3, 1, 1)
        self.out_conv = nn.Conv2d(8, 3, 3, 1, 1)

    def forward(self, x):
        t, outs = to_tokens(self.input_conv(x)) + self.position_code, []
        for i, (_, h, n) in enumerate(self.plan):
            for j in range(n):
                m = lambda k, p=f"s{i}_b{j}_": getattr(self, p + k)  # noqa: E731
                t = t + m("attn_out")(
                    softmax_attention(*m("attn_qkv")(m("norm1")(t)).chunk(3, -1), h)
                )
                a, b = to_map(m("ffn_in")(m("norm2")(t))).chunk(2, 1)
                t = t + m("ffn_out")(to_tokens(m("ffn_dw1")(a) * F.gelu(m("ffn_dw2")(b))))
            outs.append(t)
            t = self.s0_to_s1(t) if i == 0 else t
        f = self.fuse_conv(to_map(torch.cat(outs, -1)))
        for c in (self.up1_conv, self.up2_conv, self.up3_conv):
            f = F.pixel_shuffle(c(f), 2)
        return self.out_conv(f) + bilinear(x, 4)


# 11: parallel lists: the parts of a block lie in different lists
class ParallelLists(nn.Module):
    def __init__(self):
        super().__init__()
        self.dims, self.n = (8, 12), 3
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.pos_embed = nn.Parameter(torch.randn(1, 16, 8))

        def make(f):
            rows = [nn.ModuleList([f(d) for _ in range(self.n)]) for d in self.dims]
            return nn.ModuleList(rows)

        self.attn_norms = make(LN)
        self.attns = make(lambda d: TimmAttention(d, 2))
        self.ffn_norms = make(LN)
        self.ffns = make(lambda d: ReadmeGDFN(d, 2 * d))
        self.connect = nn.Linear(8, 12)
        self.head = nn.Sequential(nn.Conv2d(20, 768, 3, 1, 1), nn.PixelShuffle(16))

    def forward(self, x):
        t, outs = to_tokens(self.embed(x)) + self.pos_embed, []
        for i in range(2):
            for j in range(self.n):
                t = t + self.attns[i][j](self.attn_norms[i][j](t))
                t = t + self.ffns[i][j](self.ffn_norms[i][j](t))
            outs.append(t)
            t = self.connect(t) if i == 0 else t
        return self.head(to_map(torch.cat(outs, -1))) + bilinear(x, 4)


# 17: everything defined in an unusual order, value before key before query, feed-forward before
# attention
class Backwards(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.heads = heads
        self.mlp_out = nn.Linear(c, c)
        self.mlp_depth = depthwise(2 * c)
        self.mlp_in = nn.Linear(c, 2 * c)
        self.attn_o = nn.Linear(c, c)
        self.attn_v = nn.Linear(c, c)
        self.attn_k = nn.Linear(c, c)
        self.attn_q = nn.Linear(c, c)
        self.mlp_norm = LN(c)
        self.attn_norm = LN(c)

    def forward(self, x):
        y = self.attn_norm(x)
        x = x + self.attn_o(
            softmax_attention(self.attn_q(y), self.attn_k(y), self.attn_v(y), self.heads)
        )
        a, b = self.mlp_depth(to_map(self.mlp_in(self.mlp_norm(x)))).chunk(2, 1)
        return x + self.mlp_out(to_tokens(a * F.gelu(b)))


class BackwardsNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.reconstruction = nn.Sequential(nn.Conv2d(28, 768, 1), nn.PixelShuffle(16))
        self.norm3 = LN(16)
        self.norm2 = LN(12)
        self.lin = nn.Linear(12, 16)
        self.two = nn.Sequential(Backwards(16, 4), Backwards(16, 4))
        self.one = nn.Sequential(Backwards(12, 2), Backwards(12, 2))
        self.pos = nn.Parameter(torch.randn(1, 16, 12))
        self.pe = nn.Conv2d(3, 12, 4, 4)

    def forward(self, x):
        a = self.norm2(self.one(to_tokens(self.pe(x)) + self.pos))
        b = self.norm3(self.two(self.lin(a)))
        return self.reconstruction(to_map(torch.cat((a, b), -1))) + bilinear(x, 4)


# 18: gate and value named, two projections in, biases only on the outside
class NamedGate(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.heads = heads
        self.rms_free_norm_first = LN(c)
        self.rms_free_norm_second = LN(c)
        self.selfAttention = nn.ModuleDict(
            {"inProj": nn.Linear(c, 3 * c), "outProj": nn.Linear(c, c)}
        )
        self.feedForward = nn.ModuleDict(
            {
                "valueProj": nn.Linear(c, 3 * c, bias=False),
                "gateProj": nn.Linear(c, 3 * c, bias=False),
                "valueConv": depthwise(3 * c, False),
                "gateConv": depthwise(3 * c, False),
                "mergeProj": nn.Linear(3 * c, c),
            }
        )

    def forward(self, x):
        f = self.feedForward
        x = x + self.selfAttention["outProj"](
            softmax_attention(
                *self.selfAttention["inProj"](self.rms_free_norm_first(x)).chunk(3, -1), self.heads
            )
        )
        y = self.rms_free_norm_second(x)
        return x + f["mergeProj"](
            to_tokens(
                f["valueConv"](to_map(f["valueProj"](y)))
                * F.gelu(f["gateConv"](to_map(f["gateProj"](y))))
            )
        )


class NamedGateNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Conv2d(3, 8, 8, 8)
        self.positions = nn.Parameter(torch.randn(1, 4, 4, 8))
        self.stageOne = nn.ModuleList([NamedGate(8, 2)])
        self.stageTwo = nn.ModuleList([NamedGate(12, 3)])
        self.stageThree = nn.ModuleList([NamedGate(16, 4)])
        self.shiftOne = nn.Linear(8, 12)
        self.shiftTwo = nn.Linear(12, 16)
        self.headConv = nn.Conv2d(36, 8, 3, 1, 1)
        self.upA = nn.Conv2d(8, 32, 3, 1, 1)
        self.upB = nn.Conv2d(8, 32, 3, 1, 1)
        self.upC = nn.Conv2d(8, 32, 3, 1, 1)
        self.upD = nn.Conv2d(8, 48 * 4, 3, 1, 1)

    def forward(self, x):
        a = self.stageOne[0](to_tokens(self.embedding(x)) + self.positions.flatten(1, 2))
        b = self.stageTwo[0](self.shiftOne(a))
        c = self.stageThree[0](self.shiftTwo(b))
        f = self.headConv(to_map(torch.cat((a, b, c), -1)))
        for u in (self.upA, self.upB, self.upC):
            f = F.pixel_shuffle(u(f), 2)
        return F.pixel_shuffle(self.upD(f), 8) + bilinear(x, 8)


# 19: one conv of attention maps (qkv and proj as 1x1 convolutions on the grid), layer scale modules
class GridBlock(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = LN(c)
        self.to_qkv = nn.Conv2d(c, 3 * c, 1)
        self.to_out = nn.Conv2d(c, c, 1)
        self.ls1 = LayerScale(c)
        self.norm2 = LN(c)
        self.pw1 = nn.Conv2d(c, 3 * c, 1)
        self.dw = depthwise(3 * c)
        self.pw2 = nn.Conv2d(3 * c // 2, c, 1)
        self.ls2 = LayerScale(c)

    def forward(self, x):
        q, k, v = (to_tokens(m) for m in self.to_qkv(to_map(self.norm1(x))).chunk(3, 1))
        x = x + self.ls1(to_tokens(self.to_out(to_map(softmax_attention(q, k, v, self.heads)))))
        a, b = self.dw(self.pw1(to_map(self.norm2(x)))).chunk(2, 1)
        return x + self.ls2(to_tokens(self.pw2(F.gelu(a) * b)))


class Grid(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.ModuleDict(
            {
                "in_conv": nn.Conv2d(3, 8, 4, 4),
                "level0": nn.Sequential(GridBlock(8, 2), GridBlock(8, 2)),
                "t0": nn.Conv2d(8, 12, 1),
                "level1": nn.Sequential(GridBlock(12, 2), GridBlock(12, 2)),
                "t1": nn.Conv2d(12, 20, 1),
                "level2": nn.Sequential(GridBlock(20, 2)),
            }
        )
        self.pos_embed = nn.Parameter(torch.randn(1, 16, 8))
        self.tail = nn.Sequential(
            nn.Conv2d(40, 8, 3, padding=1, bias=False),
            nn.Sequential(
                nn.Conv2d(8, 32, 3, padding=1, bias=False),
                nn.PixelShuffle(2),
                nn.Conv2d(8, 32, 3, padding=1, bias=False),
                nn.PixelShuffle(2),
            ),
            nn.Conv2d(8, 3, 3, padding=1, bias=False),
        )

    def forward(self, x):
        n = self.net
        a = n["level0"](to_tokens(n["in_conv"](x)) + self.pos_embed)
        b = n["level1"](to_tokens(n["t0"](to_map(a))))
        c = n["level2"](to_tokens(n["t1"](to_map(b))))
        return self.tail(to_map(torch.cat((a, b, c), -1))) + x
