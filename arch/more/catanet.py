"""CATANet: attention among the tokens of the whole picture that look alike.

Source: Liu et al., "CATANet: Efficient Content-Aware Token Aggregation for Lightweight Image
Super-Resolution", CVPR 2025, whose repository defines the names of the tensors; also in neosr.

    image -> conv -> per block: aggregation, local attention, conv, + skip -> + skip
          -> [conv, pixel shuffle, LeakyReLU] ... -> conv -> + bilinear enlargement

Aggregation: every token belongs to the nearest of a few centres, learned in training. Tokens sorted
by their centre are cut into groups; each group attends to itself, to the next group and to the
centres. So every token depends on how many of the whole picture come before it: tiles change the
result.

Local attention works in overlapping patches, whose overlaps are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ModelLoadError
from .member import Member, MemberConfig, indices, shuffle_factor, whole_number

PATCHES = (16, 20, 24, 28)  # sides of the patches of successive blocks, over and over
PATCH_OVERLAP = 2
GROUPED = 4096  # a group has this many tokens, divided by the number of centres
HEADS = 4


@dataclass(frozen=True, kw_only=True)
class CATANetConfig(MemberConfig):
    """Hyperparameters.

    Attributes:
        width, query_width, hidden: features, those of queries and keys, and of the feed-forward
            part.
        centres: number of centres of every block.
        heads: attention heads.
    """

    width: int = 40
    query_width: int = 36
    hidden: int = 96
    centres: tuple[int, ...] = (16, 32, 64, 128, 16, 32, 64, 128)
    heads: int = HEADS


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention with several heads: (..., N, D), (..., M, D), (..., M, C) -> (..., N, C)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(-2, -3) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(-2, -3).flatten(-2)


class FeedForward(nn.Module):
    """fc2(y + gelu(depthwise5x5(y))), y = gelu(fc1(x)), on tokens (B, H, W, C)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        convolution = nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden)
        self.dwconv = nn.ModuleDict({"depthwise_conv": nn.Sequential(convolution, nn.GELU())})
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.fc1(x))
        mixed = self.dwconv["depthwise_conv"](x.movedim(-1, 1)).movedim(1, -1)
        return self.fc2(x + mixed)


class Normed(nn.Module):
    """A LayerNorm and what follows it."""

    def __init__(self, width: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x))


class Attention(nn.Module):
    """Attention of tokens (..., N, C) among themselves."""

    def __init__(self, width: int, query_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, query_width, bias=False)
        self.to_k = nn.Linear(width, query_width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(attend(self.to_q(x), self.to_k(x), self.to_v(x), self.heads))


class GroupAttention(Attention):
    """Attention of sorted tokens (B, N, C) within groups, to the next group, and to centres."""

    def grouped(self, x: Tensor, centres: tuple[Tensor, Tensor], size: int) -> Tensor:
        """``centres`` are the keys and values of the centres; ``size`` the tokens of a group."""
        count = x.shape[1]
        size = min(count, size)
        missing = -count % size

        def groups(tokens: Tensor, more: int) -> Tensor:
            """The last tokens come again behind the others, backwards, until all groups are full."""
            backwards = torch.arange(-1, -1 - missing - more, -1, device=tokens.device) % count
            padded = torch.cat([tokens, tokens[:, backwards]], 1)
            return padded.unfold(1, size + more, size).transpose(-2, -1)  # (B, groups, tokens, C)

        q = groups(self.to_q(x), 0) if missing else self.to_q(x).unflatten(1, (-1, size))
        k, v = (groups(make(x), size) for make in (self.to_k, self.to_v))
        out = attend(q, k, v, self.heads)
        global_k, global_v = (c.expand(*q.shape[:2], -1, -1) for c in centres)
        out = out + attend(q, global_k, global_v, self.heads)
        return self.proj(out.flatten(1, 2)[:, :count])


class CentreProjection(nn.Module):
    """Keys and values of the centres (M, C)."""

    def __init__(self, width: int, query_width: int) -> None:
        super().__init__()
        self.to_k = nn.Linear(width, query_width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)

    def forward(self, centres: Tensor) -> tuple[Tensor, Tensor]:
        return self.to_k(centres), self.to_v(centres)


class Aggregation(nn.Module):
    """(B, H, W, C) -> (B, H, W, C), with tokens sorted by the centre that is nearest."""

    means: Tensor

    def __init__(self, config: CATANetConfig, centres: int) -> None:
        super().__init__()
        width, query_width = config.width, config.query_width
        self.size = GROUPED // centres
        self.norm = nn.LayerNorm(width)
        self.mlp = Normed(width, FeedForward(width, config.hidden))
        self.irca_attn = CentreProjection(width, query_width)
        self.iasa_attn = GroupAttention(width, query_width, config.heads)
        self.register_buffer("means", torch.zeros(centres, width))
        self.conv1x1 = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(1, 2)  # (B, N, C)
        nearness = F.normalize(tokens, dim=-1) @ F.normalize(self.means, dim=-1).t()
        # stable, as sorting is on a GPU, where it was trained; on a CPU the authors' sort is not
        order = nearness.argmax(-1).argsort(stable=True)[..., None].expand_as(tokens)
        centres = self.irca_attn(self.means)
        mixed = self.iasa_attn.grouped(tokens.gather(1, order), centres, self.size)
        mixed = torch.empty_like(mixed).scatter(1, order, mixed).view_as(x)
        x = x + self.conv1x1(mixed.movedim(-1, 1)).movedim(1, -1)
        return self.mlp(x) + x


def patch_plan(length: int, side: int) -> tuple[list[int], list[float]]:
    """Where patches of ``side`` start on an axis, and by what their sum is multiplied.

    Each patch after the first halves where it meets the one before it, as in training, also where
    three meet at the end.
    """
    step = side - PATCH_OVERLAP
    ends = range(0, max(1, length + step - side), step)
    starts = [max(0, min(i, length - side)) for i in ends]
    factors = [1.0] * length
    for i, start in zip(ends[1:], starts[1:], strict=True):
        for place in range(start, i + PATCH_OVERLAP):
            factors[place] /= 2
    return starts, factors


class LocalAttention(nn.Module):
    """Attention within overlapping patches, and a feed-forward part; (B, H, W, C)."""

    def __init__(self, config: CATANetConfig) -> None:
        super().__init__()
        width = config.width
        self.layer = nn.ModuleList(
            [
                Normed(width, Attention(width, config.query_width, config.heads)),
                Normed(width, FeedForward(width, config.hidden)),
            ]
        )

    def forward(self, x: Tensor, side: int) -> Tensor:
        height, width = x.shape[1:3]
        rows, row_factors = patch_plan(height, side)
        columns, column_factors = patch_plan(width, side)
        attention, feed_forward = self.layer
        total = torch.zeros_like(x)
        for top in rows:  # a row of patches at a time
            band = x[:, top : top + side]
            patches = torch.stack([band[:, :, left : left + side] for left in columns], 1)
            tokens = patches.flatten(2, 3)  # (B, patches, N, C)
            patches = (attention(tokens) + tokens).view_as(patches)
            for left, patch in zip(columns, patches.unbind(1), strict=True):
                total[:, top : top + side, left : left + side] += patch
        factors = x.new_tensor(row_factors)[:, None] * x.new_tensor(column_factors)
        x = total * factors[..., None]
        return feed_forward(x) + x


class CATANet(nn.Module):
    """(B, C, H, W) in [0, 1] -> (B, C, H * scale, W * scale), unclamped; any H, W >= 1."""

    def __init__(self, config: CATANetConfig) -> None:
        super().__init__()
        width, scale = config.width, config.scale
        self.scale = scale
        self.first_conv = nn.Conv2d(config.in_channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.ModuleList([Aggregation(config, centres), LocalAttention(config)])
            for centres in config.centres
        )
        self.mid_convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1) for _ in config.centres
        )
        if scale == 4:
            self.upconv1 = nn.Conv2d(width, 4 * width, 3, padding=1)
            self.upconv2 = nn.Conv2d(width, 4 * width, 3, padding=1)
        elif scale > 1:
            self.upconv = nn.Conv2d(width, scale**2 * width, 3, padding=1)
        self.last_conv = nn.Conv2d(width, config.out_channels, 3, padding=1)

    def enlarged(self, x: Tensor) -> Tensor:
        """Features at the size of the result."""
        names = {1: (), 4: ("upconv1", "upconv2")}.get(self.scale, ("upconv",))
        for name in names:
            factor = 2 if len(names) == 2 else self.scale
            x = F.leaky_relu(F.pixel_shuffle(getattr(self, name)(x), factor), 0.1)
        return x

    def forward(self, x: Tensor) -> Tensor:
        base = F.interpolate(x, scale_factor=self.scale, mode="bilinear")
        shallow = deep = self.first_conv(x)
        for i, (pair, conv) in enumerate(zip(self.blocks, self.mid_convs, strict=True)):
            aggregation, local = pair.children()
            tokens = aggregation(deep.movedim(1, -1).contiguous())
            tokens = local(tokens, PATCHES[i % len(PATCHES)])
            deep = deep + conv(tokens.movedim(-1, 1))
        return self.last_conv(self.enlarged(deep + shallow)) + base


class CATANetArch(Member):
    """Detects and loads CATANet. Tensors don't tell the option ``heads``, nor patches and groups,
    which are taken as published."""

    title = "CATANet"
    source = "its authors, neosr"
    options = ("heads",)
    examples = (
        CATANetConfig(width=16, query_width=12, hidden=24, centres=(16, 32), scale=4),
        CATANetConfig(width=16, query_width=12, hidden=24, centres=(64,), scale=3),
        CATANetConfig(width=16, query_width=12, hidden=24, centres=(128,), scale=1),
    )

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        names = ("means", "iasa_attn.to_q.weight", "irca_attn.to_k.weight")
        return all(f"blocks.0.0.{name}" in state_dict for name in names)

    def prepare(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        flags = [key for key in state_dict if key.endswith(".0.initted")]
        if any(not bool(state_dict[key]) for key in flags):
            raise ModelLoadError("CATANet: a network whose centres were never trained")
        return {key: value for key, value in state_dict.items() if key not in flags}

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> CATANetConfig:
        width, channels = state_dict["first_conv.weight"].shape[:2]
        scale = 4 if "upconv1.weight" in state_dict else 1
        if "upconv.weight" in state_dict:
            scale = shuffle_factor(len(state_dict["upconv.weight"]), width, "CATANet: upconv")
        query_width = len(state_dict["blocks.0.0.iasa_attn.to_q.weight"])
        heads = whole_number("heads", options.get("heads")) or HEADS
        if query_width % heads or width % heads:
            raise ModelLoadError(f"CATANet: {heads} heads don't divide {query_width} and {width}")
        return CATANetConfig(
            in_channels=channels,
            out_channels=len(state_dict["last_conv.weight"]),
            scale=scale,
            width=width,
            query_width=query_width,
            hidden=len(state_dict["blocks.0.0.mlp.fn.fc1.weight"]),
            centres=tuple(
                len(state_dict[f"blocks.{i}.0.means"]) for i in indices(state_dict, "blocks.")
            ),
            heads=heads,
        )

    def statistics(self, config: CATANetConfig) -> str:
        return "tokens are sorted"

    def assumed(self, config: CATANetConfig, options: Mapping[str, Any]) -> list[str]:
        heads = [] if "heads" in options else [f"assumed heads={config.heads}"]
        return [*heads, "assumed patches of 16, 20, 24, 28 and groups of 4096 / centres tokens"]

    def build(self, config: CATANetConfig) -> CATANet:
        return CATANet(config)


ARCHITECTURE = CATANetArch
