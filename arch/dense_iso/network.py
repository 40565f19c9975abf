"""Dense-Iso-ViT: the network, its configuration and its spandrel architecture.

Source: README of "Dense-Iso-ViT" by Sathya77 (MIT). Neither code nor checkpoint is public; what that README
leaves open is a field of `DenseIsoViTConfig`, and the defaults are the reading that gives the published size
(23.8M parameters, 90.99 MB). Written from that description alone.

    image (B, 3, 64, 64) in [0, 1]
      -> convolution 4x4, stride 4, + position embedding      -> tokens (B, 256, 192), always a 16 x 16 grid
      -> stage i: blocks of global attention and GDFN         -> h_i (B, 256, dims[i]), Linear to dims[i + 1]
      -> concatenation of all h_i                             -> features (B, 1120, 16, 16)
      -> head: fusion, then convolutions with PixelShuffle    -> (B, 3, 256, 256)
      -> + bilinear upscale of the image

A block: ``x += attention(norm1 x)`` and ``x += GDFN(norm2 x)`` with depthwise 3x3 convolutions ``path_1``, ``path_2``
in ``GDFN(x) = out_proj(path_1(a) * gelu(path_2(b)))`` where ``a, b = halves of g_proj(x)``.

The network takes windows of one size only; `arch.windowed` runs it on images of any size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from spandrel import Architecture, ImageModelDescriptor, ModelTiling, StateDict
from torch import Tensor, nn

from ..errors import ModelLoadError
from ..windowed.network import NETWORK_PREFIX, WindowedUpscaler
from .config import ACTIVATIONS, PRELU, RGB, VALUE_RANGES, DenseIsoViTConfig, HeadLayer
from .start import initialise


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis. (..., C) -> (..., C)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        scale = (x.float().square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return x * scale.to(x.dtype) * self.weight


def norm(config: DenseIsoViTConfig, width: int, present: bool = True) -> nn.Module:
    """The configuration's kind of norm, or nothing."""
    if not present:
        return nn.Identity()
    return RMSNorm(width, config.norm_eps) if config.norm == "rms" else nn.LayerNorm(width, eps=config.norm_eps)


class Attention(nn.Module):
    """Multi-head self-attention over all tokens of the window. (B, N, C) -> (B, N, C)."""

    def __init__(self, config: DenseIsoViTConfig, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.projection = nn.Linear(width, width, bias=config.projection_bias) if config.projection else None

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
        x = self.g_proj(x).transpose(1, 2).unflatten(2, (self.grid, self.grid))  # (B, 2 * hidden, grid, grid)
        first, second = x.chunk(2, dim=1)
        first, second = self.path_1(first), self.path_2(second)
        x = F.gelu(first) * second if self.gate_first else first * F.gelu(second)
        return self.out_proj(x.flatten(2).transpose(1, 2))


class Block(nn.Module):
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
        self.blocks = nn.ModuleList(Block(config, width, heads, hidden) for _ in range(config.depths[index]))
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
        self.patch_embedding = nn.Conv2d(RGB, width, config.patch_size, config.patch_size, bias=config.patch_bias)
        self.patch_norm = norm(config, width, config.patch_norm)
        self.position_embedding = (
            nn.Parameter(torch.zeros(1, config.grid**2, width)) if config.position_embedding else None
        )
        self.stages = nn.ModuleList(Stage(config, i) for i in range(len(config.dims)))
        self.transitions = nn.ModuleList(
            Transition(config, i) if present else nn.Identity() for i, present in enumerate(config.transitions)
        )
        concatenated = sum(config.dims)
        self.fusion_norm = norm(config, concatenated, config.fusion_norm)
        self.head = nn.ModuleList()
        channels = concatenated
        for layer in config.head:
            self.head.append(
                nn.Conv2d(channels, layer.channels, layer.kernel, padding=layer.kernel // 2, bias=layer.bias)
            )
            channels = layer.channels // layer.shuffle**2
        self.slopes = nn.ModuleList(
            nn.PReLU(layer.channels) if layer.activation == PRELU else nn.Identity() for layer in config.head
        )
        gain, offset = VALUE_RANGES[config.value_range]
        initialise(self, blocks=sum(config.depths), mid_grey=0.5 * gain + offset)

    def features(self, x: Tensor) -> Tensor:
        """Outputs of all stages side by side. (B, 3, window, window) -> (B, sum(dims), grid, grid)."""
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
                x = self.transitions[i](normalised if self.config.stage_norm_routing == "both" else x)
        x = self.fusion_norm(torch.cat(outputs, dim=-1))  # (B, N, sum(dims))
        return x.transpose(1, 2).unflatten(2, (self.config.grid, self.config.grid))

    def run_stage(self, stage: Stage, x: Tensor) -> Tensor:
        """The blocks of one stage. (B, N, dims[i]) -> (B, N, dims[i])."""
        for block in stage.blocks:
            x = block(x)
        return x

    def reconstruct(self, x: Tensor) -> Tensor:
        """The head. (B, sum(dims), grid, grid) -> (B, 3, window * scale, window * scale)."""
        for i, (convolution, layer) in enumerate(zip(self.head, self.config.head)):
            x = self.activated(convolution(x), i)
            if layer.shuffle > 1:
                x = F.pixel_shuffle(x, layer.shuffle)
        return x

    def activated(self, x: Tensor, index: int) -> Tensor:
        """The output of one of the head's convolutions after its activation."""
        name = self.config.head[index].activation
        return self.slopes[index](x) if name == PRELU else ACTIVATIONS[name](x)

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


def without_wrapper(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A new dict, in this project's naming, without the prefix that `WindowedUpscaler` adds."""
    if all(key.startswith(NETWORK_PREFIX) for key in state_dict):
        return {key[len(NETWORK_PREFIX) :]: tensor for key, tensor in state_dict.items()}
    return dict(state_dict)


def infer_config(state_dict: Mapping[str, Tensor]) -> DenseIsoViTConfig:
    """The configuration of a state dict in this project's own naming.

    Not in the tensors, so left at their defaults: heads (`default_heads`), stage_norm_routing, activations of the
    head (other than PReLU), gated_half, norm_eps, skip, align_corners, value_range; and window without a position
    embedding.

    Raises:
        ModelLoadError: a tensor is missing, left over or of a shape that does not fit.
    """
    state_dict = without_wrapper(state_dict)

    def indices(pattern: str) -> list[int]:
        return sorted({int(match[1]) for key in state_dict if (match := re.match(pattern, key))})

    try:
        patch = state_dict["patch_embedding.weight"]
        stages = indices(r"stages\.(\d+)\.blocks\.")
        blocks = [f"stages.{i}.blocks.0." for i in stages]
        position = state_dict.get("position_embedding")
        convolutions = [state_dict[f"head.{i}.weight"] for i in indices(r"head\.(\d+)\.weight")]
        entered = [weight.shape[1] for weight in convolutions[1:]] + [RGB]  # channels after every shuffle
        patch_size = patch.shape[-1]
        config = DenseIsoViTConfig(
            window=64 if position is None else math.isqrt(position.shape[1]) * patch_size,
            patch_size=patch_size,
            dims=tuple(state_dict[block + "norm1.weight"].shape[0] for block in blocks),
            depths=tuple(len(indices(rf"stages\.{i}\.blocks\.(\d+)\.")) for i in stages),
            hidden=tuple(state_dict[block + "gdfn.path_1.weight"].shape[0] for block in blocks),
            patch_bias="patch_embedding.bias" in state_dict,
            qkv_bias=blocks[0] + "attention.qkv.bias" in state_dict,
            projection=blocks[0] + "attention.projection.weight" in state_dict,
            projection_bias=blocks[0] + "attention.projection.bias" in state_dict,
            g_proj_bias=blocks[0] + "gdfn.g_proj.bias" in state_dict,
            path_bias=blocks[0] + "gdfn.path_1.bias" in state_dict,
            out_proj_bias=blocks[0] + "gdfn.out_proj.bias" in state_dict,
            layer_scale=blocks[0] + "layer_scale_1" in state_dict,
            patch_norm="patch_norm.weight" in state_dict,
            position_embedding=position is not None,
            stage_norms=tuple(f"stages.{i}.norm.weight" in state_dict for i in stages),
            transitions=tuple(f"transitions.{i}.linear.weight" in state_dict for i in stages[:-1]),
            transition_bias=bool(indices(r"transitions\.(\d+)\.linear\.bias")),
            transition_norm=next(
                (place for place in ("before", "after") if indices(rf"transitions\.(\d+)\.norm_{place}\.")),
                "none",
            ),
            fusion_norm="fusion_norm.weight" in state_dict,
            norm="layer" if blocks[0] + "norm1.bias" in state_dict else "rms",
            head=tuple(
                HeadLayer(
                    channels=weight.shape[0],
                    kernel=weight.shape[-1],
                    shuffle=math.isqrt(weight.shape[0] // after),
                    bias=f"head.{i}.bias" in state_dict,
                    activation=PRELU if f"slopes.{i}.weight" in state_dict else "none",
                )
                for i, (weight, after) in enumerate(zip(convolutions, entered))
            ),
        )
        check_shapes(config, state_dict)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ModelLoadError(f"not a Dense-Iso-ViT in this project's naming: {error}") from error
    return config


def check_shapes(config: DenseIsoViTConfig, state_dict: Mapping[str, Tensor]) -> None:
    """Raise ModelLoadError unless ``state_dict`` holds exactly the tensors of the configuration's network."""
    with torch.device("meta"):
        expected = {key: tuple(tensor.shape) for key, tensor in DenseIsoViT(config).state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in state_dict.items()}
    wrong = [
        f"{key}: found {found.get(key, 'nothing')}, expected {expected.get(key, 'nothing')}"
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    ]
    if wrong:
        raise ModelLoadError("tensors do not fit: " + "; ".join(wrong[:5]) + (" ..." if len(wrong) > 5 else ""))


class DenseIsoViTArch(Architecture[WindowedUpscaler]):
    """Dense-Iso-ViT for spandrel's registries: any spelling of its tensors, see `arch.dense_iso.reading.recognise`."""

    def __init__(self) -> None:
        from .reading.recognise import is_dense_iso_vit  # builds on this file

        super().__init__(id="DenseIsoViT", name="Dense-Iso-ViT", detect=is_dense_iso_vit)

    def load(
        self,
        state_dict: StateDict,
        *,
        sidecar: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ImageModelDescriptor[WindowedUpscaler]:
        """The descriptor, in eval mode; ``tags`` and log say what was assumed.

        Args:
            state_dict: tensors by name, or dictionaries around them.
            sidecar: contents of a JSON file beside the checkpoint.
            metadata: of the safetensors file.
            options: what tensors can't tell, before sidecar and metadata; see `arch.dense_iso.reading.options`.

        Raises:
            ModelLoadError: with what was found, what did not fit and which option would settle it.
        """
        from .engine.run import InferenceDenseIsoViT
        from .reading.recognise import recognise, report

        recognised = recognise(state_dict, options=options, sidecar=sidecar, metadata=metadata)
        report(recognised)
        config = recognised.config
        with torch.device("meta"):
            network = InferenceDenseIsoViT(config)
        model = WindowedUpscaler(
            network.to_empty(device="cpu"),
            window=config.window,
            scale=config.scale,
            alignment=config.patch_size,
            assumptions=recognised.remarks(),
        )
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        return ImageModelDescriptor(
            model.eval(),
            {NETWORK_PREFIX + name: tensor for name, tensor in recognised.weights.items()},
            architecture=self,
            purpose="Restoration" if config.scale == 1 else "SR",
            tags=[
                f"{millions:.1f}M",
                "x".join(map(str, config.dims)),
                f"{sum(config.depths)} blocks",
                *model.assumptions,
            ],
            supports_half=True,
            supports_bfloat16=True,
            scale=config.scale,
            input_channels=RGB,
            output_channels=RGB,
            tiling=ModelTiling.INTERNAL,
        )
