"""Dense-Iso-ViT for spandrel's registries: checkpoints of any naming, as the inference network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from spandrel import Architecture, ImageModelDescriptor, ModelTiling, StateDict

from ..windowed.network import NETWORK_PREFIX, WindowedUpscaler
from .config import RGB
from .engine.run import InferenceDenseIsoViT
from .reading.options import OPTIONS
from .reading.recognise import is_dense_iso_vit, recognise, report


class DenseIsoViTArch(Architecture[WindowedUpscaler]):
    """Detects and loads Dense-Iso-ViT, whatever names its tensors have.

    How the names are read is in `arch.dense_iso.reading.recognise`.
    """

    options = tuple(OPTIONS)

    def __init__(self) -> None:
        super().__init__(id="DenseIsoViT", name="Dense-Iso-ViT", detect=is_dense_iso_vit)

    def load(
        self,
        state_dict: StateDict,
        *,
        sidecar: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ImageModelDescriptor[WindowedUpscaler]:
        """Load a checkpoint. The descriptor is in eval mode; ``tags`` and log say what was assumed.

        Args:
            state_dict: tensors by name, or dictionaries around them.
            sidecar: contents of a JSON file beside the checkpoint.
            metadata: metadata of the safetensors file.
            options: what tensors can't tell; precedes sidecar and metadata. See
                `arch.dense_iso.reading.options`.

        Raises:
            ModelLoadError: the message says what was found, what did not fit and which option
                would settle it.
        """
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
