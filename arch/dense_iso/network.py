"""Dense-Iso-ViT: the network, from its blocks to the whole.

Source: README of "Dense-Iso-ViT" by Sathya77 (MIT). Neither code nor checkpoint is public; what
that README leaves open is a field of `DenseIsoViTConfig`, and the defaults are the reading that
gives the published size (23.8M parameters, 90.99 MB). Written from that description alone.

    image (B, 3, 64, 64) in [0, 1]
      -> convolution 4x4, stride 4, + position embedding      -> tokens (B, 256, 192), always a 16 x 16 grid
      -> stage i: blocks of global attention and GDFN         -> h_i (B, 256, dims[i]), Linear to dims[i + 1]
      -> concatenation of all h_i                             -> features (B, 1120, 16, 16)
      -> head: fusion, then convolutions with PixelShuffle    -> (B, 3, 256, 256)
      -> + bilinear upscale of the image

A block: ``x += attention(norm1 x)`` and ``x += GDFN(norm2 x)`` with depthwise 3x3 convolutions
``path_1``, ``path_2`` in ``GDFN(x) = out_proj(path_1(a) * gelu(path_2(b)))`` where ``a, b = halves
of g_proj(x)``.

The network takes windows of one size only; `arch.windowed` runs it on images of any size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ACTIVATIONS, RGB, VALUE_RANGES, DenseIsoViTConfig
from .meta import META_KEY, encode
from .start import initialise


def norm(config: DenseIsoViTConfig, width: int, present: bool = True) -> nn.Module:
    """A LayerNorm over the last axis, or nothing."""
    return nn.LayerNorm(width, eps=config.norm_eps) if present else nn.Identity()


class Attention(nn.Module):
    """Multi-head self-attention over all tokens of the window. (B, N, C) -> (B, N, C)."""

    def __init__(self, config: DenseIsoViTConfig, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.projection = (
            nn.Linear(width, width, bias=config.projection_bias) if config.projection else None
        )

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, heads, C / heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, N, C / heads) each
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, N, C)
        return x if self.projection is None else self.projection(x)


class GDFN(nn.Module):
    """Gated depthwise feed-forward network. (B, N, C) -> (B, N, C) with N = grid * grid."""

    def __init__(self, config: DenseIsoViTConfig, width: int, hidden: int) -> None:
        super().__init__()
        self.grid = config.grid
        self.gate_first = config.gated_half == "first"
        self.g_proj = nn.Linear(width, 2 * hidden, bias=config.g_proj_bias)
        self.path_1 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=config.path_bias)
        self.path_2 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=config.path_bias)
        self.out_proj = nn.Linear(hidden, width, bias=config.out_proj_bias)

    def forward(self, x: Tensor) -> Tensor:
        x = (
            self.g_proj(x).transpose(1, 2).unflatten(2, (self.grid, self.grid))
        )  # (B, 2 * hidden, grid, grid)
        first, second = x.chunk(2, dim=1)
        first, second = self.path_1(first), self.path_2(second)
        x = F.gelu(first) * second if self.gate_first else first * F.gelu(second)
        return self.out_proj(x.flatten(2).transpose(1, 2))


class TransformerBlock(nn.Module):
    """Pre-norm attention and GDFN, each with its skip. (B, N, C) -> (B, N, C)."""

    def __init__(self, config: DenseIsoViTConfig, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = norm(config, width)
        self.attention = Attention(config, width, heads)
        self.norm2 = norm(config, width)
        self.gdfn = GDFN(config, width, hidden)
        self.layer_scale_1 = nn.Parameter(torch.ones(width)) if config.layer_scale else None
        self.layer_scale_2 = nn.Parameter(torch.ones(width)) if config.layer_scale else None

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attention(self.norm1(x))
        x = x + (attended if self.layer_scale_1 is None else self.layer_scale_1 * attended)
        fed_forward = self.gdfn(self.norm2(x))
        return x + (fed_forward if self.layer_scale_2 is None else self.layer_scale_2 * fed_forward)


class Stage(nn.Module):
    """Blocks of one width and, optionally, a LayerNorm on their output (applied by the network)."""

    def __init__(self, config: DenseIsoViTConfig, index: int) -> None:
        super().__init__()
        width, heads, hidden = config.dims[index], config.heads[index], config.hidden[index]
        self.blocks = nn.ModuleList(
            TransformerBlock(config, width, heads, hidden) for _ in range(config.depths[index])
        )
        self.norm = norm(config, width, config.stage_norms[index])


class Transition(nn.Module):
    """From one stage's width to the next. (B, N, dims[i]) -> (B, N, dims[i + 1])."""

    def __init__(self, config: DenseIsoViTConfig, index: int) -> None:
        super().__init__()
        before, after = config.dims[index], config.dims[index + 1]
        self.norm_before = norm(config, before, config.transition_norm == "before")
        self.linear = nn.Linear(before, after, bias=config.transition_bias)
        self.norm_after = norm(config, after, config.transition_norm == "after")

    def forward(self, x: Tensor) -> Tensor:
        return self.norm_after(self.linear(self.norm_before(x)))


class DenseIsoViT(nn.Module):
    """The network, for one window size; the output is not clamped.

    (B, 3, window, window) -> (B, 3, window * scale, window * scale)
    """

    def __init__(self, config: DenseIsoViTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DenseIsoViTConfig()
        width = config.dims[0]
        self.patch_embedding = nn.Conv2d(
            RGB, width, config.patch_size, config.patch_size, bias=config.patch_bias
        )
        self.patch_norm = norm(config, width, config.patch_norm)
        self.position_embedding = (
            nn.Parameter(torch.zeros(1, config.grid**2, width))
            if config.position_embedding
            else None
        )
        self.stages = nn.ModuleList(Stage(config, i) for i in range(len(config.dims)))
        self.transitions = nn.ModuleList(
            Transition(config, i) if present else nn.Identity()
            for i, present in enumerate(config.transitions)
        )
        concatenated = sum(config.dims)
        self.fusion_norm = norm(config, concatenated, config.fusion_norm)
        self.head = nn.ModuleList()
        channels = concatenated
        for layer in config.head:
            self.head.append(
                nn.Conv2d(
                    channels,
                    layer.channels,
                    layer.kernel,
                    padding=layer.kernel // 2,
                    bias=layer.bias,
                )
            )
            channels = layer.channels // layer.shuffle**2
        self.register_buffer(META_KEY, encode(config))
        gain, offset = VALUE_RANGES[config.value_range]
        initialise(self, blocks=sum(config.depths), mid_grey=0.5 * gain + offset)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:  # type: ignore[no-untyped-def]
        """Load all but the buffer: it describes this network, so checkpoints need not have it."""
        own = {**state_dict, prefix + META_KEY: encode(self.config)}
        super()._load_from_state_dict(own, prefix, *args)

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:  # type: ignore[no-untyped-def]
        """Save the buffer anew: averages of weights (EMA) that take it for one have damaged it."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        buffer = destination[prefix + META_KEY]
        destination[prefix + META_KEY] = encode(self.config).to(buffer.device)

    def features(self, x: Tensor) -> Tensor:
        """Outputs of all stages, concatenated.

        (B, 3, window, window) -> (B, sum(dims), grid, grid)
        """
        x = self.patch_embedding(x).flatten(2).transpose(1, 2)  # (B, N, dims[0])
        x = self.patch_norm(x)
        if self.position_embedding is not None:
            x = x + self.position_embedding
        outputs = []
        for i, stage in enumerate(self.stages):
            assert isinstance(stage, Stage)
            x = self.run_stage(stage, x)  # (B, N, dims[i])
            normalised = stage.norm(x)
            outputs.append(normalised)
            if i < len(self.transitions):
                x = self.transitions[i](
                    normalised if self.config.stage_norm_routing == "both" else x
                )
        x = self.fusion_norm(torch.cat(outputs, dim=-1))  # (B, N, sum(dims))
        return x.transpose(1, 2).unflatten(2, (self.config.grid, self.config.grid))

    def run_stage(self, stage: Stage, x: Tensor) -> Tensor:
        """The blocks of one stage. (B, N, dims[i]) -> (B, N, dims[i])."""
        for block in stage.blocks:
            x = block(x)
        return x

    def reconstruct(self, x: Tensor) -> Tensor:
        """The head. (B, sum(dims), grid, grid) -> (B, 3, window * scale, window * scale)."""
        for convolution, layer in zip(self.head, self.config.head):
            x = ACTIVATIONS[layer.activation](convolution(x))
            if layer.shuffle > 1:
                x = F.pixel_shuffle(x, layer.shuffle)
        return x

    def skip(self, x: Tensor) -> Tensor:
        """The image itself, enlarged; zeros without a skip."""
        mode, scale = self.config.skip, self.config.scale
        if mode == "none":
            return x.new_zeros(()).expand(*x.shape[:2], x.shape[2] * scale, x.shape[3] * scale)
        align_corners = None if mode == "nearest" else self.config.align_corners
        return F.interpolate(x, scale_factor=scale, mode=mode, align_corners=align_corners)

    def check_input(self, x: Tensor) -> None:
        """Raises ValueError for anything but (B, RGB, window, window)."""
        window = self.config.window
        if x.ndim != 4 or tuple(x.shape[1:]) != (RGB, window, window):
            raise ValueError(
                f"Dense-Iso-ViT takes (B, {RGB}, {window}, {window}), not {tuple(x.shape)}; "
                "WindowedUpscaler runs it on other sizes"
            )

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        gain, offset = VALUE_RANGES[self.config.value_range]
        x = x if gain == 1 else x * gain + offset
        x = self.reconstruct(self.features(x)) + self.skip(x)
        return x if gain == 1 else (x - offset) / gain
