"""TFDAT: FDAT on five successive frames, of which the others are moved onto the middle one.

Source: traiNNer-redux, which defines the names of the tensors; FDAT: see arch/fdat/network.py.

    (frame, middle frame) -> flow net -> flow, by which the frame is sampled; their mean
      -> [pixel unshuffle, x1 and x2; a small stem, above] -> conv_first, also of the middle frame
      -> temporal_fuse of both -> groups, conv_after, + skip -> upsampler

As FDAT it takes attention between channels and means from the whole picture; behind the first layer
of temporal_fuse it is one, so FDAT's exact engine goes on from there. How many frames it was
trained with is not in the tensors, since it takes any number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.reflection import reflect
from ..contract import Recall
from ..errors import ModelLoadError
from ..fdat.checkpoint import infer_config
from ..fdat.config import UNSHUFFLED_SCALE, FDATConfig
from ..fdat.network import ResidualGroup
from ..fdat.relatives import is_named_like_fdat
from ..fdat.upsampler import Upsampler, coordinate_dtype
from ..guards import is_altered
from .clip import ClipNetwork
from .fused import REACH, Body, ExactFrames
from .member import Member, MemberConfig, whole_number

FLOW_STRIDE = 8
"""The flow is estimated at an eighth of the size."""


@dataclass(frozen=True, kw_only=True)
class TFDATConfig(MemberConfig):
    """Hyperparameters.

    Attributes:
        frames: that the network takes.
        fdat: those of the FDAT in it; its ``unshuffle_mod`` is on for x1 and x2.
        flow_width: channels after the first convolution of the flow net.
    """

    frames: int = 5
    fdat: FDATConfig = FDATConfig(upsampler_type="transpose+conv")  # noqa: RUF009
    flow_width: int = 32


class FlowNet(nn.Module):
    """Where the pixels of one picture are found in another, (B, 2C, H, W) -> (B, 2, H, W).

    H and W are multiples of 8; the flow is x and y in pixels.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        sizes = [2 * channels, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for entering, leaving in pairwise(sizes):
            layers += [nn.Conv2d(entering, leaving, 3, 2, 1), nn.LeakyReLU(0.2)]
        self.enc = nn.Sequential(*layers)
        self.flow_pred = nn.Conv2d(sizes[-1], 2, 3, padding=1)

    def forward(self, pair: Tensor) -> Tensor:
        small = self.flow_pred(self.enc(pair))
        size = pair.shape[-2:]
        return F.interpolate(small, size, mode="bilinear", align_corners=False) * FLOW_STRIDE


def moved(picture: Tensor, flow: Tensor) -> Tensor:
    """The picture (B, C, H, W) sampled where the flow (B, 2, H, W) points, bilinearly.

    Beyond its borders it has their values. Coordinates are at least in float32, since half
    precision can't address 2048 pixels.
    """
    exact = coordinate_dtype(picture.dtype)
    height, width = picture.shape[-2:]
    columns = torch.arange(width, device=flow.device, dtype=exact)
    rows = torch.arange(height, device=flow.device, dtype=exact)[:, None]
    # to the scale of grid_sample, whose -1 and 1 are the centres of the outermost pixels
    x = (flow[:, 0].to(exact) + columns) * (2 / max(width - 1, 1)) - 1
    y = (flow[:, 1].to(exact) + rows) * (2 / max(height - 1, 1)) - 1
    sampled = F.grid_sample(
        picture.to(exact),
        torch.stack([x, y], -1),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return sampled.to(picture.dtype)


class TFDAT(ClipNetwork):
    """Several frames (see `ClipNetwork`) -> the middle one, enlarged; any H, W >= 1."""

    def __init__(self, config: TFDATConfig) -> None:
        super().__init__(config.frames, config.in_channels)
        self.config = config
        self._bodies: list[Body] = []  # in a list, so that its layers have one name each
        fdat, channels = config.fdat, config.in_channels
        dim, blocks = fdat.embed_dim, len(fdat.blocks_per_group)
        self.flow_net = FlowNet(channels, config.flow_width)
        if fdat.unshuffle == 1:
            self.shallow_stem = nn.Sequential(
                nn.Conv2d(channels, dim // 2, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(dim // 2, channels, 3, padding=1),
            )
        self.conv_first = nn.Conv2d(channels * fdat.unshuffle**2, dim, 3, padding=1)
        self.temporal_fuse = nn.Sequential(
            nn.Conv2d(2 * dim, dim, 1), nn.LeakyReLU(0.2), nn.Conv2d(dim, dim, 3, padding=1)
        )
        self.groups = nn.Sequential(
            *(ResidualGroup(fdat, [0.0] * blocks) for _ in range(fdat.num_groups))
        )
        self.conv_after = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.upsampler = Upsampler(
            fdat.upsampler_type, fdat.upsampler_scale, dim, fdat.num_out_ch, fdat.mid_dim
        )

    @property
    def exact_engine(self) -> ExactFrames:
        """The engine for whole frames in bounded memory. Raises AttributeError as FDAT's does."""
        if is_altered(self):
            raise AttributeError("an altered network has no exact engine; run the network itself")
        return ExactFrames(self)

    def train(self, mode: bool = True) -> TFDAT:
        """As `nn.Module.train`, of the exact engine's view of this network too."""
        super().train(mode)
        for body in self._bodies:
            body.train(mode)
        return self

    @property
    def body(self) -> Body:
        """What follows the first layer of temporal_fuse, with the same layers, not copies."""
        if not self._bodies:
            self._bodies.append(Body(self))
        return self._bodies[0]

    def joined(self, clip: Tensor, recall: Recall) -> Tensor:
        height, width = clip.shape[-2:]
        frames = self.aligned(clip)
        rows = frames[0].shape[2] // self.config.fdat.unshuffle
        shallow = self.temporal_fuse[2](self.fused(*frames, 0, rows))
        result = self.upsampler(self.conv_after(self.groups(shallow)) + shallow)
        scale = self.config.scale
        return result[:, :, : height * scale, : width * scale]

    def aligned(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """The middle frame, and the sum of the others moved onto it, (B, C, H, W), padded."""
        frames = list(padded(clip, self.config.alignment).unbind(1))
        middle = frames.pop(self.frames // 2)
        others = [moved(one, self.flow_net(torch.cat([one, middle], 1))) for one in frames]
        return middle, torch.stack(others).sum(0)

    def fused(self, middle: Tensor, total: Tensor, top: int, bottom: int) -> Tensor:
        """Rows [top, bottom) of what the first layer of temporal_fuse makes of `aligned` frames."""
        size, first = self.config.fdat.unshuffle, max(top - REACH, 0)
        rows = slice(first * size, (bottom + REACH) * size)
        deep = [self._prepared(one[:, :, rows]) for one in (middle, total)]
        # the mean is taken behind the stem, as in training
        deep = [self.conv_first(deep[0]), self.conv_first(deep[1] / (self.frames - 1))]
        joined = self.temporal_fuse[:2](torch.cat(deep, 1))
        return joined[:, :, top - first : bottom - first]

    def _prepared(self, x: Tensor) -> Tensor:
        if self.config.fdat.unshuffle > 1:
            return F.pixel_unshuffle(x, self.config.fdat.unshuffle)
        return self.shallow_stem(x) + x


def padded(clip: Tensor, multiple: int) -> Tensor:
    """(..., H, W) continued to multiples at the bottom and right.

    By reflection, or by its last row and column where one side is too short for that.
    """
    missing = {dim: -clip.shape[dim] % multiple for dim in (-2, -1)}
    reflects = all(count < clip.shape[dim] for dim, count in missing.items())
    for dim, count in missing.items():
        if reflects:
            clip = reflect(clip, dim, 0, count)
        elif count:
            last = clip.narrow(dim, clip.shape[dim] - 1, 1)
            clip = torch.cat([clip, *[last] * count], dim)
    return clip


class TFDATArch(Member):
    """Detects and loads TFDAT."""

    title = "TFDAT"
    source = "traiNNer-redux"
    options = ("scale", "frames")
    before = ("FDAT",)
    examples = (
        TFDATConfig(
            scale=4,
            alignment=8,
            fdat=FDATConfig(embed_dim=16, num_groups=1, depth_per_group=1, num_heads=2),
            flow_width=4,
        ),
        TFDATConfig(
            scale=2,
            alignment=16,
            fdat=FDATConfig(
                embed_dim=16,
                num_groups=2,
                depth_per_group=1,
                num_heads=2,
                scale=2,
                upsampler_type="pixelshuffle",
                mid_dim=8,
                unshuffle_mod=True,
            ),
            flow_width=4,
        ),
        TFDATConfig(
            scale=1,
            alignment=32,
            fdat=FDATConfig(
                embed_dim=16,
                num_groups=1,
                depth_per_group=1,
                num_heads=2,
                scale=1,
                upsampler_type="pixelshuffledirect",
                unshuffle_mod=True,
            ),
            flow_width=4,
        ),
    )

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        names = ("flow_net.enc.0.weight", "flow_net.flow_pred.weight", "temporal_fuse.0.weight")
        return is_named_like_fdat(state_dict) and all(name in state_dict for name in names)

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> TFDATConfig:
        entering = state_dict["flow_net.enc.0.weight"].shape[1] // 2
        first = state_dict["conv_first.weight"].shape[1]
        unshuffle = math.isqrt(first // entering)
        if unshuffle not in (1, 2, 4) or entering * unshuffle**2 != first:
            raise ModelLoadError(
                f"TFDAT: conv_first takes {first} channels of pictures with {entering}; "
                "those times 1, 4 or 16 were expected"
            )
        scale = whole_number("scale", options.get("scale"))
        tensors = dict(state_dict)
        if unshuffle > 1:  # as FDAT names it, which has the same there
            tensors["conv_first.1.weight"] = tensors.pop("conv_first.weight")
            scale = UNSHUFFLED_SCALE // unshuffle if scale is None else scale
        fdat = infer_config(tensors, scale=scale)
        frames = whole_number("frames", options.get("frames")) or TFDATConfig.frames
        if frames % 2 == 0 or frames == 1:
            raise ModelLoadError(f"TFDAT: frames={frames}; an odd number above 1 was expected")
        return TFDATConfig(
            in_channels=entering,
            out_channels=fdat.num_out_ch,
            scale=fdat.scale,
            alignment=math.lcm(unshuffle * fdat.window_size, FLOW_STRIDE),
            frames=frames,
            fdat=fdat,
            flow_width=len(state_dict["flow_net.enc.0.weight"]),
        )

    def statistics(self, config: TFDATConfig) -> str:
        return "attention between channels and means are taken"

    def assumed(self, config: TFDATConfig, options: Mapping[str, Any]) -> list[str]:
        return [] if "frames" in options else [f"assumed frames={config.frames}"]

    def build(self, config: TFDATConfig) -> TFDAT:
        return TFDAT(config)


ARCHITECTURE = TFDATArch
