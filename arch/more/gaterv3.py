"""GateRV3: a U-shaped network of gated convolutions beside a short chain of SPAN's blocks.

Source: umzi and traiNNer-redux, which define the names of the tensors; its parts are those of
MambaOut, NAFNet and SPAN. No paper of its own.

    image -> conv -+-> encoder -> latent -> decoder -+-> + -> upsampler -> + gamma * image, nearest
                   +-> SPAN's blocks ----------------+

Pools in every block take the mean over the picture, and with attention each token of the latent
sees all others: tiles change the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.reflection import reflect
from ..errors import ModelLoadError
from ..fdat.checkpoint import infer_upsampler
from ..fdat.upsampler import Upsampler
from .folding import beside, in_turn
from .member import Member, MemberConfig, indices, whole_number
from .mosrv2 import Inception
from .rtmosr import ChannelRMSNorm

LATENT_HEADS = 16


@dataclass(frozen=True, kw_only=True)
class GateRV3Config(MemberConfig):
    """Hyperparameters.

    Attributes:
        width: features of the first level; every level has twice those of the one before it.
        encoder, decoder: blocks of every level, from outside to inside and back.
        latent: blocks in the middle.
        span: blocks of SPAN's kind between the first and the last.
        attention: whether the middle attends to all tokens; "none", "tokens" (scaled dot product)
            or "normed" (of normed channels, with a learnt temperature).
        upsampler: one of `arch.fdat.upsampler.UPSAMPLER_TYPES`, or "" for x1.
        mid_width: its inner width.
    """

    width: int = 32
    encoder: tuple[int, ...] = (2, 2, 4, 6)
    decoder: tuple[int, ...] = (2, 2, 2, 2)
    latent: int = 8
    span: int = 4
    attention: str = "none"
    upsampler: str = "pixelshuffle"
    mid_width: int = 48


class Folded(nn.Module):
    """A 3x3 convolution by the name that checkpoints give it."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.eval_conv = nn.Conv2d(width, width, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.eval_conv(x)


class SpanBlock(nn.Module):
    """Three convolutions, whose result weighs itself and the input; and the first of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c1_r = Folded(width, bias=False)
        self.c2_r = Folded(width, bias=False)
        self.c3_r = Folded(width, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # the activation overwrites its input where it was trained
        first = F.silu(self.c1_r(x))
        third = self.c3_r(F.silu(self.c2_r(first)))
        return (third + x) * (third.sigmoid() - 0.5), first


class TokenAttention(nn.Module):
    """Attention of every pixel to all others; (B, C, H, W)."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(LATENT_HEADS, 1, 1))
        self.register_buffer("flash", torch.tensor([kind == "tokens"]))
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width)
        self.project_out = nn.Conv2d(width, width, 1, bias=False)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv_dwconv(self.qkv(x)).chunk(3, 1)
        q, k, v = (part.flatten(2).unflatten(1, (LATENT_HEADS, -1)) for part in parts)
        if self.kind == "tokens":
            q, k, v = (part.transpose(2, 3) for part in (q, k, v))
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3)
        else:
            q, k = F.normalize(q, dim=3), F.normalize(k, dim=3)
            mixed = (q @ k.transpose(2, 3) * self.temperature).softmax(3) @ v
        return self.project_out(mixed.reshape_as(x))


class GatedBlock(nn.Module):
    """mish(fc2(mish(gate) * [plain, mix(mixed)])) of the normed input; (B, C, H, W)."""

    def __init__(self, width: int, attention: str = "none") -> None:
        super().__init__()
        hidden = int(1.5 * width)
        self.norm = ChannelRMSNorm(width)
        self.fc1 = nn.Conv2d(width, 2 * hidden, 1)
        self.token_mix = (
            Inception(width) if attention == "none" else TokenAttention(width, attention)
        )
        self.fc2 = nn.Conv2d(hidden, width, 1)
        self.parts = [hidden, hidden - width, width]

    def forward(self, x: Tensor) -> Tensor:
        gate, plain, mixed = self.fc1(self.norm(x)).split(self.parts, 1)
        return F.mish(self.fc2(F.mish(gate) * torch.cat([plain, self.token_mix(mixed)], 1)))


class Gate(nn.Module):
    """The product of both halves of the channels."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return first * second


class MetaBlock(nn.Module):
    """A gated part with weights from the mean over the picture, and a gated block; (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.local = nn.Sequential(
            ChannelRMSNorm(width),
            nn.Conv2d(width, 2 * width, 1),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=width),
            Gate(),
        )
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1))
        self.glob = GatedBlock(width)
        self.gamma0 = nn.Parameter(torch.ones(1, width, 1, 1))
        self.gamma1 = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        gated = self.local(x)
        x = gated * self.sca(gated) * self.gamma0 + x
        return self.glob(x) * self.gamma1 + x


def meta_blocks(width: int, count: int) -> nn.Sequential:
    """``count`` of `MetaBlock`."""
    return nn.Sequential(*(MetaBlock(width) for _ in range(count)))


class Encoder(nn.Module):
    """(B, C, H, W) -> (B, 2C, H / 2, W / 2), and what goes to the decoder."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.gated = meta_blocks(width, count)
        conv = nn.Conv2d(width, width // 2, 3, padding=1, bias=False)
        self.scale = nn.Sequential(conv, nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.gated(x)
        return self.scale(x), x


class Decoder(nn.Module):
    """(B, 2C, H / 2, W / 2) and (B, C, H, W) of the encoder -> (B, C, H, W)."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        conv = nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False)
        self.scale = nn.Sequential(conv, nn.PixelShuffle(2))
        self.gated = meta_blocks(width, count)
        self.shor = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        return self.gated(self.shor(torch.cat([self.scale(x), beside], 1)))


class GateRV3(nn.Module):
    """(B, C, H, W) in [0, 1] -> (B, C, H * scale, W * scale), unclamped; any H, W >= 1."""

    def __init__(self, config: GateRV3Config) -> None:
        super().__init__()
        self.config = config
        width, channels, levels = config.width, config.in_channels, len(config.encoder)
        self.in_to_dim = nn.Conv2d(channels, width, 3, padding=1)
        self.gater_encode = nn.ModuleList(
            Encoder(width * 2**i, count) for i, count in enumerate(config.encoder)
        )
        self.span_block0 = SpanBlock(width)
        self.span_n_b = nn.ModuleList(SpanBlock(width) for _ in range(config.span))
        self.span_end = SpanBlock(width)
        self.sisr_end_conv = Folded(width, bias=True)
        self.sisr_cat_conv = nn.Conv2d(4 * width, width, 1)
        self.latent = nn.Sequential(
            *(GatedBlock(width * 2**levels, config.attention) for _ in range(config.latent))
        )
        self.decode = nn.ModuleList(
            Decoder(width * 2 ** (levels - 1 - i), count) for i, count in enumerate(config.decoder)
        )
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.dim_to_in = (
            Upsampler(config.upsampler, config.scale, width, channels, config.mid_width)
            if config.scale > 1
            else nn.Conv2d(width, channels, 3, padding=1)
        )

    def span(self, x: Tensor) -> Tensor:
        """SPAN's blocks, at full size."""
        begin, _ = self.span_block0(x)
        middle = begin
        for block in self.span_n_b:
            middle, _ = block(middle)
        end, inner = self.span_end(middle)
        return self.sisr_cat_conv(torch.cat([x, self.sisr_end_conv(end), begin, inner], 1))

    def forward(self, x: Tensor) -> Tensor:
        height, width = (side * self.config.scale for side in x.shape[-2:])
        for dim in (2, 3):
            x = reflect(x, dim, 0, -x.shape[dim] % 2 ** len(self.config.encoder))
        shallow = self.in_to_dim(x)
        deep, besides = shallow, []
        for encode in self.gater_encode:
            deep, beside = encode(deep)
            besides.append(beside)
        deep = self.latent(deep)
        for decode in self.decode:
            deep = decode(deep, besides.pop())
        result = self.dim_to_in(deep + self.span(shallow))
        enlarged = F.interpolate(x, scale_factor=self.config.scale)
        return (result + self.gamma * enlarged)[:, :, :height, :width]


class GateRV3Arch(Member):
    """Detects and loads GateRV3, as it was trained and folded."""

    title = "GateRV3"
    source = "traiNNer-redux"
    options = ("scale",)
    examples = (
        GateRV3Config(
            width=16, encoder=(1, 1), decoder=(1, 1), latent=1, span=1, scale=2, alignment=4
        ),
        GateRV3Config(
            width=16, encoder=(1,), decoder=(1,), latent=1, span=1, scale=1, alignment=2,
            upsampler="", mid_width=0, attention="tokens",
        ),
        GateRV3Config(
            width=16, encoder=(1,), decoder=(1,), latent=1, span=1, scale=4, alignment=2,
            attention="normed", upsampler="pixelshuffledirect",
        ),
    )  # fmt: skip

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        names = ("gater_encode.0.gated.0.gamma0", "sisr_cat_conv.weight", "in_to_dim.weight")
        return all(name in state_dict for name in names)

    def prepare(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        prepared = dict(state_dict)
        channels = state_dict["in_to_dim.weight"].shape[1]
        prepared.setdefault("gamma", torch.ones(1, channels, 1, 1))  # files before there was one
        for key in [key for key in state_dict if key.endswith(".sk.weight")]:
            start = key.removesuffix("sk.weight")

            def layer(name: str, start: str = start) -> tuple[Tensor, Tensor]:
                weight = prepared.pop(f"{start}{name}.weight")
                return weight, prepared.pop(f"{start}{name}.bias", weight.new_zeros(len(weight)))

            biased = f"{start}sk.bias" in state_dict
            chain = in_turn([layer(f"conv.{i}") for i in (0, 1, 2)])
            weight, bias = beside([chain, layer("sk")])
            prepared[f"{start}eval_conv.weight"] = weight
            if biased:
                prepared[f"{start}eval_conv.bias"] = bias
        return prepared

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> GateRV3Config:
        width, channels = state_dict["in_to_dim.weight"].shape[:2]
        scale = whole_number("scale", options.get("scale"))

        def counts(name: str) -> tuple[int, ...]:
            levels = indices(state_dict, f"{name}.")
            return tuple(len(indices(state_dict, f"{name}.{i}.gated.")) for i in levels)

        found: dict[str, Any] = {"scale": 1, "upsampler_type": "", "mid_dim": 0}
        if "dim_to_in.weight" not in state_dict:
            start = "dim_to_in."
            own = {k.removeprefix(start): v for k, v in state_dict.items() if k.startswith(start)}
            found = infer_upsampler(own, width, channels, scale, of="GateRV3")
        if scale not in (None, found["scale"]):
            raise ModelLoadError(
                f"GateRV3: scale={scale} contradicts the tensors, which say {found['scale']}"
            )
        encoder = counts("gater_encode")
        attention = "none"
        if "latent.0.token_mix.temperature" in state_dict:
            attention = "tokens" if bool(state_dict["latent.0.token_mix.flash"]) else "normed"
        return GateRV3Config(
            in_channels=channels,
            out_channels=channels,
            scale=int(found["scale"]),
            alignment=2 ** len(encoder),
            width=width,
            encoder=encoder,
            decoder=counts("decode"),
            latent=len(indices(state_dict, "latent.")),
            span=len(indices(state_dict, "span_n_b.")),
            attention=attention,
            upsampler=str(found["upsampler_type"]),
            mid_width=int(found["mid_dim"]),
        )

    def statistics(self, config: GateRV3Config) -> str:
        return "the means of the channels" + ", attention" * (config.attention != "none")

    def build(self, config: GateRV3Config) -> GateRV3:
        return GateRV3(config)


ARCHITECTURE = GateRV3Arch
