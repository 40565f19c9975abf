"""Dense-Iso-ViT in more spellings of transformer libraries: timm with all extras, BERT,
vit-pytorch, BEiT, LLaMA."""

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
    bilinear,
    depthwise,
    softmax_attention,
    to_map,
    to_tokens,
)


# timm: PatchEmbed with a norm, LayerScale, norms and qkv without bias, numbered up-sampling steps
class GatedMlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * hidden)
        self.conv = depthwise(2 * hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x):
        a, b = self.conv(to_map(self.fc1(x))).chunk(2, 1)
        return self.fc2(to_tokens(a * F.gelu(b)))


class TimmFullBlock(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = LN(dim, bias=False)
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(dim, 3 * dim, bias=False), "proj": nn.Linear(dim, dim)}
        )
        self.ls1 = LayerScale(dim)
        self.norm2 = LN(dim, bias=False)
        self.mlp = GatedMlp(dim, int(dim * 2.5))
        self.ls2 = LayerScale(dim)

    def forward(self, x):
        q, k, v = self.attn["qkv"](self.norm1(x)).chunk(3, -1)
        x = x + self.ls1(self.attn["proj"](softmax_attention(q, k, v, self.heads)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class TimmFull(nn.Module):
    def __init__(self, dims=(8, 12, 16), depths=(1, 2, 1), heads=(2, 3, 4)):
        super().__init__()
        self.patch_embed = nn.ModuleDict(
            {"proj": nn.Conv2d(3, dims[0], 4, 4), "norm": LN(dims[0], bias=False)}
        )
        self.pos_embed = nn.Parameter(torch.randn(1, 16, dims[0]))
        self.stages = nn.ModuleList(
            nn.ModuleDict(
                {
                    "blocks": nn.Sequential(*[TimmFullBlock(d, h) for _ in range(n)]),
                    "norm": LN(d, bias=False),
                    **(
                        {"expand": nn.Linear(d, dims[i + 1], bias=False)}
                        if i + 1 < len(dims)
                        else {}
                    ),
                }
            )
            for i, (d, n, h) in enumerate(zip(dims, depths, heads))
        )
        self.head = nn.ModuleDict(
            {
                "fuse": nn.Conv2d(sum(dims), 8, 1),
                "up": nn.ModuleList(
                    nn.ModuleDict({"conv": nn.Conv2d(8, 32, 3, 1, 1)}) for _ in range(4)
                ),
                "to_rgb": nn.Conv2d(8, 3, 3, 1, 1),
            }
        )

    def forward(self, x):
        t = self.patch_embed["norm"](to_tokens(self.patch_embed["proj"](x))) + self.pos_embed
        outs = []
        for stage in self.stages:
            t = stage["norm"](stage["blocks"](t))
            outs.append(t)
            t = stage["expand"](t) if "expand" in stage else t
        f = F.gelu(self.head["fuse"](to_map(torch.cat(outs, -1))))
        for step in self.head["up"]:
            f = F.gelu(F.pixel_shuffle(step["conv"](f), 2))
        return self.head["to_rgb"](f) + bilinear(x, 4)


# BERT: attention.self.query, attention.output.dense, LayerNorm in camel case, key without bias
class BertLayer(nn.Module):
    def __init__(self, size, heads, inner):
        super().__init__()
        self.heads = heads
        own = nn.ModuleDict(
            {n: nn.Linear(size, size, bias=n != "key") for n in ("query", "key", "value")}
        )
        self.attention = nn.ModuleDict(
            {
                "LayerNorm": LN(size),
                "self": own,
                "output": nn.ModuleDict({"dense": nn.Linear(size, size)}),
            }
        )
        self.intermediate = nn.ModuleDict(
            {"dense": nn.Linear(size, 2 * inner), "dwconv": depthwise(2 * inner)}
        )
        self.output = nn.ModuleDict({"dense": nn.Linear(inner, size), "LayerNorm": LN(size)})

    def forward(self, h):
        a = self.attention
        y = a["LayerNorm"](h)
        s = a["self"]
        h = h + a["output"]["dense"](
            softmax_attention(s["query"](y), s["key"](y), s["value"](y), self.heads)
        )
        u, v = self.intermediate["dwconv"](
            to_map(self.intermediate["dense"](self.output["LayerNorm"](h)))
        ).chunk(2, 1)
        return h + self.output["dense"](to_tokens(u * F.gelu(v)))


class Bert(nn.Module):
    def __init__(self, sizes=(12, 12, 16), layers=(2, 1, 1)):
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "patch_embeddings": nn.Conv2d(3, 12, 2, 2),
                "position_embeddings": nn.Embedding(16, 12),
            }
        )
        self.embeddings.register_buffer("position_ids", torch.arange(16)[None], persistent=True)
        self.encoder = nn.ModuleDict(
            {
                f"stage{i + 1}": nn.ModuleDict(
                    {
                        "layer": nn.ModuleList(BertLayer(c, 4, c) for _ in range(n)),
                        **(
                            {"transition": nn.Linear(c, sizes[i + 1])} if i + 1 < len(sizes) else {}
                        ),
                    }
                )
                for i, (c, n) in enumerate(zip(sizes, layers))
            }
        )
        self.decoder = nn.ModuleList(
            [
                nn.Conv2d(sum(sizes), 8, 3, 1, 1),
                nn.Conv2d(8, 8, 3, 1, 1),
                nn.Conv2d(8, 3 * 64, 3, 1, 1),
            ]
        )

    def forward(self, pixel_values):
        e = self.embeddings
        t = to_tokens(e["patch_embeddings"](pixel_values)) + e["position_embeddings"](
            e.position_ids
        )
        outs = []
        for stage in self.encoder.values():
            for layer in stage["layer"]:
                t = layer(t)
            outs.append(t)
            t = stage["transition"](t) if "transition" in stage else t
        first, second, last = self.decoder
        return F.pixel_shuffle(
            last(F.silu(second(F.silu(first(to_map(torch.cat(outs, -1))))))), 8
        ) + bilinear(pixel_values, 4)


# vit-pytorch: Linear over the pixels of a patch (p1 p2 c), to_qkv and to_out, norms inside the
# branches, PReLU head
class VitAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.norm = LN(dim)
        self.to_qkv = nn.Linear(dim, dim * 3, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(0.0))

    def forward(self, x):
        return self.to_out(
            softmax_attention(*self.to_qkv(self.norm(x)).chunk(3, dim=-1), self.heads)
        )


class VitFeedForward(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.norm = LN(dim)
        self.net = nn.ModuleList([nn.Linear(dim, hidden * 2), depthwise(hidden), depthwise(hidden)])
        self.to_out = nn.Sequential(nn.Linear(hidden, dim), nn.Dropout(0.0))

    def forward(self, x):
        x, gates = to_map(self.net[0](self.norm(x))).chunk(2, dim=1)
        return self.to_out(to_tokens(self.net[1](x) * F.gelu(self.net[2](gates))))


class VitPytorch(nn.Module):
    def __init__(self, unfold=False, dims=(8, 12), p=4):
        super().__init__()
        self.p, self.unfold = p, unfold
        self.to_patch_embedding = nn.Sequential(nn.Identity(), nn.Linear(3 * p * p, dims[0]))
        self.pos_embedding = nn.Parameter(torch.randn(1, 16, dims[0]))
        self.transformer = nn.ModuleList(
            nn.ModuleDict(
                {
                    "layers": nn.ModuleList(
                        nn.ModuleList([VitAttention(d, 2), VitFeedForward(d, 4 * d)])
                        for _ in range(2)
                    )
                }
            )
            for d in dims
        )
        self.project = nn.ModuleList([nn.Linear(*dims)])
        self.to_pixels = nn.Sequential(
            nn.Conv2d(sum(dims), 8, 3, padding=1),
            nn.PReLU(),
            *[
                m
                for _ in range(4)
                for m in (nn.Conv2d(8, 32, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(8))
            ],
            nn.Conv2d(8, 3, 3, padding=1),
        )

    def forward(self, img):
        b, c, h, w = img.shape
        p = self.p
        if self.unfold:
            pixels = F.unfold(img, p, stride=p).transpose(1, 2)
        else:
            pixels = (
                img.reshape(b, c, h // p, p, w // p, p)
                .permute(0, 2, 4, 3, 5, 1)
                .reshape(b, -1, p * p * c)
            )
        x = self.to_patch_embedding(pixels) + self.pos_embedding
        outs = []
        for i, stage in enumerate(self.transformer):
            for attn, ff in stage["layers"]:
                x = attn(x) + x
                x = ff(x) + x
            outs.append(x)
            if i == 0:
                x = self.project[0](x)
        return self.to_pixels(to_map(torch.cat(outs, -1))) + bilinear(img, 4)


# BEiT in a Swin layout: q_bias and v_bias apart from qkv, gamma_1 and gamma_2, downsample.reduction
# behind a norm
class BeitBlock(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.heads = heads
        self.gamma_1 = nn.Parameter(torch.ones(c))
        self.gamma_2 = nn.Parameter(torch.ones(c))
        self.norm1, self.norm2 = LN(c), LN(c)
        self.attn = nn.Module()
        self.attn.q_bias = nn.Parameter(torch.zeros(c))
        self.attn.v_bias = nn.Parameter(torch.zeros(c))
        self.attn.qkv = nn.Linear(c, 3 * c, bias=False)
        self.attn.proj = nn.Linear(c, c)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(c, 4 * c), "dw": depthwise(4 * c), "fc2": nn.Linear(2 * c, c)}
        )

    def forward(self, x):
        a = self.attn
        bias = torch.cat([a.q_bias, torch.zeros_like(a.q_bias), a.v_bias])
        q, k, v = F.linear(self.norm1(x), a.qkv.weight, bias).chunk(3, -1)
        x = x + self.gamma_1 * a.proj(softmax_attention(q, k, v, self.heads))
        u, g = self.mlp["dw"](to_map(self.mlp["fc1"](self.norm2(x)))).chunk(2, 1)
        return x + self.gamma_2 * self.mlp["fc2"](to_tokens(u * F.gelu(g)))


class Beit(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, 8, 4, 4)
        self.layers = nn.ModuleList()
        for c, after in ((8, 12), (12, 16), (16, None)):
            layer = nn.Module()
            layer.blocks = nn.ModuleList([BeitBlock(c, 2), BeitBlock(c, 2)])
            if after:
                layer.downsample = nn.ModuleDict(
                    {"norm": LN(c), "reduction": nn.Linear(c, after, bias=False)}
                )
            self.layers.append(layer)
        self.absolute_pos_embed = nn.Parameter(torch.randn(1, 16, 8))
        self.conv_after_body = nn.Conv2d(36, 12, 3, 1, 1)
        self.upsample = nn.Sequential(nn.Conv2d(12, 3 * 256, 3, 1, 1), nn.PixelShuffle(16))

    def forward(self, x):
        t = to_tokens(self.patch_embed.proj(x)) + self.absolute_pos_embed
        outs = []
        for layer in self.layers:
            for block in layer.blocks:
                t = block(t)
            outs.append(t)
            if hasattr(layer, "downsample"):
                t = layer.downsample["reduction"](layer.downsample["norm"](t))
        return self.upsample(self.conv_after_body(to_map(torch.cat(outs, -1)))) + bilinear(x, 4)


# LLaMA: RMSNorm, wq wk wv wo, w1 (gated) w3 w2, no bias anywhere, hidden = width, so that seven
# linears are alike
class RMSNorm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(c))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


class LlamaBlock(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict(
            {n: nn.Linear(c, c, bias=False) for n in ("wq", "wk", "wv", "wo")}
        )
        self.feed_forward = nn.ModuleDict(
            {n: nn.Linear(c, c, bias=False) for n in ("w1", "w2", "w3")}
        )
        self.feed_forward["conv1"] = depthwise(c, bias=False)
        self.feed_forward["conv3"] = depthwise(c, bias=False)
        self.attention_norm = RMSNorm(c)
        self.ffn_norm = RMSNorm(c)

    def forward(self, x):
        y, a, f = self.attention_norm(x), self.attention, self.feed_forward
        x = x + a["wo"](softmax_attention(a["wq"](y), a["wk"](y), a["wv"](y), self.heads))
        y = self.ffn_norm(x)
        gate = F.gelu(f["conv1"](to_map(f["w1"](y))))
        return x + f["w2"](to_tokens(gate * f["conv3"](to_map(f["w3"](y)))))


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok_embeddings = nn.Conv2d(3, 16, 4, 4, bias=False)
        self.positions = nn.Parameter(torch.randn(16, 16))  # as many tokens as channels
        self.stage0 = nn.ModuleDict({"layers": nn.ModuleList([LlamaBlock(16, 4)])})
        self.stage1 = nn.ModuleDict({"layers": nn.ModuleList([LlamaBlock(16, 4)])})
        self.norm = RMSNorm(16)
        self.output = nn.Conv2d(32, 768, 1, bias=False)

    def forward(self, x):
        t = to_tokens(self.tok_embeddings(x)) + self.positions
        a = self.stage0["layers"][0](t)
        b = self.norm(self.stage1["layers"][0](a))
        return F.pixel_shuffle(self.output(to_map(torch.cat([a, b], -1))), 16) + bilinear(x, 4)
