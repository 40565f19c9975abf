"""FDAT for spandrel's registries, and the exact engine that a loaded network offers."""

from __future__ import annotations

from typing import Any

from spandrel import Architecture, ImageModelDescriptor, ModelTiling, SizeRequirements, StateDict

from ..errors import ModelLoadError
from ..guards import is_altered
from .checkpoint import infer_config
from .config import preset_name
from .engine.run import ExactEngine
from .engine.weights import forget_packed
from .network import FDAT
from .relatives import is_named_like_fdat, relative, takes_frames


class InferenceFDAT(FDAT):
    """`FDAT` with an engine that upscales whole images in bounded memory."""

    @property
    def exact_engine(self) -> ExactEngine:
        """The engine for whole images in bounded memory; ordinary tiles change FDAT's result.

        Raises:
            AttributeError: the network has hooks or replaced layers. The engine reads weights
                instead of calling layers, so it would miss them.
        """
        if is_altered(self):
            raise AttributeError("an altered network has no exact engine; run the network itself")
        return ExactEngine(self)

    def train(self, mode: bool = True) -> InferenceFDAT:
        """As `nn.Module.train`; a change of mode also drops the packed weights."""
        if mode != self.training:  # fused optimisers change weights without raising their version
            forget_packed(self)
        super().train(mode)
        return self


class FDATArch(Architecture[InferenceFDAT]):
    """Detects and loads FDAT checkpoints, with ``MetaUpsample`` or without."""

    options = ("scale",)

    def __init__(self) -> None:
        super().__init__(id="FDAT", detect=self._is_fdat)

    @staticmethod
    def _is_fdat(state_dict: StateDict) -> bool:
        known = is_named_like_fdat(state_dict) and not takes_frames(state_dict)
        return known and relative(state_dict) is None

    def load(
        self, state_dict: StateDict, *, scale: int | str | None = None
    ) -> ImageModelDescriptor[InferenceFDAT]:
        """Build the network that ``state_dict`` describes and load it.

        Args:
            state_dict: the tensors of an FDAT; not modified.
            scale: see `infer_config`; also as text.

        Raises:
            ModelLoadError: the configuration can't be inferred, or the scale is no whole number.
            RuntimeError: tensors are missing, left over or of the wrong shape.
        """
        config = infer_config(state_dict, scale=_whole_number(scale))
        tags = [f"{config.embed_dim}dim", config.upsampler_type]
        if name := preset_name(config):
            tags.append(name)
        if config.unshuffle_mod:
            tags.append("unshuffle")
        return ImageModelDescriptor(
            InferenceFDAT(config),
            state_dict,
            architecture=self,
            purpose="Restoration" if config.scale == 1 else "SR",
            tags=tags,
            supports_half=True,
            supports_bfloat16=True,
            scale=config.scale,
            input_channels=config.num_in_ch,
            output_channels=config.num_out_ch,
            size_requirements=SizeRequirements(multiple_of=config.unshuffle),
            tiling=ModelTiling.DISCOURAGED,
        )


def _whole_number(given: Any) -> int | None:
    if given is None or (isinstance(given, int) and given > 0):
        return given
    if not str(given).isdecimal() or int(given) == 0:
        raise ModelLoadError(f"the option scale is a whole number, not {given!r}")
    return int(given)
