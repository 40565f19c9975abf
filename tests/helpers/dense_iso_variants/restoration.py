"""Dense-Iso-ViT in the spelling of restoration networks: Restormer, BasicSR, EDSR, SAFMN,
EfficientViT."""

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


# Restormer: norm1.body.weight, qkv and project_out as 1x1 convolutions, transitions too, everything
# without bias
class BiasFreeNorm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(c))

    def forward(self, m):
        t = m.permute(0, 2, 3, 1)
        t = (
            (t - t.mean(-1, keepdim=True))
            / (t.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
            * self.weight
        )
        return t.permute(0, 3, 1, 2)


class NormBody(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.body = BiasFreeNorm(c)

    def forward(self, m):
        return self.body(m)


class FeedForward(nn.Module):
    def __init__(self, dim, factor):
        super().__init__()
        hidden = int(dim * factor)
        self.project_in = nn.Conv2d(dim, hidden * 2, 1, bias=False)
        self.dwconv = depthwise(hidden * 2, False)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=False)

    def forward(self, m):
        x1, x2 = self.dwconv(self.project_in(m)).chunk(2, dim=1)
        return self.project_out(F.gelu(x1) * x2)


class RestormerAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Conv2d(dim, dim * 3, 1, bias=False)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=False)

    def forward(self, m):
        q, k, v = (to_tokens(part) for part in self.qkv(m).chunk(3, 1))
        return self.project_out(to_map(softmax_attention(q, k, v, self.heads)))


class RestormerBlock(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1, self.attn = NormBody(dim), RestormerAttention(dim, heads)
        self.norm2, self.ffn = NormBody(dim), FeedForward(dim, 2.66)

    def forward(self, m):
        m = m + self.attn(self.norm1(m))
        return m + self.ffn(self.norm2(m))


class Restormer(nn.Module):
    def __init__(self, dims=(8, 12, 12, 16), heads=(1, 2, 2, 4)):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, dims[0], 4, 4, bias=False)
        self.pos = nn.Parameter(torch.randn(1, dims[0], 4, 4))
        for i, (d, h) in enumerate(zip(dims, heads), 1):
            setattr(
                self, f"encoder_level{i}", nn.Sequential(*[RestormerBlock(d, h) for _ in range(2)])
            )
        self.up1_2 = nn.Conv2d(8, 12, 1, bias=False)
        self.up3_4 = nn.Conv2d(
            12, 16, 1, bias=False
        )  # levels 2 and 3 have equal widths and no transition
        self.reduce_chan = nn.Conv2d(sum(dims), 8, 1, bias=False)
        self.refinement = nn.Sequential(
            nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        )
        self.upscale = nn.Sequential(nn.Conv2d(8, 8 * 64, 3, 1, 1, bias=False), nn.PixelShuffle(8))
        self.output = nn.Conv2d(8, 3, 3, 1, 1, bias=False)

    def forward(self, x):
        a = self.encoder_level1(self.patch_embed.proj(x) + self.pos)
        b = self.encoder_level2(self.up1_2(a))
        c = self.encoder_level3(b)
        d = self.encoder_level4(self.up3_4(c))
        f = self.refinement(self.reduce_chan(torch.cat([a, b, c, d], 1)))
        return self.output(self.upscale(f)) + bilinear(x, 2)


# BasicSR: mean as a buffer, conv_before_upsample, UpsampleOneStep numbers, conv_hr, conv_last, a
# single PReLU
class BasicSR(nn.Module):
    def __init__(self, std=False):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1))
        self.register_buffer(
            "std", torch.tensor([0.25, 0.5, 0.75]).view(1, 3, 1, 1) if std else None
        )
        self.conv_first = nn.Conv2d(3, 8, 4, 4)
        self.absolute_pos_embed = nn.Parameter(torch.randn(1, 16, 8))
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {"blocks": nn.ModuleList(TransformerBlock(c, 2, 3 * c) for _ in range(2))}
            )
            for c in (8, 12)
        )
        self.linear = nn.Linear(8, 12)
        self.norm = LN(12)
        self.conv_before_upsample = nn.Sequential(
            nn.Conv2d(20, 6, 3, 1, 1), nn.PReLU(num_parameters=6)
        )
        self.upsample = nn.Sequential(
            *[m for _ in range(4) for m in (nn.Conv2d(6, 24, 3, 1, 1), nn.PixelShuffle(2))]
        )
        self.conv_hr = nn.Conv2d(6, 6, 3, 1, 1)
        self.conv_last = nn.Conv2d(6, 3, 3, 1, 1)

    def forward(self, x):
        x = x - self.mean
        x = x if self.std is None else x / self.std
        t = to_tokens(self.conv_first(x)) + self.absolute_pos_embed
        for block in self.layers[0]["blocks"]:
            t = block(t)
        u = self.linear(t)
        for block in self.layers[1]["blocks"]:
            u = block(u)
        f = self.conv_before_upsample(to_map(torch.cat((t, self.norm(u)), -1)))
        y = self.conv_last(self.conv_hr(self.upsample(f))) + bilinear(x, 4)
        return (y if self.std is None else y * self.std) + self.mean


# EDSR: MeanShift convolutions at both ends, head, body and tail numbered through
class MeanShift(nn.Conv2d):
    def __init__(self, sign, std=(1.0, 1.0, 1.0)):
        super().__init__(3, 3, kernel_size=1)
        self.sign, self.std = sign, torch.tensor(std)
        self.mean = torch.tensor([0.4488, 0.4371, 0.4040])

    def settle(self):
        gain = 1 / self.std if self.sign < 0 else self.std
        self.weight.data = torch.diag(gain)[:, :, None, None]
        self.bias.data = self.sign * self.mean * (gain if self.sign < 0 else 1)


class EDSR(nn.Module):
    def __init__(self):
        super().__init__()
        self.sub_mean = MeanShift(-1, (0.5, 0.25, 2.0))
        self.add_mean = MeanShift(1, (0.5, 0.25, 2.0))
        self.head = nn.ModuleList([nn.Conv2d(3, 8, 4, 4)])
        self.body = nn.ModuleList(
            [
                nn.ModuleList([TransformerBlock(8, 4, 8), TransformerBlock(8, 4, 8)]),
                nn.Linear(8, 12),
            ]
        )
        self.body.append(nn.ModuleList([TransformerBlock(12, 4, 12)]))
        self.tail = nn.Sequential(
            nn.Conv2d(20, 4, 3, 1, 1),
            nn.Sequential(nn.Conv2d(4, 64, 3, 1, 1), nn.PixelShuffle(4)),
            nn.Sequential(nn.Conv2d(4, 64, 3, 1, 1), nn.PixelShuffle(4)),
            nn.Conv2d(4, 3, 3, 1, 1),
        )
        self.pos = nn.Parameter(torch.randn(1, 4, 4, 8))

    def forward(self, x):
        x = self.sub_mean(x)
        t = to_tokens(self.head[0](x)) + self.pos.flatten(1, 2)
        for block in self.body[0]:
            t = block(t)
        u = self.body[1](t)
        for block in self.body[2]:
            u = block(u)
        return self.add_mean(self.tail(to_map(torch.cat((t, u), -1))) + bilinear(x, 4))


# SAFMN: PixelUnshuffle and 1x1 convolution, channels-first norms of shape (C, 1, 1), to_feat and
# to_img
class ChannelsFirstNorm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(c, 1, 1))
        self.bias = nn.Parameter(torch.zeros(c, 1, 1))

    def forward(self, m):
        d = m - m.mean(1, keepdim=True)
        return d / (d.square().mean(1, keepdim=True) + 1e-6).sqrt() * self.weight + self.bias


class AttBlock(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = ChannelsFirstNorm(c), ChannelsFirstNorm(c)
        self.token_mixer = nn.ModuleDict(
            {"to_kv": nn.Conv2d(c, 2 * c, 1), "to_q": nn.Conv2d(c, c, 1, bias=False)}
        )
        self.token_mixer["aggr"] = nn.Conv2d(c, c, 1)
        self.ccm = nn.Sequential(nn.Conv2d(c, 4 * c, 1), depthwise(4 * c), nn.Conv2d(2 * c, c, 1))
        self.alpha = nn.Parameter(torch.ones(1, c, 1, 1))
        self.beta = nn.Parameter(torch.ones(1, c, 1, 1))

    def forward(self, m):
        y, t = self.norm1(m), self.token_mixer
        k, v = to_tokens(t["to_kv"](y)).chunk(2, -1)
        m = m + self.alpha * t["aggr"](
            to_map(softmax_attention(to_tokens(t["to_q"](y)), k, v, self.heads))
        )
        a, b = self.ccm[:2](self.norm2(m)).chunk(2, 1)
        return m + self.beta * self.ccm[2](a * F.gelu(b))


class Safmn(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_feat = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 8, 1))
        self.pos_embed = nn.Parameter(torch.randn(8, 4, 4))
        self.feats = nn.ModuleList(nn.Sequential(AttBlock(c, 2), AttBlock(c, 2)) for c in (8, 12))
        self.widen = nn.Conv2d(8, 12, 1)
        self.to_img = nn.Sequential(nn.Conv2d(20, 3 * 16 * 16, 3, 1, 1), nn.PixelShuffle(16))

    def forward(self, x):
        a = self.feats[0](self.to_feat(x) + self.pos_embed)
        b = self.feats[1](self.widen(a))
        return self.to_img(torch.cat([a, b], 1)) + bilinear(x, 4)


# SRVGG: activations in between as modules of their own list, one slope per channel before the
# shuffle; scale 3, patch 8
class SrVgg(nn.Module):
    def __init__(self):
        super().__init__()
        self.unfold = nn.Conv2d(3, 12, 8, 8)
        self.position_map = nn.Parameter(torch.randn(1, 12, 3, 3))
        self.trunk = nn.ModuleList([TransformerBlock(12, 3, 10)])
        self.convs = nn.ModuleList(
            [nn.Conv2d(12, 10, 3, 1, 1), nn.Conv2d(10, 90, 3, 1, 1), nn.Conv2d(10, 160, 3, 1, 1)]
        )
        self.acts = nn.ModuleList([nn.PReLU(10), nn.PReLU(90), nn.PReLU(10)])
        self.to_rgb = nn.Conv2d(10, 12, 3, 1, 1)

    def forward(self, x):
        f = to_map(
            self.trunk[0](to_tokens(self.unfold(x)) + self.position_map.flatten(2).transpose(1, 2))
        )
        f = self.acts[0](self.convs[0](f))
        f = F.pixel_shuffle(self.acts[1](self.convs[1](f)), 3)
        f = self.acts[2](F.pixel_shuffle(self.convs[2](f), 4))
        return F.pixel_shuffle(self.to_rgb(f), 2) + bilinear(x, 3)
