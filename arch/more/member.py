"""What every file of this folder defines, so that everything else follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from spandrel import Architecture, ImageModelDescriptor, ModelTiling
from torch import Tensor, nn

from ..contract import TileContract
from ..errors import ModelLoadError


@dataclass(frozen=True, kw_only=True)
class MemberConfig:
    """What the descriptor says of a network; a file adds the hyperparameters of its own.

    Attributes:
        in_channels, out_channels: of the image.
        scale: output size / input size.
        alignment: tiles start at multiples of this many input pixels.
    """

    in_channels: int = 3
    out_channels: int = 3
    scale: int = 4
    alignment: int = 1


class Member(Architecture[nn.Module]):
    """An architecture of one file. A subclass sets the attributes and two or three methods.

    Attributes:
        title: its name, as people know it; the id in registries is this without spaces.
        source: whose files it reads, for the documentation.
        options: names of options of `load_model`, which `infer` gets as keywords.
        overlap: of neighbouring tiles, in input pixels.
        half: whether half precision (fp16) is safe.
        examples: small configurations, for the common tests.
        example_options: the options that these need, where tensors don't tell all.
        before: ids of registered architectures whose detectors would claim its files, so that it
            is asked first.
    """

    title: ClassVar[str]
    source: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    overlap: ClassVar[int] = 32
    half: ClassVar[bool] = True
    examples: ClassVar[tuple[MemberConfig, ...]]
    example_options: ClassVar[Mapping[str, Any]] = {}
    before: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__(id=self.title.replace(" ", ""), name=self.title, detect=self.knows)

    def knows(self, state_dict: Mapping[str, Tensor]) -> bool:
        """Whether these are tensors of this architecture and of no other one."""
        raise NotImplementedError

    def prepare(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the network at inference: what only training needs is folded in."""
        return dict(state_dict)

    def infer(self, state_dict: Mapping[str, Tensor], **options: Any) -> MemberConfig:
        """The configuration, of prepared tensors. Raises ModelLoadError where they contradict."""
        raise NotImplementedError

    def build(self, config: Any) -> nn.Module:
        """The network: (B, in_channels, H, W) in [0, 1] -> (B, out_channels, H * scale,
        W * scale), not clamped, for any H, W >= 1."""
        raise NotImplementedError

    def statistics(self, config: Any) -> str:
        """What the network takes from the whole picture, so that tiles change its result; "" for
        nothing."""
        return ""

    def assumed(self, config: Any, options: Mapping[str, Any]) -> list[str]:
        """What neither tensors nor options tell, for *Upscale Model Info*."""
        return []

    def load(self, state_dict: Mapping[str, Tensor], **options: Any) -> ImageModelDescriptor:
        """The network of a checkpoint, for spandrel's registries."""
        tensors = self.prepare(state_dict)
        try:
            config = self.infer(tensors, **options)
        except (KeyError, IndexError) as error:
            raise ModelLoadError(f"{self.title}: the tensor {error} is missing") from error
        network = self.build(config)
        network.tile_contract = TileContract(  # type: ignore[assignment]
            window=None, overlap=self.overlap, alignment=config.alignment, network=network
        )
        remarks = self.assumed(config, options)
        if statistics := self.statistics(config):
            remarks = [*remarks, f"tiles change the result: {statistics} over the whole picture"]
        network.assumptions = remarks  # type: ignore[assignment]
        return ImageModelDescriptor(
            network,
            tensors,
            architecture=self,
            purpose="Restoration" if config.scale == 1 else "SR",
            tags=[],
            supports_half=self.half,
            supports_bfloat16=True,
            scale=config.scale,
            input_channels=config.in_channels,
            output_channels=config.out_channels,
            tiling=ModelTiling.DISCOURAGED if statistics else ModelTiling.SUPPORTED,
        )


def whole_number(name: str, given: Any) -> int | None:
    """The value of an option that is a whole number above 0, also as text; None where not given."""
    if given is None:
        return None
    if not str(given).isdecimal() or int(given) < 1:
        raise ModelLoadError(f"the option {name} is a whole number above 0, not {given!r}")
    return int(given)


def indices(state_dict: Mapping[str, Tensor], start: str) -> list[int]:
    """The numbers that follow ``start`` in names, "body." in "body.12.weight", in order."""
    rests = (key[len(start) :].partition(".")[0] for key in state_dict if key.startswith(start))
    return sorted({int(rest) for rest in rests if rest.isdecimal()})


def shuffle_factor(rows: int, channels: int, what: str) -> int:
    """The factor of a pixel shuffle that makes ``channels`` of ``rows``. Raises ModelLoadError."""
    factor = round((rows / channels) ** 0.5)
    if channels * factor**2 != rows:
        raise ModelLoadError(
            f"{what} makes {rows} channels; {channels} times a square were expected"
        )
    return factor


def one_of(name: str, given: Any, choices: tuple[str, ...]) -> str:
    """The value of an option that is one of some words, the first where not given."""
    if given is None:
        return choices[0]
    if str(given) not in choices:
        raise ModelLoadError(f"the option {name} is one of {', '.join(choices)}, not {given!r}")
    return str(given)
