"""FDAT's eight upsamplers. How their tensors tell which one a checkpoint has is in checkpoint.py.

Reference: ``UniUpsampleV3`` in traiNNer-redux (Apache-2.0) and spandrel (MIT), which define the
tensor names and the ``MetaUpsample`` buffer that checkpoints carry. Written anew here; attribute
names are kept for compatibility.

    features (B, embed_dim, H, W)  ->  image (B, num_out_ch, H * scale, W * scale)

Errors of the reference that are corrected here: sampling coordinates of ``dysample`` and ``lda``
are computed in at least float32 (in half precision they drift towards the right edge), ``dysample``
works on every device, and ``pa_up`` writes its true input width into ``MetaUpsample``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UPSAMPLER_TYPES = (
    "conv",
    "pixelshuffledirect",
    "pixelshuffle",
    "nearest+conv",
    "dysample",
    "transpose+conv",
    "lda",
    "pa_up",
)
"""``MetaUpsample`` stores a type as its index in this tuple."""

META_VERSION = 3
DYSAMPLE_GROUPS = 4
LDA_REDUCTION = 4
LDA_GROUPS = 2


def check_upsampler(kind: str, scale: int, embed_dim: int, mid_dim: int) -> None:
    """Raise ValueError where ``kind`` can't upscale by ``scale`` or doesn't fit the widths."""
    if kind not in UPSAMPLER_TYPES:
        raise ValueError(
            f"unknown upsampler_type {kind!r}; use one of {', '.join(UPSAMPLER_TYPES)}"
        )
    if scale == 1:
        return
    power_of_two = scale & (scale - 1) == 0
    if kind == "conv":
        raise ValueError(
            f"upsampler 'conv' does not upscale, so its scale must be 1, not {scale}; use another type"
        )
    if kind in ("pixelshuffle", "nearest+conv", "pa_up") and not (power_of_two or scale == 3):
        raise ValueError(f"upsampler {kind!r} supports scales 3 and powers of two, not {scale}")
    if kind == "transpose+conv" and scale not in (2, 3, 4):
        raise ValueError(f"upsampler 'transpose+conv' supports scales 2, 3 and 4, not {scale}")
    if kind == "dysample" and (mid_dim % DYSAMPLE_GROUPS or mid_dim <= DYSAMPLE_GROUPS):
        raise ValueError(
            f"dysample needs mid_dim to be a multiple of {DYSAMPLE_GROUPS} above it, not {mid_dim}"
        )
    if kind == "lda" and mid_dim % (LDA_REDUCTION * LDA_GROUPS):
        raise ValueError(
            f"lda needs mid_dim to be a multiple of {LDA_REDUCTION * LDA_GROUPS}, not {mid_dim}"
        )


def coordinate_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type of sampling coordinates: float32, or float64 for float64 features.

    Half precision can't address 2048 pixels.
    """
    return torch.promote_types(dtype, torch.float32)


class DySample(nn.Module):
    """Dynamic upsampling by point sampling.

    Liu et al., "Learning to Upsample by Learning to Sample", ICCV 2023.

    (B, in_channels, H, W) -> (B, out_channels, H * scale, W * scale)
    """

    init_pos: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, scale: int, groups: int = DYSAMPLE_GROUPS
    ) -> None:
        super().__init__()
        self.scale = scale
        self.groups = groups
        self.end_conv = nn.Conv2d(in_channels, out_channels, 1)
        self.offset = nn.Conv2d(in_channels, 2 * groups * scale**2, 1)
        self.scope = nn.Conv2d(in_channels, 2 * groups * scale**2, 1, bias=False)
        # centres of the sub-pixels, in input pixels from the centre of their pixel
        centres = (torch.arange(scale) - (scale - 1) / 2) / scale
        x, y = torch.meshgrid(centres, centres, indexing="xy")
        init_pos = torch.stack(
            [x.repeat(groups, 1), y.repeat(groups, 1)]
        )  # (2, groups * scale, scale)
        self.register_buffer("init_pos", init_pos.reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        exact = coordinate_dtype(x.dtype)
        offset = (self.offset(x) * self.scope(x).sigmoid()).to(exact) * 0.5 + self.init_pos.to(
            exact
        )
        columns = torch.arange(width, device=x.device, dtype=exact) + 0.5
        rows = torch.arange(height, device=x.device, dtype=exact) + 0.5
        offset = offset.view(batch, 2, -1, height, width)
        grid_x = (offset[:, 0] + columns) * (2 / width) - 1
        grid_y = (offset[:, 1] + rows[:, None]) * (2 / height) - 1
        grid = F.pixel_shuffle(
            torch.cat([grid_x, grid_y], 1), self.scale
        )  # (B, 2 * groups, sH, sW)
        grid = (
            grid.unflatten(1, (2, self.groups)).permute(0, 2, 3, 4, 1).flatten(0, 1)
        )  # (B * groups, sH, sW, 2)
        grouped = x.reshape(batch * self.groups, -1, height, width).to(exact)
        sampled = F.grid_sample(
            grouped, grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        return self.end_conv(sampled.to(x.dtype).reshape(batch, -1, *sampled.shape[-2:]))


class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channels of (B, C, H, W)."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class LDAUpsample(nn.Module):
    """Upsampling by local deformable attention with one head.

    Every output pixel attends to 3x3 samples of the input at learnt offsets around it. Du et al.,
    "LDA-AQU: Adaptive Query-guided Upsampling", ACM MM 2024.

    (B, channels, H, W) -> (B, channels, H * scale, W * scale)
    """

    KERNEL = 3
    OFFSET_RANGE = 11

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        hidden = channels // LDA_REDUCTION
        group_width = hidden // LDA_GROUPS
        taps = self.KERNEL**2
        self.scale = scale
        self.proj_q = nn.Conv2d(channels, hidden, 1, bias=False)
        self.proj_k = nn.Conv2d(channels, hidden, 1, bias=False)
        self.conv_offset = nn.Sequential(
            nn.Conv2d(group_width, group_width, 3, padding=1, groups=group_width, bias=False),
            ChannelLayerNorm(group_width),
            nn.SiLU(),
            nn.Conv2d(group_width, 2 * taps, 3, padding=1),
        )
        self.layer_norm = ChannelLayerNorm(channels)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(1, 1, 1, taps, hidden))

    def sampling_grid(self, query: Tensor) -> Tensor:
        """Where to sample: queries (B, D, sH, sW) -> grid (B * groups, taps * sH, sW, 2).

        The grid is for `F.grid_sample` with align_corners=True.
        """
        height, width = query.shape[-2:]
        exact = coordinate_dtype(query.dtype)
        offset = self.conv_offset(query.reshape(query.shape[0] * LDA_GROUPS, -1, height, width))
        offset = offset.tanh().to(exact) * self.OFFSET_RANGE
        offset = offset.unflatten(
            1, (self.KERNEL, self.KERNEL, 2)
        )  # (B * groups, ky, kx, 2, sH, sW)
        tap = torch.arange(self.KERNEL, device=query.device, dtype=exact) - self.KERNEL // 2
        rows = torch.arange(height, device=query.device, dtype=exact)
        columns = torch.arange(width, device=query.device, dtype=exact)
        y = offset[:, :, :, 0] + tap[:, None, None, None] + rows[:, None]
        x = offset[:, :, :, 1] + tap[:, None, None] + columns
        grid = torch.stack([x * (2 / (width - 1)) - 1, y * (2 / (height - 1)) - 1], -1)
        return grid.flatten(1, 3)

    def sample(self, x: Tensor, grid: Tensor) -> Tensor:
        """Sample (B, C, H, W) at the grid -> (B, C, taps, sH, sW)."""
        batch, channels, height, width = x.shape
        grouped = x.reshape(batch * LDA_GROUPS, -1, height, width).to(grid.dtype)
        sampled = F.grid_sample(
            grouped, grid, mode="bilinear", padding_mode="zeros", align_corners=True
        )
        return sampled.to(x.dtype).reshape(batch, channels, self.KERNEL**2, -1, grid.shape[2])

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[2] * self.scale, x.shape[3] * self.scale)
        normed = self.layer_norm(x)
        query = F.interpolate(
            self.proj_q(normed), size, mode="bilinear", align_corners=True
        )  # (B, D, sH, sW)
        grid = self.sampling_grid(query)
        bias = self.relative_position_bias_table[0, 0, 0].t()[
            None, :, :, None, None
        ]  # (1, D, taps, 1, 1)
        key = self.sample(self.proj_k(normed), grid) + bias  # (B, D, taps, sH, sW)
        value = self.sample(x, grid)  # (B, C, taps, sH, sW)
        logits = (query[:, :, None] * key).sum(1, keepdim=True) * query.shape[1] ** -0.5
        return (logits.softmax(2) * value).sum(2)  # (B, C, sH, sW)


class PixelAttention(nn.Module):
    """x * sigmoid(conv1x1(x)).

    Zhao et al., "Efficient Image Super-Resolution Using Pixel Attention", 2020.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x)


def upscale_steps(scale: int) -> list[int]:
    """The factors of a staged upsampler: 8 -> [2, 2, 2], 3 -> [3], 1 -> []."""
    return [3] if scale == 3 else [2] * int(math.log2(scale))


def upsampler_layers(
    kind: str, scale: int, embed_dim: int, num_out_ch: int, mid_dim: int
) -> list[nn.Module]:
    """The layers of an upsampler, in the order in which checkpoints number them."""

    def conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
        return nn.Conv2d(in_channels, out_channels, 3, padding=1)

    steps = upscale_steps(scale)
    if scale == 1 or kind == "conv":
        return [conv3(embed_dim, num_out_ch)]
    if kind == "pixelshuffledirect":
        return [conv3(embed_dim, num_out_ch * scale**2), nn.PixelShuffle(scale)]
    if kind == "pixelshuffle":
        layers: list[nn.Module] = [conv3(embed_dim, mid_dim), nn.LeakyReLU(0.01)]
        for step in steps:
            layers += [conv3(mid_dim, mid_dim * step**2), nn.PixelShuffle(step)]
        return [*layers, conv3(mid_dim, num_out_ch)]
    if kind == "nearest+conv":
        layers = []
        for step in steps:
            layers += [
                conv3(embed_dim, embed_dim),
                nn.Upsample(scale_factor=step),
                nn.LeakyReLU(0.2),
            ]
        return [
            *layers,
            conv3(embed_dim, embed_dim),
            nn.LeakyReLU(0.2),
            conv3(embed_dim, num_out_ch),
        ]
    if kind in ("dysample", "lda"):
        layers = [] if mid_dim == embed_dim else [conv3(embed_dim, mid_dim), nn.LeakyReLU(0.01)]
        if kind == "dysample":
            return [*layers, DySample(mid_dim, num_out_ch, scale)]
        return [*layers, LDAUpsample(mid_dim, scale), conv3(mid_dim, num_out_ch)]
    if kind == "transpose+conv":
        if scale == 2:
            layers = [nn.ConvTranspose2d(embed_dim, num_out_ch, 4, 2, 1)]
        elif scale == 3:
            layers = [nn.ConvTranspose2d(embed_dim, num_out_ch, 3, 3)]
        else:
            layers = [
                nn.ConvTranspose2d(embed_dim, embed_dim, 4, 2, 1),
                nn.GELU(),
                nn.ConvTranspose2d(embed_dim, num_out_ch, 4, 2, 1),
            ]
        return [*layers, conv3(num_out_ch, num_out_ch)]
    layers = []  # pa_up
    for index, step in enumerate(steps):
        layers += [
            nn.Upsample(scale_factor=step),
            conv3(embed_dim if index == 0 else mid_dim, mid_dim),
            PixelAttention(mid_dim),
            nn.LeakyReLU(0.2),
            conv3(mid_dim, mid_dim),
            nn.LeakyReLU(0.2),
        ]
    return [*layers, conv3(mid_dim, num_out_ch)]


class Upsampler(nn.Sequential):
    """Features (B, embed_dim, H, W) -> image (B, num_out_ch, H * scale, W * scale).

    Loaders recognise an FDAT by the buffer ``MetaUpsample`` (uint8: version, type, scale,
    embed_dim, num_out_ch, mid_dim, groups). It describes this module, so it is never overwritten
    from a checkpoint. Widths above 255 don't fit uint8 and are stored as 255;
    `checkpoint.infer_upsampler` takes widths from the weights.
    """

    MetaUpsample: Tensor

    def __init__(
        self, kind: str, scale: int, embed_dim: int, num_out_ch: int, mid_dim: int
    ) -> None:
        check_upsampler(kind, scale, embed_dim, mid_dim)
        super().__init__(*upsampler_layers(kind, scale, embed_dim, num_out_ch, mid_dim))
        meta = [
            META_VERSION,
            UPSAMPLER_TYPES.index(kind),
            scale,
            embed_dim,
            num_out_ch,
            mid_dim,
            DYSAMPLE_GROUPS,
        ]
        self.register_buffer(
            "MetaUpsample",
            torch.tensor([min(m, 255) for m in meta], dtype=torch.uint8, device="cpu"),
        )

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:  # type: ignore[no-untyped-def]
        super()._load_from_state_dict(
            {**state_dict, f"{prefix}MetaUpsample": self.MetaUpsample}, prefix, *args
        )
