"""Hyperparameters of Dense-Iso-ViT. Everything that its README leaves open is a field."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch.nn.functional as F

ACTIVATIONS = {
    "none": lambda x: x,
    "relu": F.relu,
    "leaky_relu_0.01": lambda x: F.leaky_relu(x, 0.01),
    "leaky_relu_0.1": lambda x: F.leaky_relu(x, 0.1),
    "leaky_relu_0.2": lambda x: F.leaky_relu(x, 0.2),
    "gelu": F.gelu,
    "silu": F.silu,
}
# gain and offset that map [0, 1] to the range
VALUE_RANGES = {"0..1": (1.0, 0.0), "-1..1": (2.0, -1.0), "0..255": (255.0, 0.0)}
PUBLISHED_HEADS = {192: 6, 256: 8, 288: 6, 384: 8}
CHOICES = {
    "stage_norm_routing": ("both", "head"),
    "transition_norm": ("none", "before", "after"),
    "gated_half": ("second", "first"),
    "skip": ("bilinear", "bicubic", "nearest", "none"),
    "value_range": tuple(VALUE_RANGES),
}
RGB = 3


@dataclass(frozen=True, kw_only=True)
class HeadLayer:
    """One convolution of the head: conv(channels, kernel) -> activation -> PixelShuffle(shuffle).

    Attributes:
        channels: output channels of the convolution, before the shuffle.
        kernel: odd side of the kernel; zero padding keeps the size.
        shuffle: factor of the PixelShuffle that follows; 1: none.
        bias: whether the convolution has a bias.
        activation: one of `ACTIVATIONS`.
    """

    channels: int
    kernel: int = 3
    shuffle: int = 1
    bias: bool = True
    activation: str = "none"

    def __post_init__(self) -> None:
        _require(
            self.channels >= 1 and self.shuffle >= 1,
            f"channels and shuffle are positive, not {self}",
        )
        _require(self.kernel % 2 == 1, f"a head kernel is odd, not {self.kernel}")
        _require(
            self.channels % self.shuffle**2 == 0,
            f"{self.channels} channels do not shuffle by {self.shuffle}",
        )
        _require(
            self.activation in ACTIVATIONS,
            f"activation is one of {', '.join(ACTIVATIONS)}, not {self.activation!r}",
        )


def pixel_shuffle_head(
    *,
    fusion_width: int = 192,
    fusion_kernel: int = 3,
    widths: tuple[int, ...] = (192, 192, 192, 192),
    kernel: int = 3,
) -> tuple[HeadLayer, ...]:
    """The published kind of head: fusion, convolution + PixelShuffle(2) per width, and RGB."""
    upscaling = (HeadLayer(channels=4 * width, kernel=kernel, shuffle=2) for width in widths)
    fusion = HeadLayer(channels=fusion_width, kernel=fusion_kernel)
    return (fusion, *upscaling, HeadLayer(channels=RGB, kernel=kernel))


def default_heads(dims: tuple[int, ...]) -> tuple[int, ...]:
    """Number of attention heads of every stage, if nothing else determines it.

    As published for published widths, else so many that the width of a head is nearest to 32.
    """

    def nearest(width: int) -> int:
        divisors = [n for n in range(1, width + 1) if width % n == 0]
        return min(divisors, key=lambda n: abs(math.log(width / n / 32)))

    return tuple(PUBLISHED_HEADS.get(width) or nearest(width) for width in dims)


@dataclass(frozen=True, kw_only=True)
class DenseIsoViTConfig:
    """Hyperparameters of Dense-Iso-ViT. Per-stage tuples of length 1 are repeated for every stage.

    Attributes:
        window: side of the input, in pixels; a multiple of ``patch_size``.
        patch_size: kernel and stride of the patch embedding.
        dims: token width of every stage.
        depths: blocks of every stage.
        heads: attention heads of every stage; empty: `default_heads`.
        hidden: GDFN width of every stage (each of the two halves); empty: 4 x ``dims``, as
            published.
        patch_bias, qkv_bias, projection_bias, g_proj_bias, path_bias, out_proj_bias,
            transition_bias: whether the layer has a bias.
        projection: whether attention ends in an output projection.
        layer_scale: whether both branches of a block are multiplied by a learned vector.
        patch_norm: whether there is a LayerNorm after the patch embedding.
        position_embedding: whether a learned vector per token is added after that.
        stage_norms: whether there is a LayerNorm on the output of a stage.
        stage_norm_routing: who sees the normalised tokens: "both" the next stage and the head, or
            only the "head".
        transitions: whether there is a Linear between stages i and i + 1; needed if widths differ.
        transition_norm: "none", or LayerNorm "before" or "after" every transition.
        fusion_norm: LayerNorm on the concatenated features.
        head: the convolutions from ``sum(dims)`` channels to RGB, the fusion first.
        gated_half: which half of ``g_proj`` goes through GELU, "second" (as published) or "first".
        norm_eps: epsilon of every LayerNorm.
        skip: how the image is enlarged before the head's output is added: "bilinear" (as
            published), "bicubic", "nearest", or "none".
        align_corners: of a bilinear or bicubic skip.
        value_range: what the network was trained on: "0..1", "-1..1" or "0..255".
    """

    window: int = 64
    patch_size: int = 4
    dims: tuple[int, ...] = (192, 256, 288, 384)
    depths: tuple[int, ...] = (3,)
    heads: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()
    patch_bias: bool = True
    qkv_bias: bool = True
    projection: bool = True
    projection_bias: bool = True
    g_proj_bias: bool = True
    path_bias: bool = True
    out_proj_bias: bool = True
    layer_scale: bool = False
    patch_norm: bool = False
    position_embedding: bool = True
    stage_norms: tuple[bool, ...] = (False,)
    stage_norm_routing: str = "both"
    transitions: tuple[bool, ...] = (True,)
    transition_bias: bool = True
    transition_norm: str = "none"
    fusion_norm: bool = False
    head: tuple[HeadLayer, ...] = field(default_factory=pixel_shuffle_head)
    gated_half: str = "second"
    norm_eps: float = 1e-5
    skip: str = "bilinear"
    align_corners: bool = False
    value_range: str = "0..1"

    def __post_init__(self) -> None:
        stages = len(self.dims)
        _require(
            stages >= 1 and min(self.dims) >= 1,
            f"dims are positive widths, one per stage, not {self.dims}",
        )
        self._fill("heads", self.heads or default_heads(self.dims))
        self._fill("hidden", self.hidden or tuple(4 * width for width in self.dims))
        for name, length in (
            ("depths", stages),
            ("stage_norms", stages),
            ("transitions", stages - 1),
        ):
            given = getattr(self, name)
            self._fill(name, given * length if len(given) == 1 else given)
        if not self.projection:
            self._fill("projection_bias", False)
        if not any(self.transitions):
            self._fill("transition_bias", False)
            self._fill("transition_norm", "none")
        self._check_stages()
        self._check_head()
        _require(
            self.patch_size >= 1 and self.window >= 1 and self.window % self.patch_size == 0,
            f"window {self.window} is no multiple of patch {self.patch_size}",
        )
        _require(0 < self.norm_eps < math.inf, f"norm_eps is positive, not {self.norm_eps}")
        for name, choices in CHOICES.items():
            found = getattr(self, name)
            _require(found in choices, f"{name} is one of {', '.join(choices)}, not {found!r}")

    def _check_stages(self) -> None:
        stages = len(self.dims)
        for name in ("depths", "heads", "hidden", "stage_norms"):
            found = getattr(self, name)
            _require(
                len(found) == stages,
                f"{name} has {len(found)} entries for {stages} stages: {found}",
            )
        found = self.transitions
        _require(
            len(found) == stages - 1,
            f"transitions has {len(found)} entries for {stages} stages: {found}",
        )
        _require(min(self.depths) >= 1 and min(self.hidden) >= 1, "depths and hidden are positive")
        for width, heads in zip(self.dims, self.heads):
            _require(
                heads >= 1 and width % heads == 0, f"{heads} heads do not divide the width {width}"
            )
        for present, before, after in zip(self.transitions, self.dims, self.dims[1:]):
            _require(
                present or before == after, f"no transition between the widths {before} and {after}"
            )

    def _check_head(self) -> None:
        _require(len(self.head) >= 1, "head has at least one layer")
        last = self.head[-1]
        _require(
            last.channels == RGB * last.shuffle**2,
            f"the head ends in {last.channels} channels, not {RGB} colours",
        )
        enlarged = math.prod(layer.shuffle for layer in self.head)
        _require(
            enlarged % self.patch_size == 0,
            f"the head enlarges the token grid {enlarged} times, no multiple of the patch size {self.patch_size}",
        )

    def _fill(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def grid(self) -> int:
        """Tokens along one side."""
        return self.window // self.patch_size

    @property
    def scale(self) -> int:
        """Output size / input size."""
        return math.prod(layer.shuffle for layer in self.head) // self.patch_size


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"Dense-Iso-ViT configuration: {message}")
