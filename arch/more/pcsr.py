"""PCSR: a pixel of the result is made by a large or by a small network, as a classifier says.

Source: Jeong et al., "Accelerating Image Super-Resolution Networks with Pixel-Level
Classification", ECCV 2024, whose repository defines the names of the tensors.

    image [- mean] -> encoder -> per pixel of the result: features of the nearest pixel, its place
        relative to that, its size -> classifier, large and small MLP -> + bilinear enlargement
        -> pixels of the small one beside those of the large one become means of 3x3 [-> + mean]

For whole factors a pixel's place is one of scale x scale, so the MLPs are 1x1 convolutions with one
bias for each place. Both MLPs run everywhere here and the better one is taken: the saving that the
paper is about is not made. Its threshold k is 0, which is the best quality.

The encoders are those of CARN-M, FSRCNN and SRResNet; with the first the mean colour is taken off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ModelLoadError
from .member import Member, MemberConfig, indices, whole_number
from .srresnet import SLOPE, ResidualBlock

RGB_MEAN = (0.4488, 0.4371, 0.4040)
PLACE = 4  # what a sampler gets beside the features: two coordinates, and the pixel's two sides
SAMPLERS = ("heavy_sampler", "light_sampler", "classifier")


@dataclass(frozen=True, kw_only=True)
class PCSRConfig(MemberConfig):
    """Hyperparameters.

    Attributes:
        encoder: "carn", "fsrcnn" or "srresnet".
        width: features C that it makes.
        inner: inner width of fsrcnn; groups of convolutions of carn; 0 for srresnet.
        blocks: convolutions inside fsrcnn, blocks of srresnet; 3 for carn.
        hidden: hidden widths of the large MLP, the small one and the classifier; the large one
            alone in files of the first phase of training.
    """

    encoder: str = "carn"
    width: int = 52
    inner: int = 4
    blocks: int = 3
    hidden: tuple[tuple[int, ...], ...] = ((74, 74, 74, 74), (20, 20, 20), (10, 10))


class NormedConv(nn.Sequential):
    """1x1 convolution, batch norm, ReLU."""

    def __init__(self, entering: int, leaving: int) -> None:
        conv = nn.Conv2d(entering, leaving, 1, bias=False)
        super().__init__(conv, nn.BatchNorm2d(leaving), nn.ReLU())


class Residual(nn.Module):
    """Two grouped convolutions and a 1x1 one, with a skip; (B, C, H, W)."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()

        def conv() -> nn.Conv2d:
            return nn.Conv2d(width, width, 3, padding=1, groups=groups)

        self.body = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + x).relu()


class Cascade(nn.Module):
    """Three times a block, then all that there is joined by a 1x1 convolution; (B, C, H, W)."""

    def __init__(self, width: int, blocks: list[nn.Module]) -> None:
        super().__init__()
        for i, block in enumerate(dict.fromkeys(blocks), 1):  # one that is shared has one name
            self.add_module(f"b{i}", block)
        self.shared = len(set(blocks)) == 1
        self.c1 = NormedConv(2 * width, width)
        self.c2 = NormedConv(3 * width, width)
        self.c3 = NormedConv(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        joined = x
        for i, merge in enumerate((self.c1, self.c2, self.c3), 1):
            block = self.get_submodule("b1" if self.shared else f"b{i}")
            joined = torch.cat([joined, block(x)], 1)
            x = merge(joined)
        return x


class CARN(Cascade):
    """CARN-M's features: a cascade of cascades."""

    def __init__(self, config: PCSRConfig) -> None:
        width = config.width

        def inner() -> nn.Module:
            return Cascade(width, [Residual(width, config.inner)] * 3)

        super().__init__(width, [inner() for _ in range(3)])
        self.entry = nn.Conv2d(config.in_channels, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.entry(x))


class FSRCNN(nn.Module):
    """FSRCNN's features; its convolutions in the middle follow each other directly."""

    def __init__(self, config: PCSRConfig) -> None:
        super().__init__()
        width, inner = config.width, config.inner

        def activated(conv: nn.Conv2d) -> nn.Sequential:
            return nn.Sequential(conv, nn.PReLU())

        self.head_conv = activated(nn.Conv2d(config.in_channels, width, 5, padding=2))
        self.body_conv = nn.Sequential(
            activated(nn.Conv2d(width, inner, 1)),
            *(nn.Conv2d(inner, inner, 3, padding=1) for _ in range(config.blocks)),
            nn.PReLU(),
            activated(nn.Conv2d(inner, width, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body_conv(self.head_conv(x))


class SRResNetFeatures(nn.Module):
    """SRResNet's features."""

    def __init__(self, config: PCSRConfig) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(config.in_channels, config.width, 3, padding=1)
        blocks = (ResidualBlock(config.width) for _ in range(config.blocks))
        self.recon_trunk = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.recon_trunk(F.leaky_relu(self.conv_first(x), SLOPE))


ENCODERS = {"carn": CARN, "fsrcnn": FSRCNN, "srresnet": SRResNetFeatures}


class Sampler(nn.Module):
    """An MLP for every pixel of the result: (B, C, H, W) -> (B, leaving, H * scale, W * scale)."""

    def __init__(self, width: int, hidden: tuple[int, ...], leaving: int, scale: int) -> None:
        super().__init__()
        sides = (width + PLACE, *hidden, leaving)
        layers: list[nn.Module] = []
        for i, after in enumerate(sides[1:]):
            layers += [nn.Linear(sides[i], after), nn.ReLU()]
        self.imnet = nn.ModuleDict({"layers": nn.Sequential(*layers[:-1])})
        self.scale = scale

    def places(self, x: Tensor) -> Tensor:
        """(scale**2, `PLACE`): of every pixel within one of the image, row by row, its distances
        from the centre, where an edge is at 1, and its sides in the image's pixels times 2."""
        exact = torch.promote_types(x.dtype, torch.float32)
        numbers = torch.arange(self.scale, device=x.device, dtype=exact)
        centres = (numbers * 2 + 1) / self.scale - 1
        place = torch.cartesian_prod(centres, centres)
        sides = torch.full_like(place, 2 / self.scale)
        return torch.cat([place, sides], 1).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        first, *layers = self.imnet["layers"].children()
        assert isinstance(first, nn.Linear)
        tokens = x.movedim(1, -1)  # (B, H, W, C)
        shared = F.linear(tokens, first.weight[:, :-PLACE], first.bias)
        result = []
        for place in self.places(x) @ first.weight[:, -PLACE:].t():
            y = shared + place
            for layer in layers:
                y = layer(y)
            result.append(y)
        stacked = torch.stack(result, -1)  # (B, H, W, leaving, scale**2)
        return F.pixel_shuffle(stacked.flatten(-2).movedim(-1, 1), self.scale)


class PCSR(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 3, H * scale, W * scale), unclamped; any H, W >= 1."""

    mean: Tensor

    def __init__(self, config: PCSRConfig) -> None:
        super().__init__()
        self.scale = config.scale
        mean = torch.tensor(RGB_MEAN)[:, None, None] * (config.encoder == "carn")
        self.register_buffer("mean", mean, persistent=False)
        self.encoder = ENCODERS[config.encoder](config)
        for name, hidden in zip(SAMPLERS, config.hidden):
            leaving = 2 if name == "classifier" else config.out_channels
            self.add_module(name, Sampler(config.width, hidden, leaving, config.scale))
        self.samplers = SAMPLERS[: len(config.hidden)]

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.mean
        features = self.encoder(x)
        enlarged = F.interpolate(x, scale_factor=self.scale, mode="bilinear")
        heavy, *others = (self.get_submodule(name) for name in self.samplers)
        result = heavy(features) + enlarged
        if others:
            light, classifier = others
            chances = classifier(features)
            hard = chances[:, 1:] > chances[:, :1]
            result = torch.where(hard, result, light(features) + enlarged)
            result = self.refined(result, hard)
        return result + self.mean

    @staticmethod
    def refined(result: Tensor, hard: Tensor) -> Tensor:
        """Means of 3x3 pixels where a pixel of the small MLP touches one of the large one, but not
        at the picture's border."""
        near = F.max_pool2d(hard.to(result.dtype), 3, 1, 1) > 0
        inside = torch.zeros_like(near)
        inside[..., 1:-1, 1:-1] = True
        means = F.avg_pool2d(F.pad(result, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return torch.where(near & ~hard & inside, means, result)


class PCSRArch(Member):
    """Detects and loads PCSR. It has any whole scale, which is the option ``scale``; 4 is what it
    is trained for."""

    title = "PCSR"
    source = "its authors"
    options = ("scale",)
    examples = (
        PCSRConfig(width=8, inner=2, hidden=((10, 10), (6,), ())),
        PCSRConfig(encoder="fsrcnn", width=8, inner=4, blocks=2, hidden=((10, 10), (6,), (4,))),
        PCSRConfig(encoder="srresnet", width=8, inner=0, blocks=2, hidden=((10, 10),)),
    )

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        sampler = "heavy_sampler.imnet.layers.0.weight" in state_dict
        return sampler and any(key.startswith("encoder.") for key in state_dict)

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> PCSRConfig:
        first = state_dict["heavy_sampler.imnet.layers.0.weight"]
        if "encoder.entry.weight" in state_dict:
            group = state_dict["encoder.b1.b1.body.0.weight"]
            encoder, inner, blocks = "carn", len(group) // group.shape[1], 3
            channels = state_dict["encoder.entry.weight"].shape[1]
        elif "encoder.head_conv.0.weight" in state_dict:
            inner = len(state_dict["encoder.body_conv.0.0.weight"])
            encoder, blocks = "fsrcnn", len(indices(state_dict, "encoder.body_conv.")) - 3
            channels = state_dict["encoder.head_conv.0.weight"].shape[1]
        elif "encoder.recon_trunk.0.conv1.weight" in state_dict:
            encoder, inner = "srresnet", 0
            blocks = len(indices(state_dict, "encoder.recon_trunk."))
            channels = state_dict["encoder.conv_first.weight"].shape[1]
        else:
            raise ModelLoadError("PCSR: its encoder is none of CARN-M, FSRCNN and SRResNet")
        hidden = []
        for name in SAMPLERS:
            start = f"{name}.imnet.layers."
            layers = [state_dict[f"{start}{i}.weight"] for i in indices(state_dict, start)]
            hidden += [tuple(len(layer) for layer in layers[:-1])] if layers else []
        if len(hidden) not in (1, len(SAMPLERS)):
            raise ModelLoadError(f"PCSR: {len(hidden)} of {', '.join(SAMPLERS)} are there")
        return PCSRConfig(
            in_channels=channels,
            out_channels=3,
            scale=whole_number("scale", options.get("scale")) or 4,
            encoder=encoder,
            width=first.shape[1] - PLACE,
            inner=inner,
            blocks=blocks,
            hidden=tuple(hidden),
        )

    def assumed(self, config: PCSRConfig, options: Mapping[str, Any]) -> list[str]:
        return [] if "scale" in options else [f"assumed scale={config.scale}"]

    def build(self, config: PCSRConfig) -> PCSR:
        return PCSR(config)


ARCHITECTURE = PCSRArch
