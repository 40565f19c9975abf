"""Dense-Iso-ViT with rows in another order: queries, keys and values, and PixelShuffles in a
row."""

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
    ReadmeGDFN,
    TimmAttention,
    bilinear,
    depthwise,
    softmax_attention,
    to_map,
    to_tokens,
)


class Net(nn.Module):
    """Two stages of two blocks and a head, whichever they are."""

    def __init__(self, block, head):
        super().__init__()
        self.to_patches = nn.Conv2d(3, 8, 4, 4)
        self.pos = nn.Parameter(torch.randn(1, 16, 8))
        self.level1 = nn.ModuleList(block(8) for _ in range(2))
        self.widen = nn.Linear(8, 12)
        self.level2 = nn.ModuleList(block(12) for _ in range(2))
        self.head = head

    def forward(self, x):
        t = to_tokens(self.to_patches(x)) + self.pos
        for layer in self.level1:
            t = layer(t)
        u = self.widen(t)
        for layer in self.level2:
            u = layer(u)
        return self.head(to_map(torch.cat([t, u], -1))) + bilinear(x, 4)


class Block(nn.Module):
    def __init__(self, c, attention):
        super().__init__()
        self.norm_after_attn, self.attn = LN(c), attention(c)
        self.ffn, self.norm_before_attn = ReadmeGDFN(c, c), LN(c)

    def forward(self, t):
        t = t + self.attn(self.norm_before_attn(t))
        return t + self.ffn(self.norm_after_attn(t))


# rearrange(qkv, "b n (h d qkv) -> qkv b h n d"), and the README's "fusion conv, 4 x PixelShuffle"
# to the letter
class LettersLast(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.qkv, self.proj = nn.Linear(c, 3 * c), nn.Linear(c, c)

    def forward(self, t):
        b, n, c = t.shape
        q, k, v = self.qkv(t).reshape(b, n, 2, c // 2, 3).permute(4, 0, 2, 1, 3)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))


def four_shuffles():
    return Net(
        lambda c: Block(c, LettersLast),
        nn.Sequential(nn.Conv2d(20, 768, 3, 1, 1), *[nn.PixelShuffle(2) for _ in range(4)]),
    )


# rearrange(qkv, "b n (d qkv h) -> qkv b h n d"), and a head with PReLU between its rows
class HeadsLast(LettersLast):
    def forward(self, t):
        b, n, c = t.shape
        q, k, v = self.qkv(t).reshape(b, n, c // 2, 3, 2).permute(3, 0, 4, 1, 2)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))


def two_and_two_shuffles():
    shuffles = [nn.PixelShuffle(2), nn.PixelShuffle(2)]
    return Net(
        lambda c: Block(c, HeadsLast),
        nn.Sequential(
            nn.Conv2d(20, 128, 3, 1, 1),
            nn.PReLU(128),
            *shuffles,
            nn.Conv2d(8, 48, 3, 1, 1),
            *shuffles,
        ),
    )


def one_shuffle():
    return nn.Sequential(nn.Conv2d(20, 8, 1), nn.Conv2d(8, 768, 3, 1, 1), nn.PixelShuffle(16))


# q + kv, k and v of every head side by side
class KeyValuePerHead(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.q, self.kv, self.proj = nn.Linear(c, c), nn.Linear(c, 2 * c), nn.Linear(c, c)

    def forward(self, t):
        b, n, c = t.shape
        k, v = self.kv(t).reshape(b, n, 2, 2, c // 2).permute(3, 0, 1, 2, 4).flatten(3)
        return self.proj(softmax_attention(self.q(t), k, v, 2))


# fused layers that name another order
class ValueKey(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.to_vk, self.to_q, self.to_out = nn.Linear(c, 2 * c), nn.Linear(c, c), nn.Linear(c, c)

    def forward(self, t):
        v, k = self.to_vk(t).chunk(2, -1)
        return self.to_out(softmax_attention(self.to_q(t), k, v, 2))


class KeyValueQuery(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.kvq, self.out = nn.Linear(c, 3 * c), nn.Linear(c, c)

    def forward(self, t):
        k, v, q = self.kvq(t).chunk(3, -1)
        return self.out(softmax_attention(q, k, v, 2))


# q, k, v as a module list
class ListOfThree(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc = nn.Linear(c, c)
        self.linears = nn.ModuleList(nn.Linear(c, c) for _ in range(3))

    def forward(self, t):
        return self.fc(softmax_attention(*[linear(t) for linear in self.linears], 2))


def two_heads(c):
    return TimmAttention(c, 2)


def with_attention(attention):
    return Net(lambda c: Block(c, attention), one_shuffle())


# the scales of both branches bare in the block, named as NAFNet does: like the weight and bias of a
# norm
class ScaledBlock(Block):
    def __init__(self, c):
        super().__init__(c, two_heads)
        self.beta, self.gamma = (
            nn.Parameter(torch.zeros(1, c, 1, 1)),
            nn.Parameter(torch.zeros(1, c, 1, 1)),
        )

    def forward(self, t):
        t = t + to_tokens(self.beta * to_map(self.attn(self.norm_before_attn(t))))
        return t + to_tokens(self.gamma * to_map(self.ffn(self.norm_after_attn(t))))


# every stage under a name of its own and in a list: torch.save and safetensors' dictionaries hold
# its tensors twice
class TwiceRegistered(Net):
    def __init__(self):
        super().__init__(lambda c: Block(c, two_heads), one_shuffle())
        self.stages = nn.ModuleList([self.level1, self.level2])


# parameters used as x @ W: their shapes are those of nn.Linear
class BareMatrices(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.W_q, self.W_k, self.W_v, self.W_o = (nn.Parameter(torch.randn(c, c)) for _ in range(4))

    def forward(self, t):
        return softmax_attention(t @ self.W_q, t @ self.W_k, t @ self.W_v, 2) @ self.W_o


class BareFused(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.W_qkv, self.W_o = nn.Parameter(torch.randn(c, 3 * c)), nn.Parameter(torch.randn(c, c))

    def forward(self, t):
        return softmax_attention(*(t @ self.W_qkv).chunk(3, -1), 2) @ self.W_o


# equal widths, everything defined from the last to the first: numbers contradict the order of the
# file
class LastFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = one_shuffle()
        self.head[0] = nn.Conv2d(24, 8, 1)
        self.project_b, self.project_a = nn.Linear(8, 8), nn.Linear(8, 8)
        for name in ("third", "second", "first"):
            setattr(self, name + "_stage", nn.ModuleList([Block(8, two_heads)]))
        self.pos = nn.Parameter(torch.randn(1, 16, 8))
        self.to_patches = nn.Conv2d(3, 8, 4, 4)

    def forward(self, x):
        a = self.first_stage[0](to_tokens(self.to_patches(x)) + self.pos)
        b = self.second_stage[0](self.project_a(a))
        c = self.third_stage[0](self.project_b(b))
        return self.head(to_map(torch.cat([a, b, c], -1))) + bilinear(x, 4)


# LLaMA's names for the two halves, whose depthwise convolutions are defined the other way round
class GateUpDown(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (
            nn.Linear(c, 2 * c),
            nn.Linear(c, 2 * c),
            nn.Linear(2 * c, c),
        )
        self.conv_up, self.conv_gate = depthwise(2 * c), depthwise(2 * c)

    def forward(self, t):
        gate, up = self.conv_gate(to_map(self.gate_proj(t))), self.conv_up(to_map(self.up_proj(t)))
        return self.down_proj(to_tokens(F.gelu(gate) * up))


class GateUpDownBlock(Block):
    def __init__(self, c):
        super().__init__(c, two_heads)
        self.ffn = GateUpDown(c)


# one block without modules inside, hidden as wide as the tokens: attention's "out" has the shape of
# the GDFN's "ffout"
class OneLevel(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm1, self.qkv, self.out = LN(c), nn.Linear(c, 3 * c), nn.Linear(c, c)
        self.norm2, self.ffin = LN(c), nn.Linear(c, 2 * c)
        self.dw1, self.dw2, self.ffout = depthwise(c), depthwise(c), nn.Linear(c, c)

    def forward(self, t):
        t = t + self.out(softmax_attention(*self.qkv(self.norm1(t)).chunk(3, -1), 2))
        a, b = to_map(self.ffin(self.norm2(t))).chunk(2, 1)
        return t + self.ffout(to_tokens(self.dw1(a) * F.gelu(self.dw2(b))))
