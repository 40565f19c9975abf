"""Dense-Iso-ViT as others might have written it: each variant with its own classes, names, layouts and equations.

None uses this project's network. `VARIANTS` maps a name to (constructor, options that tensors can't tell).
"""

# ruff: noqa: E501, RUF007
# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false

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
    def __init__(s, dim, num_heads, bias=True):
        super().__init__()
        s.num_heads = num_heads
        s.qkv = nn.Linear(dim, dim * 3, bias=bias)
        s.proj = nn.Linear(dim, dim)

    def forward(s, x):
        return s.proj(softmax_attention(*s.qkv(x).chunk(3, -1), s.num_heads))


class ReadmeGDFN(nn.Module):
    def __init__(s, embed_dim, hidden):
        super().__init__()
        s.g_proj = nn.Linear(embed_dim, 2 * hidden)
        s.path_1 = depthwise(hidden)
        s.path_2 = depthwise(hidden)
        s.out_proj = nn.Linear(hidden, embed_dim)

    def forward(s, x):
        a, b = to_map(s.g_proj(x)).chunk(2, 1)
        return s.out_proj(to_tokens(s.path_1(a) * F.gelu(s.path_2(b))))


class TransformerBlock(nn.Module):
    def __init__(s, d, heads, hidden):
        super().__init__()
        s.norm1 = LN(d)
        s.attn = TimmAttention(d, heads)
        s.norm2 = LN(d)
        s.gdfn = ReadmeGDFN(d, hidden)

    def forward(s, x):
        x = x + s.attn(s.norm1(x))
        return x + s.gdfn(s.norm2(x))


class TimmLike(nn.Module):
    def __init__(s, dims=(8, 12, 16), heads=(2, 3, 2), depth=2, ratio=4.0, width=6, norms=False, fuse=None, img=16):
        super().__init__()
        s.patch_embed = nn.Conv2d(3, dims[0], 4, 4)
        s.pos_embed = nn.Parameter(torch.zeros(1, (img // 4) ** 2, dims[0]))
        s.stages = nn.ModuleList(
            [
                nn.Sequential(*[TransformerBlock(d, h, int(d * ratio)) for _ in range(depth)])
                for d, h in zip(dims, heads)
            ]
        )
        s.norms = nn.ModuleList([LN(d) if norms else nn.Identity() for d in dims])
        s.proj = nn.ModuleList([nn.Linear(a, b) for a, b in zip(dims, dims[1:])])
        first = (
            [nn.Conv2d(sum(dims), width, 3, 1, 1)]
            if fuse is None
            else [nn.Conv2d(sum(dims), width, 1), nn.Conv2d(width, width, 3, 1, 1)]
        )
        ups = [m for _ in range(4) for m in (nn.Conv2d(width, width * 4, 3, 1, 1), nn.PixelShuffle(2))]
        s.head = nn.Sequential(*first, *ups, nn.Conv2d(width, 3, 3, 1, 1))

    def forward(s, x):
        t = to_tokens(s.patch_embed(x)) + s.pos_embed
        hs = []
        for i, stage in enumerate(s.stages):
            t = s.norms[i](stage(t))
            hs.append(t)
            if i < len(s.proj):
                t = s.proj[i](t)
        return s.head(to_map(torch.cat(hs, -1))) + bilinear(x, 4)


# 2: lucidrains spelling: PreNorm, to_q and to_kv, nested lists without names
class PreNorm(nn.Module):
    def __init__(s, dim, fn):
        super().__init__()
        s.norm = LN(dim)
        s.fn = fn

    def forward(s, x):
        return s.fn(s.norm(x))


class LucidAttention(nn.Module):
    def __init__(s, dim, heads):
        super().__init__()
        s.heads = heads
        s.to_q = nn.Linear(dim, dim, bias=False)
        s.to_kv = nn.Linear(dim, dim * 2, bias=False)
        s.to_out = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(0.1))

    def forward(s, x):
        return s.to_out(softmax_attention(s.to_q(x), *s.to_kv(x).chunk(2, -1), s.heads))


class LucidFeedForward(nn.Module):
    def __init__(s, dim, mult):
        super().__init__()
        s.proj_in = nn.Linear(dim, dim * mult * 2)
        s.ds_conv = depthwise(dim * mult * 2)
        s.proj_out = nn.Linear(dim * mult, dim)

    def forward(s, x):
        v, g = s.ds_conv(to_map(s.proj_in(x))).chunk(2, 1)
        return s.proj_out(to_tokens(v * F.gelu(g)))


class Lucid(nn.Module):
    def __init__(s, dims=(8, 10), heads=(2, 5)):
        super().__init__()
        s.to_patch_embedding = nn.Sequential(nn.Conv2d(3, dims[0], 4, 4), nn.Identity())
        s.pos_embedding = nn.Parameter(torch.randn(1, 16, dims[0]))
        s.transformers = nn.ModuleList()
        for d, h in zip(dims, heads):
            s.transformers.append(
                nn.ModuleList(
                    [
                        nn.ModuleList([PreNorm(d, LucidAttention(d, h)), PreNorm(d, LucidFeedForward(d, 1))])
                        for _ in range(2)
                    ]
                )
            )
        s.widen = nn.Linear(*dims)
        s.to_pixels = nn.Sequential(nn.Conv2d(sum(dims), 3 * 16**2, 3, padding=1), nn.PixelShuffle(16))

    def forward(s, img):
        x = to_tokens(s.to_patch_embedding(img)) + s.pos_embedding
        outs = []
        for i, layers in enumerate(s.transformers):
            for attn, ff in layers:
                x = attn(x) + x
                x = ff(x) + x
            outs.append(x)
            if i == 0:
                x = s.widen(x)
        return s.to_pixels(to_map(torch.cat(outs, -1))) + bilinear(img, 4)


# 3: the smaller sibling: no output projection, no biases, separate query, key, value
class SmallBlock(nn.Module):
    def __init__(s, c, h, hid):
        super().__init__()
        s.h = h
        s.ln_a = LN(c)
        s.ln_b = LN(c)
        s.query = nn.Linear(c, c, bias=False)
        s.key = nn.Linear(c, c, bias=False)
        s.value = nn.Linear(c, c, bias=False)
        s.expand = nn.Linear(c, 2 * hid, bias=False)
        s.dw_a = depthwise(hid, False)
        s.dw_b = depthwise(hid, False)
        s.squeeze = nn.Linear(hid, c, bias=False)

    def forward(s, x):
        y = s.ln_a(x)
        x = x + softmax_attention(s.query(y), s.key(y), s.value(y), s.h)
        a, b = to_map(s.expand(s.ln_b(x))).chunk(2, 1)
        return x + s.squeeze(to_tokens(s.dw_a(a) * F.gelu(s.dw_b(b))))


class Small(nn.Module):
    def __init__(s):
        super().__init__()
        dims, heads = (8, 12, 20), (4, 3, 5)
        s.stem = nn.Conv2d(3, 8, 4, 4, bias=False)
        s.body = nn.ModuleList([nn.ModuleList([SmallBlock(c, h, c) for _ in range(3)]) for c, h in zip(dims, heads)])
        s.link = nn.ModuleList([nn.Linear(a, b, bias=False) for a, b in zip(dims, dims[1:])])
        s.fuse = nn.Conv2d(40, 16, 3, 1, 1)
        s.up = nn.ModuleList([nn.Conv2d(16, 64, 3, 1, 1) for _ in range(4)])
        s.last = nn.Conv2d(16, 3, 3, 1, 1)

    def forward(s, x):
        t, keep = to_tokens(s.stem(x)), []
        for i, blocks in enumerate(s.body):
            for b in blocks:
                t = b(t)
            keep.append(t)
            t = s.link[i](t) if i < 2 else t
        f = s.fuse(to_map(torch.cat(keep, 2)))
        for c in s.up:
            f = F.pixel_shuffle(c(f), 2)
        return s.last(f) + bilinear(x, 4)


# 4: nn.MultiheadAttention
class TorchBlock(nn.Module):
    def __init__(s, d, heads):
        super().__init__()
        s.ln1 = LN(d)
        s.mha = nn.MultiheadAttention(d, heads, batch_first=True)
        s.ln2 = LN(d)
        s.ffn = nn.ModuleDict(
            {"inp": nn.Linear(d, 6 * d), "p1": depthwise(3 * d), "p2": depthwise(3 * d), "out": nn.Linear(3 * d, d)}
        )

    def forward(s, x):
        y = s.ln1(x)
        x = x + s.mha(y, y, y, need_weights=False)[0]
        a, b = to_map(s.ffn["inp"](s.ln2(x))).chunk(2, 1)
        return x + s.ffn["out"](to_tokens(s.ffn["p1"](a) * F.gelu(s.ffn["p2"](b))))


class TorchNet(nn.Module):
    def __init__(s):
        super().__init__()
        s.embed = nn.Conv2d(3, 8, 4, 4)
        s.register_buffer("pos", torch.randn(16, 8))
        s.enc1 = nn.Sequential(TorchBlock(8, 2), TorchBlock(8, 2))
        s.t12 = nn.Linear(8, 12)
        s.enc2 = nn.Sequential(TorchBlock(12, 4))
        s.t23 = nn.Linear(12, 16)
        s.enc3 = nn.Sequential(TorchBlock(16, 2), TorchBlock(16, 2), TorchBlock(16, 2))
        s.rec = nn.Sequential(
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

    def forward(s, x):
        a = s.enc1(to_tokens(s.embed(x)) + s.pos)
        b = s.enc2(s.t12(a))
        c = s.enc3(s.t23(b))
        return s.rec(to_map(torch.cat((a, b, c), -1))) + bilinear(x, 4, align_corners=True)


# 5: Restormer's feed-forward (1x1 convolutions, one depthwise, first half gated), norms inside the branches
class MHSA(nn.Module):
    def __init__(s, dim, heads):
        super().__init__()
        s.heads = heads
        s.prenorm = LN(dim)
        s.wq = nn.Linear(dim, dim)
        s.wk = nn.Linear(dim, dim)
        s.wv = nn.Linear(dim, dim)
        s.wo = nn.Linear(dim, dim)

    def forward(s, x):
        y = s.prenorm(x)
        return x + s.wo(softmax_attention(s.wq(y), s.wk(y), s.wv(y), s.heads))


class ConvGate(nn.Module):
    def __init__(s, dim, factor):
        super().__init__()
        h = int(dim * factor)
        s.prenorm = LN(dim)
        s.project_in = nn.Conv2d(dim, h * 2, 1, bias=False)
        s.dwconv = depthwise(h * 2, False)
        s.project_out = nn.Conv2d(h, dim, 1, bias=False)

    def forward(s, x):
        x1, x2 = s.dwconv(s.project_in(to_map(s.prenorm(x)))).chunk(2, dim=1)
        return x + to_tokens(s.project_out(F.gelu(x1) * x2))


class Restormish(nn.Module):
    def __init__(s):
        super().__init__()
        s.patchify = nn.Conv2d(3, 12, 4, 4)
        s.position = nn.Parameter(torch.randn(1, 12, 4, 4))
        s.levels = nn.ModuleList(
            [
                nn.Sequential(*[nn.Sequential(MHSA(c, h), ConvGate(c, 2.5)) for _ in range(2)])
                for c, h in ((12, 3), (16, 4))
            ]
        )
        s.change = nn.Conv2d(12, 16, 1)
        s.fusion = nn.Conv2d(28, 10, 1)
        s.upsample = nn.Sequential(
            nn.Conv2d(10, 160, 3, 1, 1),
            nn.PixelShuffle(4),
            nn.LeakyReLU(0.2),
            nn.Conv2d(10, 160, 3, 1, 1),
            nn.PixelShuffle(4),
        )
        s.to_rgb = nn.Conv2d(10, 3, 3, 1, 1)

    def forward(s, x):
        a = s.levels[0](to_tokens(s.patchify(x) + s.position))
        b = s.levels[1](to_tokens(s.change(to_map(a))))
        return s.to_rgb(s.upsample(s.fusion(to_map(torch.cat([a, b], -1))))) + bilinear(x, 4)


# 6: layer scale, hidden width equal to the width (so that all linears look alike), sine-cosine buffer
class ScaledBlock(nn.Module):
    def __init__(s, w, heads):
        super().__init__()
        s.heads = heads
        s.gamma_1 = nn.Parameter(torch.rand(w))
        s.gamma_2 = nn.Parameter(torch.rand(w))
        s.norm_1 = LN(w, eps=1e-6)
        s.attention = nn.ModuleDict({k: nn.Linear(w, w) for k in ("q_proj", "k_proj", "v_proj", "o_proj")})
        s.norm_2 = LN(w, eps=1e-6)
        s.gdfn = nn.ModuleDict({"lift": nn.Linear(w, 2 * w), "dw": depthwise(2 * w), "drop": nn.Linear(w, w)})

    def forward(s, x):
        y, a, g = s.norm_1(x), s.attention, s.gdfn
        x = x + s.gamma_1 * a["o_proj"](softmax_attention(a["q_proj"](y), a["k_proj"](y), a["v_proj"](y), s.heads))
        u, v = g["dw"](to_map(g["lift"](s.norm_2(x)))).chunk(2, 1)
        return x + s.gamma_2 * g["drop"](to_tokens(u * F.gelu(v)))


class Scaled(nn.Module):
    def __init__(s):
        super().__init__()
        angle = torch.arange(16)[:, None] / 10 ** (torch.arange(4) / 4)
        s.register_buffer("table", torch.cat([angle.sin(), angle.cos()], 1)[None])
        s.tokenizer = nn.Conv2d(3, 8, 4, 4)
        s.phase1 = nn.ModuleList([ScaledBlock(8, 2) for _ in range(2)])
        s.phase2 = nn.ModuleList([ScaledBlock(16, 2) for _ in range(2)])
        s.grow = nn.Linear(8, 16)
        s.decoder = nn.Sequential(
            nn.Conv2d(24, 8, 3, 1, 1),
            nn.Conv2d(8, 8 * 16, 3, 1, 1),
            nn.PixelShuffle(4),
            nn.Conv2d(8, 3 * 16, 3, 1, 1),
            nn.PixelShuffle(4),
        )

    def forward(s, x):
        t = to_tokens(s.tokenizer(x)) + s.table
        for b in s.phase1:
            t = b(t)
        u = s.grow(t)
        for b in s.phase2:
            u = b(u)
        return s.decoder(to_map(torch.cat((t, u), -1))) + bilinear(x, 4)


# 7: transitions and norms inside the stages; norm only for the head
class StageWithEverything(nn.Module):
    def __init__(s, cin, c, heads, n):
        super().__init__()
        s.enter = nn.Linear(cin, c) if cin != c else nn.Identity()
        s.units = nn.ModuleList([TransformerBlock(c, heads, 2 * c) for _ in range(n)])
        s.out_norm = LN(c)

    def forward(s, x):
        x = s.enter(x)
        for u in s.units:
            x = u(x)
        return x, s.out_norm(x)


class InsideStages(nn.Module):
    def __init__(s):
        super().__init__()
        s.conv_embed = nn.Conv2d(3, 8, 4, 4)
        s.abs_pos = nn.Parameter(torch.randn(16, 8))
        s.layer1 = StageWithEverything(8, 8, 2, 2)
        s.layer2 = StageWithEverything(8, 12, 3, 2)
        s.layer3 = StageWithEverything(12, 16, 4, 1)
        s.merge = nn.Conv2d(36, 8, 3, 1, 1)
        s.shuffle1 = nn.Sequential(nn.Conv2d(8, 32, 3, 1, 1), nn.PixelShuffle(2))
        s.shuffle2 = nn.Sequential(nn.Conv2d(8, 32, 3, 1, 1), nn.PixelShuffle(2))
        s.shuffle3 = nn.Sequential(nn.Conv2d(8, 32, 3, 1, 1), nn.PixelShuffle(2))
        s.shuffle4 = nn.Sequential(nn.Conv2d(8, 12, 3, 1, 1), nn.PixelShuffle(2))

    def forward(s, x):
        t, a = s.layer1(to_tokens(s.conv_embed(x)) + s.abs_pos)
        t, b = s.layer2(t)
        _, c = s.layer3(t)
        f = F.silu(s.merge(to_map(torch.cat((a, b, c), -1))))
        return s.shuffle4(s.shuffle3(s.shuffle2(s.shuffle1(f)))) + bilinear(x, 4)


# 8: two convolutions of fusion, a final norm only, activation after fusion and between
class FinalNorm(nn.Module):
    def __init__(s):
        super().__init__()
        s.proj_in = nn.Conv2d(3, 8, 4, 4)
        s.pe = nn.Parameter(torch.randn(1, 16, 8))
        s.trunk = nn.ModuleDict(
            {
                "a": nn.Sequential(*[TransformerBlock(8, 1, 24) for _ in range(2)]),
                "b": nn.Sequential(*[TransformerBlock(10, 2, 30) for _ in range(2)]),
            }
        )
        s.bridge = nn.Linear(8, 10)
        s.norm_out = LN(10)
        s.fuse = nn.Sequential(nn.Conv2d(18, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 1), nn.ReLU())
        s.up = nn.Sequential(
            *[
                m
                for i in range(4)
                for m in ([nn.Conv2d(6, 24, 3, 1, 1), nn.PixelShuffle(2)] + ([nn.ReLU()] if i < 3 else []))
            ]
        )
        s.tail = nn.Conv2d(6, 3, 3, 1, 1)

    def forward(s, x):
        a = s.trunk["a"](to_tokens(s.proj_in(x)) + s.pe)
        b = s.norm_out(s.trunk["b"](s.bridge(a)))
        return s.tail(s.up(s.fuse(to_map(torch.cat((a, b), -1))))) + bilinear(x, 4)


# 9: x2, patch 4, no position embedding, no qkv bias, four stages
class BareBlock(nn.Module):
    def __init__(s, c, nh):
        super().__init__()
        s.nh = nh
        s.n1 = LN(c)
        s.qkv_lin = nn.Linear(c, 3 * c, bias=False)
        s.merge_heads = nn.Linear(c, c)
        s.n2 = LN(c)
        s.w_in = nn.Linear(c, 3 * c)
        s.dw = depthwise(3 * c)
        s.w_out = nn.Linear(3 * c // 2, c)

    def forward(s, x):
        x = x + s.merge_heads(softmax_attention(*s.qkv_lin(s.n1(x)).chunk(3, -1), s.nh))
        a, b = s.dw(to_map(s.w_in(s.n2(x)))).chunk(2, 1)
        return x + s.w_out(to_tokens(a * F.gelu(b)))


class TimesTwo(nn.Module):
    def __init__(s):
        super().__init__()
        dims = (8, 12, 16, 20)
        s.patches = nn.Conv2d(3, 8, 4, 4, bias=False)
        s.blocks = nn.ModuleList([BareBlock(d, 2) for d in dims for _ in range(2)])
        s.adapt = nn.ModuleDict({f"{i}to{i + 1}": nn.Linear(dims[i], dims[i + 1], bias=False) for i in range(3)})
        s.mix = nn.Conv2d(56, 14, 3, 1, 1)
        s.px1 = nn.Conv2d(14, 48, 3, 1, 1)
        s.px2 = nn.Conv2d(12, 40, 3, 1, 1)
        s.px3 = nn.Conv2d(10, 24, 3, 1, 1)
        s.rgb = nn.Conv2d(6, 3, 5, 1, 2)

    def forward(s, x):
        t, outs = to_tokens(s.patches(x)), []
        for i, b in enumerate(s.blocks):
            t = b(t)
            if i % 2:
                outs.append(t)
                t = s.adapt[f"{i // 2}to{i // 2 + 1}"](t) if i < 7 else t
        f = s.mix(to_map(torch.cat(outs, -1)))
        for c in (s.px1, s.px2, s.px3):
            f = F.pixel_shuffle(F.leaky_relu(c(f), 0.1), 2)
        return s.rgb(f) + bilinear(x, 2)


# 10: patch 2, flat names made by a loop, one stage deeper than the others
class Flat(nn.Module):
    def __init__(s):
        super().__init__()
        s.plan = [(8, 2, 1), (12, 3, 2)]
        s.input_conv = nn.Conv2d(3, 8, 2, 2)
        s.position_code = nn.Parameter(torch.randn(1, 64, 8))
        for i, (c, _, n) in enumerate(s.plan):
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
                    s.add_module(p + name, module)
        s.s0_to_s1 = nn.Linear(8, 12)
        s.fuse_conv = nn.Conv2d(20, 8, 3, 1, 1)
        s.up1_conv = nn.Conv2d(8, 32, 3, 1, 1)
        s.up2_conv = nn.Conv2d(8, 32, 3, 1, 1)
        s.up3_conv = nn.Conv2d(8, 32, 3, 1, 1)
        s.out_conv = nn.Conv2d(8, 3, 3, 1, 1)

    def forward(s, x):
        t, outs = to_tokens(s.input_conv(x)) + s.position_code, []
        for i, (_, h, n) in enumerate(s.plan):
            for j in range(n):
                m = lambda k, p=f"s{i}_b{j}_": getattr(s, p + k)  # noqa: E731
                t = t + m("attn_out")(softmax_attention(*m("attn_qkv")(m("norm1")(t)).chunk(3, -1), h))
                a, b = to_map(m("ffn_in")(m("norm2")(t))).chunk(2, 1)
                t = t + m("ffn_out")(to_tokens(m("ffn_dw1")(a) * F.gelu(m("ffn_dw2")(b))))
            outs.append(t)
            t = s.s0_to_s1(t) if i == 0 else t
        f = s.fuse_conv(to_map(torch.cat(outs, -1)))
        for c in (s.up1_conv, s.up2_conv, s.up3_conv):
            f = F.pixel_shuffle(c(f), 2)
        return s.out_conv(f) + bilinear(x, 4)


# 11: parallel lists: the parts of a block lie in different lists
class ParallelLists(nn.Module):
    def __init__(s):
        super().__init__()
        s.dims, s.n = (8, 12), 3
        s.embed = nn.Conv2d(3, 8, 4, 4)
        s.pos_embed = nn.Parameter(torch.randn(1, 16, 8))
        make = lambda f: nn.ModuleList([nn.ModuleList([f(d) for _ in range(s.n)]) for d in s.dims])  # noqa: E731
        s.attn_norms = make(LN)
        s.attns = make(lambda d: TimmAttention(d, 2))
        s.ffn_norms = make(LN)
        s.ffns = make(lambda d: ReadmeGDFN(d, 2 * d))
        s.connect = nn.Linear(8, 12)
        s.head = nn.Sequential(nn.Conv2d(20, 768, 3, 1, 1), nn.PixelShuffle(16))

    def forward(s, x):
        t, outs = to_tokens(s.embed(x)) + s.pos_embed, []
        for i in range(2):
            for j in range(s.n):
                t = t + s.attns[i][j](s.attn_norms[i][j](t))
                t = t + s.ffns[i][j](s.ffn_norms[i][j](t))
            outs.append(t)
            t = s.connect(t) if i == 0 else t
        return s.head(to_map(torch.cat(outs, -1))) + bilinear(x, 4)


# 12: equal widths, transitions of equal widths, x3
class EqualWidths(nn.Module):
    def __init__(s):
        super().__init__()
        s.patch = nn.Conv2d(3, 12, 4, 4)
        s.pos = nn.Parameter(torch.randn(1, 16, 12))
        s.stage_list = nn.ModuleList(
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
        s.sr = nn.Sequential(
            nn.Conv2d(36, 16, 3, 1, 1),
            nn.Conv2d(16, 16 * 9, 3, 1, 1),
            nn.PixelShuffle(3),
            nn.Conv2d(16, 16 * 4, 3, 1, 1),
            nn.PixelShuffle(2),
            nn.Conv2d(16, 12, 3, 1, 1),
            nn.PixelShuffle(2),
        )

    def forward(s, x):
        t, outs = to_tokens(s.patch(x)) + s.pos, []
        for stage in s.stage_list:
            t = stage["blocks"](t)
            outs.append(t)
            t = stage["next"](t) if "next" in stage else t
        return s.sr(to_map(torch.cat(outs, -1))) + bilinear(x, 3)


# 13: x8, equal widths without any transition
class TimesEight(nn.Module):
    def __init__(s):
        super().__init__()
        s.pe = nn.Conv2d(3, 8, 4, 4)
        s.pp = nn.Parameter(torch.randn(1, 16, 8))
        s.part0 = nn.Sequential(TransformerBlock(8, 2, 8), TransformerBlock(8, 2, 8))
        s.part1 = nn.Sequential(TransformerBlock(8, 2, 8), TransformerBlock(8, 2, 8))
        s.out = nn.ModuleList(
            [nn.Conv2d(16, 6, 3, 1, 1)] + [nn.Conv2d(6, 24, 3, 1, 1) for _ in range(5)] + [nn.Conv2d(6, 3, 3, 1, 1)]
        )

    def forward(s, x):
        a = s.part0(to_tokens(s.pe(x)) + s.pp)
        b = s.part1(a)
        f = s.out[0](to_map(torch.cat((a, b), -1)))
        for c in s.out[1:-1]:
            f = F.pixel_shuffle(c(f), 2)
        return s.out[-1](f) + bilinear(x, 8)


# 14: HuggingFace spelling, keys without bias
class HFBlock(nn.Module):
    def __init__(s, c, heads, inter):
        super().__init__()
        s.heads = heads
        inner = nn.ModuleDict({"query": nn.Linear(c, c), "key": nn.Linear(c, c, bias=False), "value": nn.Linear(c, c)})
        s.attention = nn.ModuleDict({"attention": inner, "output": nn.ModuleDict({"dense": nn.Linear(c, c)})})
        s.intermediate = nn.ModuleDict({"dense": nn.Linear(c, 2 * inter), "depthwise": depthwise(2 * inter)})
        s.output = nn.ModuleDict({"dense": nn.Linear(inter, c)})
        s.layernorm_before = LN(c, eps=1e-12)
        s.layernorm_after = LN(c, eps=1e-12)

    def forward(s, x):
        y, a = s.layernorm_before(x), s.attention["attention"]
        x = x + s.attention["output"]["dense"](softmax_attention(a["query"](y), a["key"](y), a["value"](y), s.heads))
        u, v = s.intermediate["depthwise"](to_map(s.intermediate["dense"](s.layernorm_after(x)))).chunk(2, 1)
        return x + s.output["dense"](to_tokens(u * F.gelu(v)))


class HuggingFace(nn.Module):
    def __init__(s):
        super().__init__()
        s.embeddings = nn.ModuleDict(
            {
                "patch_embeddings": nn.ModuleDict({"projection": nn.Conv2d(3, 8, 4, 4)}),
                "norm": LN(8, eps=1e-12),
                "position_embeddings": nn.Embedding(16, 8),
            }
        )
        s.register_buffer("position_ids", torch.arange(16)[None])
        s.encoder = nn.ModuleDict(
            {
                "stages": nn.ModuleList(
                    [nn.ModuleDict({"layer": nn.ModuleList([HFBlock(c, 2, 3 * c) for _ in range(2)])}) for c in (8, 16)]
                ),
                "projections": nn.ModuleList([nn.Linear(8, 16)]),
            }
        )
        s.decode_head = nn.ModuleDict(
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

    def forward(s, pixel_values):
        e, outs = s.embeddings, []
        t = e["norm"](to_tokens(e["patch_embeddings"]["projection"](pixel_values))) + e["position_embeddings"](
            s.position_ids
        )
        for i, stage in enumerate(s.encoder["stages"]):
            for b in stage["layer"]:
                t = b(t)
            outs.append(t)
            t = s.encoder["projections"][0](t) if i == 0 else t
        h = s.decode_head
        return h["final_conv"](h["upscale"](F.gelu(h["conv_fuse"](to_map(torch.cat(outs, -1)))))) + bilinear(
            pixel_values, 4
        )


# 15: hand-written norm (gamma, beta), qkv stored head by head, signed value range
class HandNorm(nn.Module):
    def __init__(s, c):
        super().__init__()
        s.gamma = nn.Parameter(torch.ones(c))
        s.beta = nn.Parameter(torch.zeros(c))

    def forward(s, x):
        d = x - x.mean(-1, keepdim=True)
        return d / (d.square().mean(-1, keepdim=True) + 1e-5).sqrt() * s.gamma + s.beta


class HeadMajorBlock(nn.Module):
    def __init__(s, c, heads):
        super().__init__()
        s.heads = heads
        s.pre_att = HandNorm(c)
        s.att = nn.ModuleDict({"mixed": nn.Linear(c, 3 * c), "unify": nn.Linear(c, c)})
        s.pre_ff = HandNorm(c)
        s.ff = nn.ModuleList([nn.Linear(c, 4 * c), depthwise(2 * c), depthwise(2 * c), nn.Linear(2 * c, c)])

    def forward(s, x):
        b, n, c = x.shape
        q, k, v = s.att["mixed"](s.pre_att(x)).view(b, n, s.heads, 3, c // s.heads).unbind(3)
        x = x + s.att["unify"](softmax_attention(q.flatten(2), k.flatten(2), v.flatten(2), s.heads))
        a, g = to_map(s.ff[0](s.pre_ff(x))).chunk(2, 1)
        return x + s.ff[3](to_tokens(s.ff[1](a) * F.gelu(s.ff[2](g))))


class HeadMajor(nn.Module):
    def __init__(s):
        super().__init__()
        s.first = nn.Conv2d(3, 8, 4, 4)
        s.learned = nn.Parameter(torch.randn(1, 16, 8))
        s.g1 = nn.Sequential(*[HeadMajorBlock(8, 4) for _ in range(2)])
        s.g2 = nn.Sequential(*[HeadMajorBlock(12, 3) for _ in range(2)])
        s.reproject = nn.Sequential(LN(8), nn.Linear(8, 12))
        s.cat_norm = LN(20)
        s.head0 = nn.Conv2d(20, 8, 3, 1, 1)
        s.head1 = nn.Conv2d(8, 128, 3, 1, 1)
        s.head2 = nn.Conv2d(8, 128, 3, 1, 1)
        s.head3 = nn.Conv2d(8, 3, 3, 1, 1)

    def forward(s, x):
        x = x * 2 - 1
        a = s.g1(to_tokens(s.first(x)) + s.learned)
        b = s.g2(s.reproject(a))
        f = s.head0(to_map(s.cat_norm(torch.cat((a, b), -1))))
        return (s.head3(F.pixel_shuffle(s.head2(F.pixel_shuffle(s.head1(f), 4)), 4)) + bilinear(x, 4) + 1) / 2


# 16: widths of the head fall, the fusion is a Linear on tokens, activations between
class TokenFusion(nn.Module):
    def __init__(s):
        super().__init__()
        s.tok = nn.Conv2d(3, 8, 4, 4)
        s.pos_emb = nn.Parameter(torch.randn(1, 16, 8))
        s.stage_a = nn.ModuleList([TransformerBlock(8, 2, 20), TransformerBlock(8, 2, 20)])
        s.stage_b = nn.ModuleList([TransformerBlock(10, 2, 25), TransformerBlock(10, 2, 25)])
        s.a_to_b = nn.Linear(8, 10)
        s.dense = nn.Linear(18, 16)
        s.c1 = nn.Conv2d(16, 48, 3, 1, 1)
        s.c2 = nn.Conv2d(12, 40, 3, 1, 1)
        s.c3 = nn.Conv2d(10, 32, 3, 1, 1)
        s.c4 = nn.Conv2d(8, 24, 3, 1, 1)
        s.c5 = nn.Conv2d(6, 3, 3, 1, 1)

    def forward(s, x):
        t = to_tokens(s.tok(x)) + s.pos_emb
        for b in s.stage_a:
            t = b(t)
        u = s.a_to_b(t)
        for b in s.stage_b:
            u = b(u)
        f = to_map(s.dense(torch.cat((t, u), -1)))
        for c in (s.c1, s.c2, s.c3):
            f = F.leaky_relu(F.pixel_shuffle(c(f), 2), 0.2)
        return s.c5(F.pixel_shuffle(s.c4(f), 2)) + bilinear(x, 4)


# 17: everything defined in an unusual order, value before key before query, feed-forward before attention
class Backwards(nn.Module):
    def __init__(s, c, heads):
        super().__init__()
        s.heads = heads
        s.mlp_out = nn.Linear(c, c)
        s.mlp_depth = depthwise(2 * c)
        s.mlp_in = nn.Linear(c, 2 * c)
        s.attn_o = nn.Linear(c, c)
        s.attn_v = nn.Linear(c, c)
        s.attn_k = nn.Linear(c, c)
        s.attn_q = nn.Linear(c, c)
        s.mlp_norm = LN(c)
        s.attn_norm = LN(c)

    def forward(s, x):
        y = s.attn_norm(x)
        x = x + s.attn_o(softmax_attention(s.attn_q(y), s.attn_k(y), s.attn_v(y), s.heads))
        a, b = s.mlp_depth(to_map(s.mlp_in(s.mlp_norm(x)))).chunk(2, 1)
        return x + s.mlp_out(to_tokens(a * F.gelu(b)))


class BackwardsNet(nn.Module):
    def __init__(s):
        super().__init__()
        s.reconstruction = nn.Sequential(nn.Conv2d(28, 768, 1), nn.PixelShuffle(16))
        s.norm3 = LN(16)
        s.norm2 = LN(12)
        s.lin = nn.Linear(12, 16)
        s.two = nn.Sequential(Backwards(16, 4), Backwards(16, 4))
        s.one = nn.Sequential(Backwards(12, 2), Backwards(12, 2))
        s.pos = nn.Parameter(torch.randn(1, 16, 12))
        s.pe = nn.Conv2d(3, 12, 4, 4)

    def forward(s, x):
        a = s.norm2(s.one(to_tokens(s.pe(x)) + s.pos))
        b = s.norm3(s.two(s.lin(a)))
        return s.reconstruction(to_map(torch.cat((a, b), -1))) + bilinear(x, 4)


# 18: gate and value named, two projections in, biases only on the outside
class NamedGate(nn.Module):
    def __init__(s, c, heads):
        super().__init__()
        s.heads = heads
        s.rms_free_norm_first = LN(c)
        s.rms_free_norm_second = LN(c)
        s.selfAttention = nn.ModuleDict({"inProj": nn.Linear(c, 3 * c), "outProj": nn.Linear(c, c)})
        s.feedForward = nn.ModuleDict(
            {
                "valueProj": nn.Linear(c, 3 * c, bias=False),
                "gateProj": nn.Linear(c, 3 * c, bias=False),
                "valueConv": depthwise(3 * c, False),
                "gateConv": depthwise(3 * c, False),
                "mergeProj": nn.Linear(3 * c, c),
            }
        )

    def forward(s, x):
        f = s.feedForward
        x = x + s.selfAttention["outProj"](
            softmax_attention(*s.selfAttention["inProj"](s.rms_free_norm_first(x)).chunk(3, -1), s.heads)
        )
        y = s.rms_free_norm_second(x)
        return x + f["mergeProj"](
            to_tokens(f["valueConv"](to_map(f["valueProj"](y))) * F.gelu(f["gateConv"](to_map(f["gateProj"](y)))))
        )


class NamedGateNet(nn.Module):
    def __init__(s):
        super().__init__()
        s.embedding = nn.Conv2d(3, 8, 8, 8)
        s.positions = nn.Parameter(torch.randn(1, 4, 4, 8))
        s.stageOne = nn.ModuleList([NamedGate(8, 2)])
        s.stageTwo = nn.ModuleList([NamedGate(12, 3)])
        s.stageThree = nn.ModuleList([NamedGate(16, 4)])
        s.shiftOne = nn.Linear(8, 12)
        s.shiftTwo = nn.Linear(12, 16)
        s.headConv = nn.Conv2d(36, 8, 3, 1, 1)
        s.upA = nn.Conv2d(8, 32, 3, 1, 1)
        s.upB = nn.Conv2d(8, 32, 3, 1, 1)
        s.upC = nn.Conv2d(8, 32, 3, 1, 1)
        s.upD = nn.Conv2d(8, 48 * 4, 3, 1, 1)

    def forward(s, x):
        a = s.stageOne[0](to_tokens(s.embedding(x)) + s.positions.flatten(1, 2))
        b = s.stageTwo[0](s.shiftOne(a))
        c = s.stageThree[0](s.shiftTwo(b))
        f = s.headConv(to_map(torch.cat((a, b, c), -1)))
        for u in (s.upA, s.upB, s.upC):
            f = F.pixel_shuffle(u(f), 2)
        return F.pixel_shuffle(s.upD(f), 8) + bilinear(x, 8)


# 19: one conv of attention maps (qkv and proj as 1x1 convolutions on the grid), layer scale modules
class LayerScale(nn.Module):
    def __init__(s, c):
        super().__init__()
        s.gamma = nn.Parameter(torch.rand(c))

    def forward(s, x):
        return x * s.gamma


class GridBlock(nn.Module):
    def __init__(s, c, heads):
        super().__init__()
        s.heads = heads
        s.norm1 = LN(c)
        s.to_qkv = nn.Conv2d(c, 3 * c, 1)
        s.to_out = nn.Conv2d(c, c, 1)
        s.ls1 = LayerScale(c)
        s.norm2 = LN(c)
        s.pw1 = nn.Conv2d(c, 3 * c, 1)
        s.dw = depthwise(3 * c)
        s.pw2 = nn.Conv2d(3 * c // 2, c, 1)
        s.ls2 = LayerScale(c)

    def forward(s, x):
        q, k, v = (to_tokens(m) for m in s.to_qkv(to_map(s.norm1(x))).chunk(3, 1))
        x = x + s.ls1(to_tokens(s.to_out(to_map(softmax_attention(q, k, v, s.heads)))))
        a, b = s.dw(s.pw1(to_map(s.norm2(x)))).chunk(2, 1)
        return x + s.ls2(to_tokens(s.pw2(F.gelu(a) * b)))


class Grid(nn.Module):
    def __init__(s):
        super().__init__()
        s.net = nn.ModuleDict(
            {
                "in_conv": nn.Conv2d(3, 8, 4, 4),
                "level0": nn.Sequential(GridBlock(8, 2), GridBlock(8, 2)),
                "t0": nn.Conv2d(8, 12, 1),
                "level1": nn.Sequential(GridBlock(12, 2), GridBlock(12, 2)),
                "t1": nn.Conv2d(12, 20, 1),
                "level2": nn.Sequential(GridBlock(20, 2)),
            }
        )
        s.pos_embed = nn.Parameter(torch.randn(1, 16, 8))
        s.tail = nn.Sequential(
            nn.Conv2d(40, 8, 3, padding=1, bias=False),
            nn.Sequential(
                nn.Conv2d(8, 32, 3, padding=1, bias=False),
                nn.PixelShuffle(2),
                nn.Conv2d(8, 32, 3, padding=1, bias=False),
                nn.PixelShuffle(2),
            ),
            nn.Conv2d(8, 3, 3, padding=1, bias=False),
        )

    def forward(s, x):
        n = s.net
        a = n["level0"](to_tokens(n["in_conv"](x)) + s.pos_embed)
        b = n["level1"](to_tokens(n["t0"](to_map(a))))
        c = n["level2"](to_tokens(n["t1"](to_map(b))))
        return s.tail(to_map(torch.cat((a, b, c), -1))) + x


# 20: one stage only, byte range
class OneStage(nn.Module):
    def __init__(s):
        super().__init__()
        s.conv = nn.Conv2d(3, 16, 4, 4)
        s.pos = nn.Parameter(torch.randn(1, 16, 16))
        s.layers = nn.ModuleList([TransformerBlock(16, 4, 32) for _ in range(11)])
        s.norm = LN(16)
        s.upsampler = nn.Sequential(nn.Conv2d(16, 768, 3, 1, 1), nn.PixelShuffle(16))

    def forward(s, x):
        x = x * 255
        t = to_tokens(s.conv(x)) + s.pos
        for b in s.layers:
            t = b(t)
        return (s.upsampler(to_map(s.norm(t))) + bilinear(x, 4)) / 255


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
