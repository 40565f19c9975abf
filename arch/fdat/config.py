"""FDAT's hyperparameters and the published sizes."""

from __future__ import annotations

from dataclasses import dataclass

from .upsampler import check_upsampler

# with unshuffle_mod the image is first made 4 / scale times smaller, then upscaled x4
UNSHUFFLED_SCALE = 4


@dataclass(frozen=True, kw_only=True)
class FDATConfig:
    """Hyperparameters of FDAT, named as in the training options of its checkpoints.

    Attributes:
        num_in_ch, num_out_ch: image channels.
        scale: output size / input size.
        embed_dim: token width C, a multiple of ``num_heads``.
        num_groups: residual groups.
        depth_per_group: repetitions of ``group_block_pattern`` in a group.
        num_heads: attention heads; the same for both kinds of attention.
        window_size: side of the attention window, in tokens.
        ffn_expansion_ratio: hidden width of the feed-forward part is ``int(embed_dim * ratio)``.
        aim_reduction_ratio: bottleneck of AIM's channel gate is ``embed_dim // ratio``.
        group_block_pattern: "spatial" or "channel" attention of successive blocks, in order.
        upsampler_type: one of `arch.fdat.upsampler.UPSAMPLER_TYPES`.
        mid_dim: width inside the upsamplers ``pixelshuffle``, ``dysample``, ``lda`` and ``pa_up``.
        unshuffle_mod: for scales 1 and 2 only: the image is pixel-unshuffled by ``4 / scale``
            first, then upscaled x4.
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
        for name in (
            "num_in_ch",
            "num_out_ch",
            "scale",
            "embed_dim",
            "num_groups",
            "depth_per_group",
            "num_heads",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"FDAT: {name} is {getattr(self, name)}; it must be at least 1")
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"FDAT: embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}"
            )
        if not self.group_block_pattern or set(self.group_block_pattern) - {"spatial", "channel"}:
            raise ValueError(
                f"FDAT: group_block_pattern {self.group_block_pattern} may hold 'spatial' and 'channel'"
            )
        if self.embed_dim < self.aim_reduction_ratio:
            raise ValueError(
                f"FDAT: aim_reduction_ratio {self.aim_reduction_ratio} exceeds embed_dim {self.embed_dim}"
            )
        if self.unshuffle_mod and self.scale > 2:
            raise ValueError(
                f"FDAT: unshuffle_mod works with scales 1 and 2, not {self.scale}; leave it off"
            )
        check_upsampler(self.upsampler_type, self.upsampler_scale, self.embed_dim, self.mid_dim)

    @property
    def unshuffle(self) -> int:
        """Factor of the pixel unshuffle before the first convolution; 1 if there is none."""
        return UNSHUFFLED_SCALE // self.scale if self.unshuffle_mod else 1

    @property
    def upsampler_scale(self) -> int:
        """Factor by which the upsampler enlarges the features: ``scale * unshuffle``."""
        return self.scale * self.unshuffle

    @property
    def ffn_dim(self) -> int:
        """Hidden width of the feed-forward part."""
        return int(self.embed_dim * self.ffn_expansion_ratio)

    @property
    def blocks_per_group(self) -> tuple[str, ...]:
        """The kind of attention of every block of a group."""
        return self.group_block_pattern * self.depth_per_group


def _preset(
    embed_dim: int, groups: int, depth: int, heads: int, ratio: float, drop_path: float
) -> FDATConfig:
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
"""The published sizes, all x4 with ``transpose+conv``.

Other scales are made by ``dataclasses.replace(PRESETS["tiny"], scale=2)``.
"""


def preset_name(config: FDATConfig) -> str | None:
    """Name of the published size that ``config`` has; None if it has none of them.

    Scale, channels and upsampler are not compared.
    """
    sizes = (
        "embed_dim",
        "num_groups",
        "depth_per_group",
        "num_heads",
        "ffn_expansion_ratio",
        "window_size",
    )
    for name, preset in PRESETS.items():
        if all(getattr(config, size) == getattr(preset, size) for size in sizes):
            return name
    return None
