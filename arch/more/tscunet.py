"""TSCUNet: U-Nets of convolutions beside shifted windows, each of which joins three frames.

Source: aaf6aa (SCUNet, network_tscunet.py) and traiNNer-redux, which define the names of the
tensors; SCUNet: Zhang et al., "Practical Blind Denoising via Swin-Conv-UNet and Data Synthesis",
2022.

    frames, padded -> m_head, each by itself
      -> m_layers, in turn: every three neighbours become one, until one is left
      -> + m_res of the middle frame's features -> dense blocks, upsampling, m_tail

So a joined frame serves several clips: moving on by one frame costs one U-Net for each layer. The
windows of attention are laid from the padded picture's corner, so tiles change the result.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.reflection import reflect
from ..contract import Recall
from ..errors import ModelLoadError
from .clip import ClipNetwork
from .member import Member, MemberConfig, indices, whole_number

WINDOW = 8
HEAD_WIDTH = 32
LEVELS = 3
MULTIPLE = 64
"""Sides are padded to multiples of this, and by as much again."""
LARGE, SMALL = 256, 64
"""Of training's ``input_resolution`` the two that make a difference: up to `SMALL` the windows of
the lowest level are not shifted."""


@dataclass(frozen=True, kw_only=True)
class TSCUNetConfig(MemberConfig):
    """Hyperparameters.

    Attributes:
        frames: that the network takes.
        width: features C at full size; twice as many at each level below.
        blocks: on every level of a U-Net, down and up.
        dense, growth: ESRGAN's blocks before upsampling, and the width of their convolutions.
        residual: whether the middle frame's features are added.
        shifted_below: whether every second block of the lowest level shifts its windows.
    """

    frames: int = 5
    width: int = 64
    blocks: int = 2
    dense: int = 2
    growth: int = 32
    residual: bool = True
    shifted_below: bool = True
    alignment: int = MULTIPLE


class WindowAttention(nn.Module):
    """Attention within windows of 8x8, shifted by 4 or not, with a bias per relative position.

    On (B, H, W, C), whose sides are multiples of 8. A shift goes around the picture, and what does
    not belong together is masked.
    """

    def __init__(self, width: int, shifted: bool) -> None:
        super().__init__()
        self.heads, self.shift = width // HEAD_WIDTH, WINDOW // 2 if shifted else 0
        self.embedding_layer = nn.Linear(width, 3 * width)
        side = 2 * WINDOW - 1
        self.relative_position_params = nn.Parameter(torch.zeros(self.heads, side, side))
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        x = x.roll((-self.shift, -self.shift), (1, 2)) if self.shift else x
        rows, columns = height // WINDOW, width // WINDOW
        x = x.view(batch, rows, WINDOW, columns, WINDOW, channels).transpose(2, 3)
        qkv = self.embedding_layer(x.reshape(batch, rows * columns, WINDOW**2, channels))
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self._bias()
        if self.shift:
            bias = torch.where(self._apart(rows, columns, x.device), float("-inf"), bias)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # (B, windows, heads, 64, c)
        x = self.linear(x.transpose(2, 3).flatten(3))
        x = x.view(batch, rows, columns, WINDOW, WINDOW, channels).transpose(2, 3)
        x = x.reshape(batch, height, width, channels)
        return x.roll((self.shift, self.shift), (1, 2)) if self.shift else x

    def _bias(self) -> Tensor:
        """(heads, 64, 64), from query to key."""
        side = torch.arange(WINDOW, device=self.relative_position_params.device)
        apart = side[:, None] - side + WINDOW - 1
        rows, columns = apart[:, None, :, None], apart[None, :, None, :]  # (y, x, y', x')
        return self.relative_position_params[:, rows, columns].flatten(3).flatten(1, 2)

    def _apart(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """(windows, 1, 64, 64) bool: pairs that only the shift around the picture brings together.

        They are in windows of the last row or column, on different sides of where it ends.
        """
        half = torch.arange(WINDOW, device=device) >= WINDOW - self.shift
        last_row = torch.arange(rows, device=device) == rows - 1
        last_column = torch.arange(columns, device=device) == columns - 1
        # the part of its window that a pixel is in, as far as parts are told there: (rows, 8)
        of_rows, of_columns = last_row[:, None] & half, last_column[:, None] & half
        part = 2 * of_rows[:, None, :, None] + 1 * of_columns[None, :, None, :]
        part = part.view(rows * columns, 1, WINDOW**2)
        return part[..., :, None] != part[..., None, :]


class TransformerBlock(nn.Module):
    """Attention and a feed-forward part, each normed and added; (B, H, W, C)."""

    def __init__(self, width: int, shifted: bool) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.msa = WindowAttention(width, shifted)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.msa(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class SwinConvBlock(nn.Module):
    """Half of the channels through convolutions, half through attention, joined and added."""

    def __init__(self, width: int, shifted: bool) -> None:
        super().__init__()
        half = width // 2
        self.trans_block = TransformerBlock(half, shifted)
        self.conv1_1, self.conv1_2 = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.conv_block = nn.Sequential(
            nn.Conv2d(half, half, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        local, wide = self.conv1_1(x).chunk(2, 1)
        local = local + self.conv_block(local)
        wide = self.trans_block(wide.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + self.conv1_2(torch.cat([local, wide], 1))


def conv3(entering: int, leaving: int, *, bias: bool = True) -> nn.Conv2d:
    """3x3, of the same size."""
    return nn.Conv2d(entering, leaving, 3, padding=1, bias=bias)


def upsampling(width: int, leaving: int, steps: int) -> list[nn.Module]:
    """Doubles the size ``steps`` times, and ends in ``leaving`` channels."""
    layers: list[nn.Module] = []
    for _ in range(steps):
        layers += [nn.Upsample(scale_factor=2), conv3(width, width), nn.LeakyReLU(0.2)]
    return [*layers, conv3(width, leaving), nn.LeakyReLU(0.2)]


class Upward(nn.Module):
    """Twice the size, other channels."""

    def __init__(self, width: int, leaving: int) -> None:
        super().__init__()
        self.up = nn.Sequential(*upsampling(width, leaving, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


class Joint(nn.Module):
    """A U-Net that joins three frames' features, (B, 3C, H, W) -> (B, C, H, W)."""

    def __init__(self, config: TSCUNetConfig) -> None:
        super().__init__()
        width = config.width

        def level(channels: int, *, shifts: bool = True) -> list[nn.Module]:
            return [SwinConvBlock(channels, shifts and i % 2 == 1) for i in range(config.blocks)]

        self.m_head = nn.Sequential(conv3(3 * width, width, bias=False))
        for number in range(LEVELS):
            channels = width * 2**number
            smaller = nn.Conv2d(channels, 2 * channels, 2, 2, bias=False)
            self.add_module(f"m_down{number + 1}", nn.Sequential(*level(channels), smaller))
            larger = Upward(2 * channels, channels)
            self.add_module(f"m_up{number + 1}", nn.Sequential(larger, *level(channels)))
        below = level(width * 2**LEVELS, shifts=config.shifted_below)
        self.m_body = nn.Sequential(*below)
        self.m_res = nn.Sequential(conv3(width, width, bias=False))
        self.m_tail = nn.Sequential(conv3(width, width, bias=False), nn.LeakyReLU(0.2))

    def forward(self, x: Tensor) -> Tensor:
        first = self.m_head(x)
        features = [first]
        for number in range(1, LEVELS + 1):
            features.append(self.get_submodule(f"m_down{number}")(features[-1]))
        x = self.m_body(features[-1])
        for number in range(LEVELS, 0, -1):
            x = self.get_submodule(f"m_up{number}")(x + features[number])
        return self.m_tail(x + self.m_res(first))


class DenseBlock(nn.Module):
    """ESRGAN's: five convolutions, each of which sees all before."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for number in range(5):
            leaving = width if number == 4 else growth
            self.add_module(f"conv{number + 1}", conv3(width + number * growth, leaving))

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for number in range(1, 5):
            made = self.get_submodule(f"conv{number}")(torch.cat(seen, 1))
            seen.append(F.leaky_relu(made, 0.2))
        return x + 0.2 * self.get_submodule("conv5")(torch.cat(seen, 1))


class DenseBlocks(nn.Module):
    """Three of them in turn, and a skip."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class Upsampler(nn.Module):
    """Dense blocks, then upsampling by a power of two."""

    def __init__(self, config: TSCUNetConfig) -> None:
        super().__init__()
        width, steps = config.width, int(math.log2(config.scale))
        dense = [DenseBlocks(width, config.growth) for _ in range(config.dense)]
        self.up = nn.Sequential(*dense, *upsampling(width, width, steps))

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


class TSCUNet(ClipNetwork):
    """Several frames (see `ClipNetwork`) -> the middle one, enlarged; any H, W >= 1."""

    remembers = True

    def __init__(self, config: TSCUNetConfig) -> None:
        super().__init__(config.frames, config.in_channels)
        self.scale = config.scale
        width = config.width
        self.m_head = nn.Sequential(conv3(config.in_channels, width, bias=False))
        self.m_layers = nn.ModuleList(Joint(config) for _ in range(config.frames // 2))
        if config.residual:
            self.m_res = nn.Sequential(conv3(width, width, bias=False))
        self.residual = config.residual
        self.m_upsample = nn.Sequential(Upsampler(config))
        self.m_tail = nn.Sequential(conv3(width, config.out_channels, bias=False))

    def joined(self, clip: Tensor, recall: Recall) -> Tensor:
        height, width = clip.shape[-2:]
        margins = [padding(side) for side in (height, width)]

        def part(layer: int, first: int) -> Tensor:
            """What a layer makes of the frames from this one on; layer 0 of one frame alone."""
            last = first + 2 * layer
            compute = partial(features, first) if layer == 0 else partial(join, layer, first)
            return recall(f"layer {layer}", first, last, compute)

        def features(number: int) -> Tensor:
            frame = clip[:, number]
            for dim, (before, after) in zip((2, 3), margins):
                frame = reflect(frame, dim, before, after)
            return self.m_head(frame)

        def join(layer: int, first: int) -> Tensor:
            three = [part(layer - 1, first + i) for i in range(3)]
            return self.m_layers[layer - 1](torch.cat(three, 1))

        x = join(len(self.m_layers), 0)  # which no other clip shares
        if self.residual:
            x = x + self.m_res(part(0, self.frames // 2))
        x = self.m_tail(self.m_upsample(x))
        scale = self.scale
        top, left = (before * scale for before, _ in margins)
        return x[..., top : top + height * scale, left : left + width * scale]


def padding(side: int) -> tuple[int, int]:
    """How much a side is continued before and after: to a multiple of 64, and 64 more."""
    missing = -side % MULTIPLE + MULTIPLE
    return -(-missing // 2), missing // 2


class TSCUNetArch(Member):
    """Detects and loads TSCUNet, as it was trained (with a variance for the loss) and without."""

    title = "TSCUNet"
    source = "aaf6aa, traiNNer-redux"
    options = ("resolution",)
    before = ("SCUNet",)
    examples = (
        TSCUNetConfig(frames=3, blocks=1, dense=1, growth=4, scale=2),
        TSCUNetConfig(
            frames=3,
            blocks=2,
            dense=1,
            growth=4,
            scale=1,
            residual=False,
            in_channels=1,
            out_channels=1,
        ),
    )

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        names = (
            "m_head.0.weight",
            "m_tail.0.weight",
            "m_layers.0.m_body.0.trans_block.msa.relative_position_params",
            "m_upsample.0.up.0.rdb1.conv1.weight",
        )
        return all(name in state_dict for name in names)

    def prepare(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        training = ("m_sigma.", "m_sigma_tail.")
        return {key: value for key, value in state_dict.items() if not key.startswith(training)}

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> TSCUNetConfig:
        width, channels = state_dict["m_head.0.weight"].shape[:2]
        if width % (2 * HEAD_WIDTH):
            raise ModelLoadError(
                f"TSCUNet: m_head makes {width} channels; a multiple of {2 * HEAD_WIDTH} was expected"
            )
        resolution = whole_number("resolution", options.get("resolution")) or LARGE
        steps = [key for key in state_dict if re.fullmatch(r"m_upsample\.0\.up\.\d+\.weight", key)]
        return TSCUNetConfig(
            in_channels=channels,
            out_channels=len(state_dict["m_tail.0.weight"]),
            scale=2 ** max(len(steps) - 1, 0),
            frames=2 * len(indices(state_dict, "m_layers.")) + 1,
            width=width,
            blocks=len(indices(state_dict, "m_layers.0.m_body.")),
            dense=sum(key.endswith(".rdb1.conv1.weight") for key in state_dict),
            growth=len(state_dict["m_upsample.0.up.0.rdb1.conv1.weight"]),
            residual="m_res.0.weight" in state_dict,
            shifted_below=resolution > SMALL,
        )

    def statistics(self, config: TSCUNetConfig) -> str:
        return "windows of attention are laid"

    def assumed(self, config: TSCUNetConfig, options: Mapping[str, Any]) -> list[str]:
        if "resolution" in options or config.blocks < 2:  # a single block is never shifted
            return []
        return [f"assumed resolution={LARGE} (in training; {SMALL} leaves windows unshifted below)"]

    def build(self, config: TSCUNetConfig) -> TSCUNet:
        return TSCUNet(config)


ARCHITECTURE = TSCUNetArch
