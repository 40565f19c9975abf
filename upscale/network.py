"""Running the model on one batch of tiles, and noticing what went wrong in it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from spandrel import ImageModelDescriptor
from torch import Tensor

from .memory import working_bytes
from .protocol import Placement

logger = logging.getLogger(__name__)


class OutOfMemoryError(RuntimeError):
    """Even the smallest tile does not fit into memory; the message says what to do."""


@dataclass(frozen=True)
class TileTraits:
    """What a model wants of tiles: `protocol.TileContract` joined with spandrel's size requirements."""

    fixed: int | None
    overlap: int
    alignment: int
    minimum: int

    @classmethod
    def of(cls, model: ImageModelDescriptor) -> TileTraits:
        contract = getattr(model.model, "tile_contract", None)
        requirements = model.size_requirements
        if contract is None:
            return cls(None, 32, requirements.multiple_of, max(requirements.minimum, 1))
        return cls(contract.size, contract.overlap, contract.alignment, max(requirements.minimum, 1))


class Runner:
    """Calls the model in the chosen precision; falls back to float32, for good, when it makes NaN or infinity."""

    def __init__(self, model: ImageModelDescriptor, dtype: torch.dtype, placement: Placement) -> None:
        self.original = model
        self.dtype = dtype
        self.placement = placement
        self.ready = model
        self.one_at_a_time = False

    def prepare(self, batch: int, height: int, width: int) -> None:
        """Have the model on the device with room for such a batch of tiles (input pixels)."""
        self.prepare_bytes(self.memory_required(batch, height, width))

    def prepare_bytes(self, memory_required: int) -> None:
        """Have the model on the device in the current precision, with so many bytes free beside it."""
        self.ready = self.placement.prepare(self.original, self.dtype, memory_required)

    def memory_required(self, batch: int, height: int, width: int) -> int:
        """Bytes that one batch works in: the network's, and input and float32 output of the tiles."""
        model = self.original
        own = batch * height * width * (model.input_channels + 2 * model.output_channels * model.scale**2) * 4
        return working_bytes(model, batch, height, width, self.dtype) + own

    def __call__(self, tiles: Tensor) -> Tensor:
        """Tiles (B, Cin, h, w) float32 -> (B, Cout, h * scale, w * scale) float32 in [0, 1], on the device.

        Raises:
            ValueError: the model makes NaN or infinity in float32 too.
        """
        result, finite = self._forward(tiles)
        if not finite and self.dtype != torch.float32:
            logger.warning(
                "%s made NaN or infinite values in %s; this and the remaining tiles are computed in float32",
                self.original.architecture.name,
                str(self.dtype).removeprefix("torch."),
            )
            self.dtype = torch.float32
            del result
            self.prepare(tiles.shape[0], *tiles.shape[-2:])
            result, finite = self._forward(tiles)
        if not finite:
            raise ValueError(
                f"{self.original.architecture.name} made NaN or infinite values in float32; the checkpoint is damaged "
                "or does not fit its architecture: try another one"
            )
        return result

    def _forward(self, tiles: Tensor) -> tuple[Tensor, bool]:
        if self.one_at_a_time and len(tiles) > 1:
            return self._one_by_one(tiles)
        batch = tiles.to(self.placement.device, self.dtype)
        try:
            return self._run(batch)
        except Exception as error:
            if len(tiles) == 1 or self.placement.is_out_of_memory(error):
                raise
            logger.info("%s takes no batches (%s)", self.original.architecture.name, error)
        self.one_at_a_time = True
        return self._one_by_one(tiles)

    def _one_by_one(self, tiles: Tensor) -> tuple[Tensor, bool]:
        parts = [self._run(tile.to(self.placement.device, self.dtype)) for tile in tiles.split(1)]
        return torch.cat([part for part, _ in parts]), all(finite for _, finite in parts)

    def _run(self, batch: Tensor) -> tuple[Tensor, bool]:
        contract = getattr(self.ready.model, "tile_contract", None)
        if contract is not None:
            raw = contract.network(batch)
            return raw.float().clamp_(0, 1), bool(raw.isfinite().all())
        seen: list[Tensor] = []  # spandrel clamps, which hides infinity: look at the module's own output

        def look(module: Any, inputs: Any, output: Any) -> None:
            tensors = output if isinstance(output, tuple | list) else (output,)
            seen.extend(t.isfinite().all() for t in tensors if isinstance(t, Tensor))

        hook = self.ready.model.register_forward_hook(look)
        try:
            result = self.ready(batch).float()
        finally:
            hook.remove()
        return result, all(bool(flag) for flag in seen) and bool(result.isfinite().all())
