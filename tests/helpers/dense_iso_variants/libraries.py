"""Dense-Iso-ViT in the spelling of well-known libraries."""

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


class TimmLike(nn.Module):
    def __init__(
        self,
        dims=(8, 12, 16),
        heads=(2, 3, 2),
        depth=2,
        ratio=4.0,
        width=6,
        norms=False,
        fuse=None,
        img=16,
    ):
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
        ups = [
            m for _ in range(4) for m in (nn.Conv2d(width, width * 4, 3, 1, 1), nn.PixelShuffle(2))
        ]
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
                        nn.ModuleList(
                            [PreNorm(d, LucidAttention(d, h)), PreNorm(d, LucidFeedForward(d, 1))]
                        )
                        for _ in range(2)
                    ]
                )
            )
        self.widen = nn.Linear(*dims)
        self.to_pixels = nn.Sequential(
            nn.Conv2d(sum(dims), 3 * 16**2, 3, padding=1), nn.PixelShuffle(16)
        )

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


# 4: nn.MultiheadAttention
class TorchBlock(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.ln1 = LN(d)
        self.mha = nn.MultiheadAttention(d, heads, batch_first=True)
        self.ln2 = LN(d)
        self.ffn = nn.ModuleDict(
            {
                "inp": nn.Linear(d, 6 * d),
                "p1": depthwise(3 * d),
                "p2": depthwise(3 * d),
                "out": nn.Linear(3 * d, d),
            }
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


# 5: Restormer's feed-forward (1x1 convolutions, one depthwise, first half gated), norms inside the
# branches
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
        return self.to_rgb(self.upsample(self.fusion(to_map(torch.cat([a, b], -1))))) + bilinear(
            x, 4
        )


# 14: HuggingFace spelling, keys without bias
class HFBlock(nn.Module):
    def __init__(self, c, heads, inter):
        super().__init__()
        self.heads = heads
        inner = nn.ModuleDict(
            {"query": nn.Linear(c, c), "key": nn.Linear(c, c, bias=False), "value": nn.Linear(c, c)}
        )
        self.attention = nn.ModuleDict(
            {"attention": inner, "output": nn.ModuleDict({"dense": nn.Linear(c, c)})}
        )
        self.intermediate = nn.ModuleDict(
            {"dense": nn.Linear(c, 2 * inter), "depthwise": depthwise(2 * inter)}
        )
        self.output = nn.ModuleDict({"dense": nn.Linear(inter, c)})
        self.layernorm_before = LN(c, eps=1e-12)
        self.layernorm_after = LN(c, eps=1e-12)

    def forward(self, x):
        y, a = self.layernorm_before(x), self.attention["attention"]
        x = x + self.attention["output"]["dense"](
            softmax_attention(a["query"](y), a["key"](y), a["value"](y), self.heads)
        )
        u, v = self.intermediate["depthwise"](
            to_map(self.intermediate["dense"](self.layernorm_after(x)))
        ).chunk(2, 1)
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
                    [
                        nn.ModuleDict(
                            {"layer": nn.ModuleList([HFBlock(c, 2, 3 * c) for _ in range(2)])}
                        )
                        for c in (8, 16)
                    ]
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
        t = e["norm"](to_tokens(e["patch_embeddings"]["projection"](pixel_values))) + e[
            "position_embeddings"
        ](self.position_ids)
        for i, stage in enumerate(self.encoder["stages"]):
            for b in stage["layer"]:
                t = b(t)
            outs.append(t)
            t = self.encoder["projections"][0](t) if i == 0 else t
        h = self.decode_head
        return h["final_conv"](
            h["upscale"](F.gelu(h["conv_fuse"](to_map(torch.cat(outs, -1)))))
        ) + bilinear(pixel_values, 4)
