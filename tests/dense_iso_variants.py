"""Dense-Iso-ViT as others might have written it: each variant with its own classes, names, layouts and equations.

None uses this project's network. `VARIANTS` maps a name to (constructor, options that tensors can't tell).
"""

# ruff: noqa: E501, RUF007
# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false

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
    return F.interpolate(x, scale_factor=s, mode="bilinear", align_corners=kw.get("align_corners", False))


# 1: timm spelling, the README's GDFN, biases everywhere
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


class TimmLike(nn.Module):
    def __init__(self, dims=(8, 12, 16), heads=(2, 3, 2), depth=2, ratio=4.0, width=6, norms=False, fuse=None, img=16):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dims[0], 4, 4)
        self.pos_embed = nn.Parameter(torch.zeros(1, (img // 4) ** 2, dims[0]))
        self.stages = nn.ModuleList(
            [
                nn.Sequential(*[TransformerBlock(d, h, int(d * ratio)) for _ in range(depth)])
                for d, h in zip(dims, heads)
            ]
        )
        self.norms = nn.ModuleList([LN(d) if norms else nn.Identity() for d in dims])
        self.proj = nn.ModuleList([nn.Linear(a, b) for a, b in zip(dims, dims[1:])])
        first = (
            [nn.Conv2d(sum(dims), width, 3, 1, 1)]
            if fuse is None
            else [nn.Conv2d(sum(dims), width, 1), nn.Conv2d(width, width, 3, 1, 1)]
        )
        ups = [m for _ in range(4) for m in (nn.Conv2d(width, width * 4, 3, 1, 1), nn.PixelShuffle(2))]
        self.head = nn.Sequential(*first, *ups, nn.Conv2d(width, 3, 3, 1, 1))

    def forward(self, x):
        t = to_tokens(self.patch_embed(x)) + self.pos_embed
        hs = []
        for i, stage in enumerate(self.stages):
            t = self.norms[i](stage(t))
            hs.append(t)
            if i < len(self.proj):
                t = self.proj[i](t)
        return self.head(to_map(torch.cat(hs, -1))) + bilinear(x, 4)


# 2: lucidrains spelling: PreNorm, to_q and to_kv, nested lists without names
class PreNorm(nn.Module):
    def __init__(self, dim, fn):
        super().__init__()
        self.norm = LN(dim)
        self.fn = fn

    def forward(self, x):
        return self.fn(self.norm(x))


class LucidAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, dim * 2, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(0.1))

    def forward(self, x):
        return self.to_out(softmax_attention(self.to_q(x), *self.to_kv(x).chunk(2, -1), self.heads))


class LucidFeedForward(nn.Module):
    def __init__(self, dim, mult):
        super().__init__()
        self.proj_in = nn.Linear(dim, dim * mult * 2)
        self.ds_conv = depthwise(dim * mult * 2)
        self.proj_out = nn.Linear(dim * mult, dim)

    def forward(self, x):
        v, g = self.ds_conv(to_map(self.proj_in(x))).chunk(2, 1)
        return self.proj_out(to_tokens(v * F.gelu(g)))


class Lucid(nn.Module):
    def __init__(self, dims=(8, 10), heads=(2, 5)):
        super().__init__()
        self.to_patch_embedding = nn.Sequential(nn.Conv2d(3, dims[0], 4, 4), nn.Identity())
        self.pos_embedding = nn.Parameter(torch.randn(1, 16, dims[0]))
        self.transformers = nn.ModuleList()
        for d, h in zip(dims, heads):
            self.transformers.append(
                nn.ModuleList(
                    [
                        nn.ModuleList([PreNorm(d, LucidAttention(d, h)), PreNorm(d, LucidFeedForward(d, 1))])
                        for _ in range(2)
                    ]
                )
            )
        self.widen = nn.Linear(*dims)
        self.to_pixels = nn.Sequential(nn.Conv2d(sum(dims), 3 * 16**2, 3, padding=1), nn.PixelShuffle(16))

    def forward(self, img):
        x = to_tokens(self.to_patch_embedding(img)) + self.pos_embedding
        outs = []
        for i, layers in enumerate(self.transformers):
            for attn, ff in layers:
                x = attn(x) + x
                x = ff(x) + x
            outs.append(x)
            if i == 0:
                x = self.widen(x)
        return self.to_pixels(to_map(torch.cat(outs, -1))) + bilinear(img, 4)


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
        self.body = nn.ModuleList([nn.ModuleList([SmallBlock(c, h, c) for _ in range(3)]) for c, h in zip(dims, heads)])
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


# 4: nn.MultiheadAttention
class TorchBlock(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.ln1 = LN(d)
        self.mha = nn.MultiheadAttention(d, heads, batch_first=True)
        self.ln2 = LN(d)
        self.ffn = nn.ModuleDict(
            {"inp": nn.Linear(d, 6 * d), "p1": depthwise(3 * d), "p2": depthwise(3 * d), "out": nn.Linear(3 * d, d)}
        )

    def forward(self, x):
        y = self.ln1(x)
        x = x + self.mha(y, y, y, need_weights=False)[0]
        a, b = to_map(self.ffn["inp"](self.ln2(x))).chunk(2, 1)
        return x + self.ffn["out"](to_tokens(self.ffn["p1"](a) * F.gelu(self.ffn["p2"](b))))


class TorchNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.register_buffer("pos", torch.randn(16, 8))
        self.enc1 = nn.Sequential(TorchBlock(8, 2), TorchBlock(8, 2))
        self.t12 = nn.Linear(8, 12)
        self.enc2 = nn.Sequential(TorchBlock(12, 4))
        self.t23 = nn.Linear(12, 16)
        self.enc3 = nn.Sequential(TorchBlock(16, 2), TorchBlock(16, 2), TorchBlock(16, 2))
        self.rec = nn.Sequential(
            nn.Conv2d(36, 12, 3, 1, 1),
            nn.GELU(),
            nn.Conv2d(12, 48, 3, 1, 1),
            nn.PixelShuffle(2),
            nn.GELU(),
            nn.Conv2d(12, 48, 3, 1, 1),
            nn.PixelShuffle(2),
            nn.GELU(),
            nn.Conv2d(12, 48 * 4, 3, 1, 1),
            nn.PixelShuffle(4),
            nn.GELU(),
            nn.Conv2d(12, 3, 3, 1, 1),
        )

    def forward(self, x):
        a = self.enc1(to_tokens(self.embed(x)) + self.pos)
        b = self.enc2(self.t12(a))
        c = self.enc3(self.t23(b))
        return self.rec(to_map(torch.cat((a, b, c), -1))) + bilinear(x, 4, align_corners=True)


# 5: Restormer's feed-forward (1x1 convolutions, one depthwise, first half gated), norms inside the branches
class MHSA(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.prenorm = LN(dim)
        self.wq = nn.Linear(dim, dim)
        self.wk = nn.Linear(dim, dim)
        self.wv = nn.Linear(dim, dim)
        self.wo = nn.Linear(dim, dim)

    def forward(self, x):
        y = self.prenorm(x)
        return x + self.wo(softmax_attention(self.wq(y), self.wk(y), self.wv(y), self.heads))


class ConvGate(nn.Module):
    def __init__(self, dim, factor):
        super().__init__()
        h = int(dim * factor)
        self.prenorm = LN(dim)
        self.project_in = nn.Conv2d(dim, h * 2, 1, bias=False)
        self.dwconv = depthwise(h * 2, False)
        self.project_out = nn.Conv2d(h, dim, 1, bias=False)

    def forward(self, x):
        x1, x2 = self.dwconv(self.project_in(to_map(self.prenorm(x)))).chunk(2, dim=1)
        return x + to_tokens(self.project_out(F.gelu(x1) * x2))


class Restormish(nn.Module):
    def __init__(self):
        super().__init__()
        self.patchify = nn.Conv2d(3, 12, 4, 4)
        self.position = nn.Parameter(torch.randn(1, 12, 4, 4))
        self.levels = nn.ModuleList(
            [
                nn.Sequential(*[nn.Sequential(MHSA(c, h), ConvGate(c, 2.5)) for _ in range(2)])
                for c, h in ((12, 3), (16, 4))
            ]
        )
        self.change = nn.Conv2d(12, 16, 1)
        self.fusion = nn.Conv2d(28, 10, 1)
        self.upsample = nn.Sequential(
            nn.Conv2d(10, 160, 3, 1, 1),
            nn.PixelShuffle(4),
            nn.LeakyReLU(0.2),
            nn.Conv2d(10, 160, 3, 1, 1),
            nn.PixelShuffle(4),
        )
        self.to_rgb = nn.Conv2d(10, 3, 3, 1, 1)

    def forward(self, x):
        a = self.levels[0](to_tokens(self.patchify(x) + self.position))
        b = self.levels[1](to_tokens(self.change(to_map(a))))
        return self.to_rgb(self.upsample(self.fusion(to_map(torch.cat([a, b], -1))))) + bilinear(x, 4)


# 6: layer scale, hidden width equal to the width (so that all linears look alike), sine-cosine buffer
class ScaledBlock(nn.Module):
    def __init__(self, w, heads):
        super().__init__()
        self.heads = heads
        self.gamma_1 = nn.Parameter(torch.rand(w))
        self.gamma_2 = nn.Parameter(torch.rand(w))
        self.norm_1 = LN(w, eps=1e-6)
        self.attention = nn.ModuleDict({k: nn.Linear(w, w) for k in ("q_proj", "k_proj", "v_proj", "o_proj")})
        self.norm_2 = LN(w, eps=1e-6)
        self.gdfn = nn.ModuleDict({"lift": nn.Linear(w, 2 * w), "dw": depthwise(2 * w), "drop": nn.Linear(w, w)})

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
        self.fuse = nn.Sequential(nn.Conv2d(18, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 1), nn.ReLU())
        self.up = nn.Sequential(
            *[
                m
                for i in range(4)
                for m in ([nn.Conv2d(6, 24, 3, 1, 1), nn.PixelShuffle(2)] + ([nn.ReLU()] if i < 3 else []))
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
        self.adapt = nn.ModuleDict({f"{i}to{i + 1}": nn.Linear(dims[i], dims[i + 1], bias=False) for i in range(3)})
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
                t = t + m("attn_out")(softmax_attention(*m("attn_qkv")(m("norm1")(t)).chunk(3, -1), h))
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
        make = lambda f: nn.ModuleList([nn.ModuleList([f(d) for _ in range(self.n)]) for d in self.dims])  # noqa: E731
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
            [nn.Conv2d(16, 6, 3, 1, 1)] + [nn.Conv2d(6, 24, 3, 1, 1) for _ in range(5)] + [nn.Conv2d(6, 3, 3, 1, 1)]
        )

    def forward(self, x):
        a = self.part0(to_tokens(self.pe(x)) + self.pp)
        b = self.part1(a)
        f = self.out[0](to_map(torch.cat((a, b), -1)))
        for c in self.out[1:-1]:
            f = F.pixel_shuffle(c(f), 2)
        return self.out[-1](f) + bilinear(x, 8)


# 14: HuggingFace spelling, keys without bias
class HFBlock(nn.Module):
    def __init__(self, c, heads, inter):
        super().__init__()
        self.heads = heads
        inner = nn.ModuleDict({"query": nn.Linear(c, c), "key": nn.Linear(c, c, bias=False), "value": nn.Linear(c, c)})
        self.attention = nn.ModuleDict({"attention": inner, "output": nn.ModuleDict({"dense": nn.Linear(c, c)})})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(c, 2 * inter), "depthwise": depthwise(2 * inter)})
        self.output = nn.ModuleDict({"dense": nn.Linear(inter, c)})
        self.layernorm_before = LN(c, eps=1e-12)
        self.layernorm_after = LN(c, eps=1e-12)

    def forward(self, x):
        y, a = self.layernorm_before(x), self.attention["attention"]
        x = x + self.attention["output"]["dense"](
            softmax_attention(a["query"](y), a["key"](y), a["value"](y), self.heads)
        )
        u, v = self.intermediate["depthwise"](to_map(self.intermediate["dense"](self.layernorm_after(x)))).chunk(2, 1)
        return x + self.output["dense"](to_tokens(u * F.gelu(v)))


class HuggingFace(nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "patch_embeddings": nn.ModuleDict({"projection": nn.Conv2d(3, 8, 4, 4)}),
                "norm": LN(8, eps=1e-12),
                "position_embeddings": nn.Embedding(16, 8),
            }
        )
        self.register_buffer("position_ids", torch.arange(16)[None])
        self.encoder = nn.ModuleDict(
            {
                "stages": nn.ModuleList(
                    [nn.ModuleDict({"layer": nn.ModuleList([HFBlock(c, 2, 3 * c) for _ in range(2)])}) for c in (8, 16)]
                ),
                "projections": nn.ModuleList([nn.Linear(8, 16)]),
            }
        )
        self.decode_head = nn.ModuleDict(
            {
                "conv_fuse": nn.Conv2d(24, 12, 1),
                "upscale": nn.Sequential(
                    nn.Conv2d(12, 12 * 16, 3, 1, 1),
                    nn.PixelShuffle(4),
                    nn.Conv2d(12, 12 * 16, 3, 1, 1),
                    nn.PixelShuffle(4),
                ),
                "final_conv": nn.Conv2d(12, 3, 3, 1, 1),
            }
        )

    def forward(self, pixel_values):
        e, outs = self.embeddings, []
        t = e["norm"](to_tokens(e["patch_embeddings"]["projection"](pixel_values))) + e["position_embeddings"](
            self.position_ids
        )
        for i, stage in enumerate(self.encoder["stages"]):
            for b in stage["layer"]:
                t = b(t)
            outs.append(t)
            t = self.encoder["projections"][0](t) if i == 0 else t
        h = self.decode_head
        return h["final_conv"](h["upscale"](F.gelu(h["conv_fuse"](to_map(torch.cat(outs, -1)))))) + bilinear(
            pixel_values, 4
        )


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
        self.ff = nn.ModuleList([nn.Linear(c, 4 * c), depthwise(2 * c), depthwise(2 * c), nn.Linear(2 * c, c)])

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.att["mixed"](self.pre_att(x)).view(b, n, self.heads, 3, c // self.heads).unbind(3)
        x = x + self.att["unify"](softmax_attention(q.flatten(2), k.flatten(2), v.flatten(2), self.heads))
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
        return (self.head3(F.pixel_shuffle(self.head2(F.pixel_shuffle(self.head1(f), 4)), 4)) + bilinear(x, 4) + 1) / 2


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


# 17: everything defined in an unusual order, value before key before query, feed-forward before attention
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
        x = x + self.attn_o(softmax_attention(self.attn_q(y), self.attn_k(y), self.attn_v(y), self.heads))
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
        self.selfAttention = nn.ModuleDict({"inProj": nn.Linear(c, 3 * c), "outProj": nn.Linear(c, c)})
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
            softmax_attention(*self.selfAttention["inProj"](self.rms_free_norm_first(x)).chunk(3, -1), self.heads)
        )
        y = self.rms_free_norm_second(x)
        return x + f["mergeProj"](
            to_tokens(f["valueConv"](to_map(f["valueProj"](y))) * F.gelu(f["gateConv"](to_map(f["gateProj"](y)))))
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
class LayerScale(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(c))

    def forward(self, x):
        return x * self.gamma


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


def published_first() -> nn.Module:
    return TimmLike((192, 256, 288, 384), (6, 8, 6, 8), 3, 4.0, 192, img=64)


def published_second() -> nn.Module:
    return TimmLike((192, 256, 288, 384), (6, 8, 6, 8), 3, 3.0, 256, norms=True, fuse="1x1", img=64)


VARIANTS = {
    "timm": (TimmLike, {"heads": (2, 3, 2)}),
    "timm with stage norms": (lambda: TimmLike(norms=True), {"heads": (2, 3, 2)}),
    "lucid": (Lucid, {"heads": (2, 5)}),
    "small sibling": (Small, {"heads": (4, 3, 5), "window": 16}),
    "MultiheadAttention": (TorchNet, {"heads": (2, 4, 2), "align_corners": True, "head_activation": "gelu"}),
    "Restormer": (Restormish, {"heads": (3, 4), "gated_half": "first", "head_activation": "none,leaky_relu_0.2,none,none"}),
    "layer scale": (Scaled, {"heads": (2, 2), "norm_eps": 1e-6}),
    "inside stages": (InsideStages, {"heads": (2, 3, 4), "stage_norm_routing": "head", "head_activation": "silu", "head_activation_place": "fusion"}),
    "final norm": (FinalNorm, {"heads": (1, 2), "head_activation": "relu,relu,relu,relu,relu,none,none"}),
    "x2": (TimesTwo, {"heads": 2, "window": 16, "head_activation": "leaky_relu_0.1", "head_activation_place": "shuffle"}),
    "flat names": (Flat, {"heads": (2, 3)}),
    "parallel lists": (ParallelLists, {"heads": (2, 2)}),
    "equal widths, x3": (EqualWidths, {"heads": (3, 3, 3)}),
    "no transitions, x8": (TimesEight, {"heads": (2, 2)}),
    "HuggingFace": (HuggingFace, {"heads": (2, 2), "norm_eps": 1e-12, "head_activation": "gelu", "head_activation_place": "fusion"}),
    "head by head": (HeadMajor, {"heads": (4, 3), "qkv_layout": "h3d", "value_range": "-1..1"}),
    "token fusion": (TokenFusion, {"heads": (2, 2), "head_activation": "leaky_relu_0.2", "head_activation_place": "between"}),
    "backwards": (BackwardsNet, {"heads": (2, 4)}),
    "named gate, patch 8": (NamedGateNet, {"heads": (2, 3, 4)}),
    "grid, x1": (Grid, {"heads": (2, 2, 2), "gated_half": "first"}),
    "one stage": (OneStage, {"heads": 4, "value_range": "0..255"}),
    "published, first reading": (published_first, {}),
    "published, second reading": (published_second, {}),
}  # fmt: skip


def build(name: str, seed: int = 0) -> tuple[nn.Module, dict]:
    """A variant in eval mode with random weights, and its options."""
    constructor, options = VARIANTS[name]
    torch.manual_seed(seed)
    module = constructor().eval()
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.randn_like(parameter) * 0.2 + (0 if key.endswith(("bias", "beta")) else 1))
            else:
                parameter.copy_(torch.randn_like(parameter) / math.sqrt(max(parameter[0].numel(), 1)))
    return module, options
