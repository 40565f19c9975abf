"""FDAT (FastDAT): the network, its configuration and its spandrel architecture.

Source: "DAT Inspired Lightweight Attention Network for Real World Image Super Resolution" by sharekhan; reference
implementations in traiNNer-redux (Apache-2.0) and spandrel >= 0.4.2 (MIT). Written anew here; attribute names are kept
because checkpoints carry them.

    image (B, 3, H, W) in [0, 1]
      -> [pixel unshuffle] -> conv_first            -> shallow features (B, C, H, W)
      -> groups: blocks on tokens (B, H, W, C), alternately window and channel attention, then conv + skip
      -> conv_after, + shallow                      -> upsampler -> (B, 3, H * scale, W * scale)

A block: ``x += AIM(attention(n1 x), gelu(depthwise(n1 x)))`` and ``x += fc2(depthwise(gelu(fc1(n2 x))))``.

Two parts see the whole image, so tiles change the result: the channel attention (its C x C logits are sums over all
tokens) and the average pool in AIM's channel gate.

Different from spandrel 0.4.2: `Upsampler` (see upsampler.py); ``conv`` with a scale above 1 is read as the x1
network that it is; images smaller than the padding work; ``load_state_dict`` leaves its argument alone.

More than 400 lines, because an architecture is read from its equations to its loader in one file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from spandrel import Architecture, ImageModelDescriptor, ModelTiling, SizeRequirements, StateDict
from torch import Tensor, nn

from ..altered import is_altered
from ..contract import TileContract
from ..errors import ModelLoadError
from .upsampler import Upsampler, check_upsampler, infer_upsampler

if TYPE_CHECKING:
    from .engine.run import ExactEngine

UNSHUFFLED_SCALE = 4  # with unshuffle_mod the network upscales x4 from an image made 4 / scale times smaller
TILE_OVERLAP = 32


@dataclass(frozen=True, kw_only=True)
class FDATConfig:
    """Hyperparameters of FDAT, by the names that checkpoints' training options use.

    Attributes:
        num_in_ch, num_out_ch: image channels.
        scale: output size / input size.
        embed_dim: token width C, a multiple of ``num_heads``.
        num_groups: residual groups.
        depth_per_group: repetitions of ``group_block_pattern`` in a group.
        num_heads: attention heads, of both kinds of attention.
        window_size: side of the attention window, in tokens.
        ffn_expansion_ratio: hidden width of the feed-forward part is ``int(embed_dim * ratio)``.
        aim_reduction_ratio: bottleneck of AIM's channel gate is ``embed_dim // ratio``.
        group_block_pattern: the kinds of attention, in order.
        upsampler_type: one of `arch.fdat.upsampler.UPSAMPLER_TYPES`.
        mid_dim: width inside the upsamplers ``pixelshuffle``, ``dysample``, ``lda`` and ``pa_up``.
        unshuffle_mod: scales 1 and 2 only: work on an image pixel-unshuffled by ``4 / scale``, upscale it x4.
        drop_path_rate: stochastic depth of the last block in training; it grows linearly from 0.
    """

    num_in_ch: int = 3
    num_out_ch: int = 3
    scale: int = 4
    embed_dim: int = 120
    num_groups: int = 4
    depth_per_group: int = 3
    num_heads: int = 4
    window_size: int = 8
    ffn_expansion_ratio: float = 2.0
    aim_reduction_ratio: int = 8
    group_block_pattern: tuple[str, ...] = ("spatial", "channel")
    upsampler_type: str = "transpose+conv"
    mid_dim: int = 64
    unshuffle_mod: bool = False
    drop_path_rate: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "group_block_pattern", tuple(self.group_block_pattern))
        for name in ("num_in_ch", "num_out_ch", "scale", "embed_dim", "num_groups", "depth_per_group", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"FDAT: {name} is {getattr(self, name)}; it must be at least 1")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"FDAT: embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}")
        if not self.group_block_pattern or set(self.group_block_pattern) - {"spatial", "channel"}:
            raise ValueError(f"FDAT: group_block_pattern {self.group_block_pattern} may hold 'spatial' and 'channel'")
        if self.embed_dim < self.aim_reduction_ratio:
            raise ValueError(f"FDAT: aim_reduction_ratio {self.aim_reduction_ratio} exceeds embed_dim {self.embed_dim}")
        if self.unshuffle_mod and self.scale > 2:
            raise ValueError(f"FDAT: unshuffle_mod works with scales 1 and 2, not {self.scale}; leave it off")
        check_upsampler(self.upsampler_type, self.upsampler_scale, self.embed_dim, self.mid_dim)

    @property
    def unshuffle(self) -> int:
        """Factor of the pixel unshuffle in front: 1 for none."""
        return UNSHUFFLED_SCALE // self.scale if self.unshuffle_mod else 1

    @property
    def upsampler_scale(self) -> int:
        """Features are enlarged by so much: the scale, times what unshuffling made smaller."""
        return self.scale * self.unshuffle

    @property
    def ffn_dim(self) -> int:
        """Hidden width of the feed-forward part."""
        return int(self.embed_dim * self.ffn_expansion_ratio)

    @property
    def blocks_per_group(self) -> tuple[str, ...]:
        """The kind of attention of every block of a group."""
        return self.group_block_pattern * self.depth_per_group


def _preset(embed_dim: int, groups: int, depth: int, heads: int, ratio: float, drop_path: float) -> FDATConfig:
    return FDATConfig(
        embed_dim=embed_dim,
        num_groups=groups,
        depth_per_group=depth,
        num_heads=heads,
        ffn_expansion_ratio=ratio,
        drop_path_rate=drop_path,
    )


PRESETS: dict[str, FDATConfig] = {
    "tiny": _preset(96, 2, 2, 3, 1.5, 0.05),
    "light": _preset(108, 3, 2, 4, 2.0, 0.08),
    "medium": _preset(120, 4, 3, 4, 2.0, 0.1),
    "large": _preset(180, 4, 4, 6, 2.0, 0.1),
    "xl": _preset(180, 6, 6, 6, 2.0, 0.1),
    "medium_aligned": _preset(128, 4, 3, 4, 2.0, 0.1),
}
"""The published sizes, x4 with ``transpose+conv``; ``dataclasses.replace(PRESETS["tiny"], scale=2)`` makes others."""


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): drops the branch of whole samples in training, rescaling the rest."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * keep / (1 - self.rate)


def depthwise(dim: int) -> nn.Conv2d:
    """3x3 convolution of each channel by itself, (B, dim, H, W) -> (B, dim, H, W)."""
    return nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)


def convolve_tokens(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution to tokens (B, H, W, C); channels-last memory, so nothing is copied."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class WindowAttention(nn.Module):
    """Attention inside windows aligned to the top left, with a learnt bias per pair of positions.

    Tokens that pad the last windows are zero and stay in the softmax, as they were in training.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.bias = nn.Parameter(torch.empty(num_heads, window_size**2, window_size**2))
        nn.init.trunc_normal_(self.bias, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, dim = x.shape
        size, heads = self.window_size, self.num_heads
        x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
        rows, columns = x.shape[1] // size, x.shape[2] // size
        x = x.view(batch, rows, size, columns, size, dim).transpose(2, 3)  # (B, rows, columns, s, s, C)
        qkv = self.qkv(x.reshape(-1, size**2, dim))  # (windows, s*s, 3C)
        q, k, v = qkv.unflatten(-1, (3, heads, dim // heads)).permute(2, 0, 3, 1, 4)  # (windows, heads, s*s, c)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        x = self.proj(x.transpose(1, 2).reshape(-1, size**2, dim))  # (windows, s*s, C)
        x = x.view(batch, rows, columns, size, size, dim).transpose(2, 3)
        return x.reshape(batch, rows * size, columns * size, dim)[:, :height, :width]


class ChannelAttention(nn.Module):
    """Attention between channels (Zamir et al., Restormer, 2022): its logits are sums over all tokens of the image."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.temp = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        dim = x.shape[-1]
        qkv = self.qkv(x).flatten(1, 2).unflatten(-1, (3, self.num_heads, dim // self.num_heads))
        q, k, v = qkv.permute(2, 0, 3, 4, 1)  # (B, heads, c, N)
        logits = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temp  # (B, heads, c, c)
        mixed = logits.softmax(-1) @ v  # (B, heads, c, N)
        return self.proj(mixed.flatten(1, 2).transpose(1, 2)).view_as(x)


class AIM(nn.Module):
    """Attention interaction module: one of two gates fuses the attention branch with the convolution branch.

    Spatial blocks scale the attention per channel (``cg``, from the image's mean of the convolution branch);
    channel blocks scale the convolution per token (``sg``, from the attention). Both gates exist in every block.
    """

    def __init__(self, dim: int, reduction_ratio: int) -> None:
        super().__init__()
        self.sg = nn.Sequential(nn.Conv2d(dim, 1, 1, bias=False), nn.Sigmoid())
        self.cg = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(dim, dim // reduction_ratio, 1, bias=False),
            nn.GELU(),
            nn.Conv2d(dim // reduction_ratio, dim, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, attention: Tensor, convolution: Tensor, kind: str) -> Tensor:
        if kind == "spatial":
            return attention * convolve_tokens(self.cg, convolution) + convolution  # gate (B, 1, 1, C)
        return attention + convolution * convolve_tokens(self.sg, attention)  # gate (B, H, W, 1)


class FeedForward(nn.Module):
    """Linear, GELU, depthwise 3x3, Linear."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim, bias=False)
        self.smix = depthwise(hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(convolve_tokens(self.smix, F.gelu(self.fc1(x))))


class Block(nn.Module):
    """One dual-path block on tokens (B, H, W, C); ``kind`` is "spatial" or "channel"."""

    def __init__(self, config: FDATConfig, kind: str, drop_path: float) -> None:
        super().__init__()
        dim, heads = config.embed_dim, config.num_heads
        self.kind = kind
        self.n1 = nn.LayerNorm(dim)
        self.n2 = nn.LayerNorm(dim)
        self.attn = (
            WindowAttention(dim, heads, config.window_size) if kind == "spatial" else ChannelAttention(dim, heads)
        )
        self.conv = nn.Sequential(depthwise(dim), nn.GELU())
        self.inter = AIM(dim, config.aim_reduction_ratio)
        self.ffn = FeedForward(dim, config.ffn_dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        n1 = self.n1(x)
        x = x + self.drop_path(self.inter(self.attn(n1), convolve_tokens(self.conv, n1), self.kind))
        return x + self.drop_path(self.ffn(self.n2(x)))


class ResidualGroup(nn.Module):
    """Blocks on tokens, a 3x3 convolution, and a skip around both; features (B, C, H, W)."""

    def __init__(self, config: FDATConfig, drop_paths: list[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, kind, d) for kind, d in zip(config.blocks_per_group, drop_paths))
        self.conv = nn.Conv2d(config.embed_dim, config.embed_dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1).contiguous()  # (B, H, W, C)
        for block in self.blocks:
            tokens = block(tokens)
        return self.conv(tokens.permute(0, 3, 1, 2)) + x


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (B, C, H, W) at the bottom and right by reflection, and by replication where the image is too small."""
    for dim in (2, 3):
        size = x.shape[dim]
        missing = -size % multiple
        reflected = min(missing, size - 1)
        for amount, mode in ((reflected, "reflect"), (missing - reflected, "replicate")):
            if amount:
                x = F.pad(x, (0, amount, 0, 0) if dim == 3 else (0, 0, 0, amount), mode)
    return x


class FDAT(nn.Module):
    """The network: (B, num_in_ch, H, W) in [0, 1] -> (B, num_out_ch, H * scale, W * scale), unclamped.

    Works for any H, W >= 1 and in float64, float32, bfloat16 and float16.
    """

    def __init__(self, config: FDATConfig = PRESETS["medium"]) -> None:
        super().__init__()
        self.config = config
        dim, blocks = config.embed_dim, len(config.blocks_per_group)
        first = nn.Conv2d(config.num_in_ch * config.unshuffle**2, dim, 3, padding=1)
        self.conv_first = nn.Sequential(nn.PixelUnshuffle(config.unshuffle), first) if config.unshuffle_mod else first
        last = max(1, config.num_groups * blocks - 1)
        rates = [config.drop_path_rate * i / last for i in range(config.num_groups * blocks)]
        self.groups = nn.Sequential(
            *(ResidualGroup(config, rates[i * blocks : (i + 1) * blocks]) for i in range(config.num_groups))
        )
        self.conv_after = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.upsampler = Upsampler(
            config.upsampler_type, config.upsampler_scale, dim, config.num_out_ch, config.mid_dim
        )
        self.apply(self._init_weights)

    @staticmethod
    def _init_weights(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    @property
    def tile_contract(self) -> TileContract:
        """Tiles of any size; starts on window borders keep the windows where the whole image has them."""
        return TileContract(
            size=None,
            overlap=TILE_OVERLAP,
            alignment=self.config.window_size * self.config.unshuffle,
            network=self,
        )

    @property
    def exact_engine(self) -> ExactEngine:
        """The whole-image result in bounded memory; ordinary tiles change it.

        Raises:
            AttributeError: hooks or wrapped layers make the network another one, which the engine would not see.
        """
        from .engine.run import ExactEngine  # it imports this file

        if is_altered(self):
            raise AttributeError("an altered network has no exact engine; run the network itself")
        return ExactEngine(self)

    def train(self, mode: bool = True) -> FDAT:
        from .engine.weights import forget_packed  # it imports this file

        if mode != self.training:  # fused optimisers write to weights without raising their version
            forget_packed(self)
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] * self.config.scale, x.shape[3] * self.config.scale
        shallow = self.conv_first(pad_to_multiple(x, self.config.unshuffle))  # (B, C, H, W)
        deep = self.conv_after(self.groups(shallow))
        return self.upsampler(deep + shallow)[:, :, :height, :width]


def simplest_ratio(dim: int, hidden_dim: int) -> float:
    """The decimal with the fewest digits for which ``int(dim * ratio) == hidden_dim``: 183 of 108 -> 1.7."""
    for digits in range(4):
        first = math.floor(hidden_dim / dim * 10**digits)
        for numerator in (first, first + 1):
            if int(dim * (numerator / 10**digits)) == hidden_dim:
                return numerator / 10**digits
    return (hidden_dim + 0.5) / dim


def shortest_pattern(kinds: list[str]) -> tuple[str, ...]:
    """The shortest sequence whose repetition is ``kinds``."""
    for length in range(1, len(kinds) + 1):
        if len(kinds) % length == 0 and kinds[:length] * (len(kinds) // length) == kinds:
            return tuple(kinds[:length])
    raise ModelLoadError("FDAT: the first group has no blocks")


def infer_config(state_dict: Mapping[str, Tensor], *, scale: int | None = None) -> FDATConfig:
    """Read the configuration off the tensors of a checkpoint: ``infer_config(FDAT(c).state_dict()) == c``.

    What tensors don't determine:
        drop_path_rate: that of the preset with the same sizes, else 0.1; it has no effect in inference.
        window_size: 8 where the pattern has no spatial block; it has no effect then.
        mid_dim: from MetaUpsample (64 without) for the upsamplers that don't use it; it has no effect then.
        scale: for ``lda``, and for ``pa_up`` and ``nearest+conv`` with one step (2 or 3), from MetaUpsample.
        aim_reduction_ratio, ffn_expansion_ratio: widths are integer parts of a quotient; a power of two (the
        shortest decimal) that gives the same width is taken.

    Args:
        state_dict: a checkpoint's tensors, without wrappers and prefixes. Not modified.
        scale: output size / input size, where neither tensors nor MetaUpsample tell.

    Raises:
        ModelLoadError: something is missing or contradicts itself.
    """
    unshuffled = "conv_first.1.weight" in state_dict
    first = state_dict["conv_first.1.weight" if unshuffled else "conv_first.weight"].shape
    embed_dim = first[0]
    prefix = "groups.0.blocks."
    depth = len({key.split(".")[3] for key in state_dict if key.startswith(prefix)})
    kinds = ["spatial" if f"{prefix}{i}.attn.bias" in state_dict else "channel" for i in range(depth)]
    pattern = shortest_pattern(kinds)
    if "spatial" in kinds:
        heads, positions, _ = state_dict[f"{prefix}{kinds.index('spatial')}.attn.bias"].shape
        window_size = math.isqrt(positions)
    else:
        heads, window_size = state_dict[f"{prefix}0.attn.temp"].shape[0], 8
    bottleneck = state_dict[f"{prefix}0.inter.cg.1.weight"].shape[0]
    reductions = [r for r in (8, 4, 16, 2, 32, 1) if embed_dim // r == bottleneck]
    upsampler = infer_upsampler(
        {key.removeprefix("upsampler."): value for key, value in state_dict.items() if key.startswith("upsampler.")},
        embed_dim,
        None if unshuffled else first[1],
        UNSHUFFLED_SCALE if unshuffled else scale,
    )
    if unshuffled:
        unshuffle = math.isqrt(first[1] // int(upsampler["num_out_ch"]))
        if unshuffle not in (2, 4):
            raise ModelLoadError(
                f"FDAT: conv_first.1 takes {first[1]} channels; a pixel unshuffle by 2 or 4 was expected"
            )
        num_in_ch, net_scale = first[1] // unshuffle**2, UNSHUFFLED_SCALE // unshuffle
    else:
        num_in_ch, net_scale = first[1], int(upsampler["scale"])
    if scale is not None and scale != net_scale:
        raise ModelLoadError(f"FDAT: the option scale={scale} contradicts the checkpoint, which upscales x{net_scale}")
    config = FDATConfig(
        num_in_ch=num_in_ch,
        num_out_ch=int(upsampler["num_out_ch"]),
        scale=net_scale,
        embed_dim=embed_dim,
        num_groups=len({key.split(".")[1] for key in state_dict if key.startswith("groups.")}),
        depth_per_group=depth // len(pattern),
        num_heads=heads,
        window_size=window_size,
        ffn_expansion_ratio=simplest_ratio(embed_dim, state_dict[f"{prefix}0.ffn.fc1.weight"].shape[0]),
        aim_reduction_ratio=reductions[0] if reductions else embed_dim // bottleneck,
        group_block_pattern=pattern,
        upsampler_type=str(upsampler["upsampler_type"]),
        mid_dim=int(upsampler["mid_dim"]),
        unshuffle_mod=unshuffled,
    )
    name = preset_name(config)
    return replace(config, drop_path_rate=PRESETS[name].drop_path_rate) if name else config


def preset_name(config: FDATConfig) -> str | None:
    """The published size that ``config`` has, whatever its scale, channels and upsampler; None for another size."""
    sizes = ("embed_dim", "num_groups", "depth_per_group", "num_heads", "ffn_expansion_ratio", "window_size")
    for name, preset in PRESETS.items():
        if all(getattr(config, size) == getattr(preset, size) for size in sizes):
            return name
    return None


class FDATArch(Architecture[FDAT]):
    """Detects and loads FDAT checkpoints, with ``MetaUpsample`` or without."""

    REQUIRED = (
        "groups.0.blocks.0.n1.weight",
        "groups.0.blocks.0.inter.cg.1.weight",
        "groups.0.blocks.0.ffn.fc1.weight",
        "groups.0.blocks.0.ffn.smix.weight",
        "conv_after.weight",
    )

    def __init__(self) -> None:
        super().__init__(id="FDAT", detect=self._has_fdat_keys)

    @classmethod
    def _has_fdat_keys(cls, state_dict: StateDict) -> bool:
        first = "conv_first.weight" in state_dict or "conv_first.1.weight" in state_dict
        return first and all(key in state_dict for key in cls.REQUIRED)

    def load(self, state_dict: StateDict, *, scale: int | None = None) -> ImageModelDescriptor[FDAT]:
        """Build the network that ``state_dict`` describes and load it.

        Args:
            state_dict: the tensors of an FDAT; not modified.
            scale: see `infer_config`.

        Raises:
            ModelLoadError: the configuration can't be told.
            RuntimeError: tensors are missing, left over or of the wrong shape.
        """
        config = infer_config(state_dict, scale=scale)
        tags = [f"{config.embed_dim}dim", config.upsampler_type]
        if name := preset_name(config):
            tags.append(name)
        if config.unshuffle_mod:
            tags.append("unshuffle")
        return ImageModelDescriptor(
            FDAT(config),
            state_dict,
            architecture=self,
            purpose="Restoration" if config.scale == 1 else "SR",
            tags=tags,
            supports_half=True,
            supports_bfloat16=True,
            scale=config.scale,
            input_channels=config.num_in_ch,
            output_channels=config.num_out_ch,
            size_requirements=SizeRequirements(multiple_of=config.unshuffle),
            tiling=ModelTiling.DISCOURAGED,
        )
