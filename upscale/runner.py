"""Runs the model on one batch of tiles, and notices what went wrong."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from spandrel import ImageModelDescriptor, ModelTiling
from torch import Tensor, nn

from ..common.dry_run import working_bytes
from ..common.reach import looks_at_the_whole
from ..common.tiling import round_up
from .clip import ClipTraits
from .memory import first_line
from .pipeline import AHEAD
from .protocol import Placement, Recall
from .seamless import MIRRORED
from .transfer import Copies, is_fresh

logger = logging.getLogger(__name__)


PIXELS_PER_BATCH = {"cpu": 128**2, "other": 512**2}
LARGEST_BATCH = 16
SIDE = 128
"""Of the smaller picture whose dry run tells what tiles mean; windows are hardly ever larger."""


def usual_batch(device: torch.device, pixels: int) -> int:
    """How many images of so many pixels should go through a network together.

    Small ones would leave much of a GPU idle; on a CPU batches soon leave its caches.
    """
    kind = "cpu" if device.type == "cpu" else "other"
    return min(max(PIXELS_PER_BATCH[kind] // pixels, 1), LARGEST_BATCH)


def not_finite(model: ImageModelDescriptor) -> ValueError:
    """The error for a model that makes NaN or infinity even in float32."""
    return ValueError(
        f"{model.architecture.name} made NaN or infinite values in float32; the checkpoint is damaged or does not fit "
        "its architecture: try another one, if the picture's values are near [0, 1] at all"
    )


def all_finite(x: Tensor) -> Tensor:
    """Whether no value is NaN or infinite, as a tensor () bool on the device of ``x``.

    The extremes tell, because NaN spreads to them. Unlike ``isfinite`` they need no memory.
    """
    if not x.is_floating_point() or not x.numel():
        return torch.ones((), dtype=torch.bool, device=x.device)
    return torch.stack(x.aminmax()).isfinite().all()


@dataclass(frozen=True)
class TileTraits:
    """What a model needs of tiles, by its `protocol.TileContract` and spandrel's size requirements.

    Attributes:
        window: side of the windows into which the network divides every image by itself; None: it
            has no windows, and is run in tiles.
        overlap: sensible overlap of tiles, in input pixels.
        alignment: starts and sizes of tiles should be multiples of this many input pixels.
        minimum: smallest side of a tile.
        mirror_borders: the network's padding spoils the border of a picture.
    """

    window: int | None
    overlap: int
    alignment: int
    minimum: int
    mirror_borders: bool = False

    def mirrored(self, border: str, mode: str) -> int:
        """Input pixels that are mirrored beyond the borders of a picture, for the options of these
        names."""
        asked = border == "auto" and mode in ("auto", "tile") and self.mirror_borders
        return round_up(MIRRORED, self.alignment) if asked or border == "mirror" else 0

    @classmethod
    def of(cls, model: ImageModelDescriptor) -> TileTraits:
        """What the model's `tile_contract` asks for, or else its size requirements."""
        contract = getattr(model.model, "tile_contract", None)
        requirements = model.size_requirements
        if contract is None:
            return cls(None, 32, requirements.multiple_of, max(requirements.minimum, 1))
        return cls(
            contract.window,
            contract.overlap,
            contract.alignment,
            max(requirements.minimum, 1),
            getattr(contract, "mirror_borders", False),
        )


@dataclass(frozen=True)
class Result:
    """What the model made of a batch of tiles, perhaps not yet computed.

    Attributes:
        values: (B, Cout, h * scale, w * scale) in ``dtype`` on the device, not yet clamped.
        finite: () bool on the device, whether no value is NaN or infinite.
        dtype: precision of the call.
        fresh: nobody will write to the memory of ``values`` again. Some networks keep it for their
            next result.
    """

    values: Tensor
    finite: Tensor
    dtype: torch.dtype
    fresh: bool


class Runner:
    """Calls the model in the chosen precision."""

    def __init__(
        self, model: ImageModelDescriptor, dtype: torch.dtype, placement: Placement
    ) -> None:
        self.original = model
        self.dtype = dtype
        self.placement = placement
        self.copies = Copies(placement.device)
        self.ready = model
        self.one_at_a_time = False
        self._told = False

    def prepare(self, batch: int, height: int, width: int) -> None:
        """Put the model on the device, with memory for a batch of tiles of this size."""
        self.prepare_bytes(self.memory_required(batch, height, width))

    def prepare_bytes(self, memory_required: int) -> None:
        """Put the model on the device in the current precision, with so many bytes free."""
        self.ready = self.placement.prepare(self.original, self.dtype, memory_required)

    def memory_required(self, batch: int, height: int, width: int) -> int:
        """Bytes that one batch needs on the device.

        They are for its input, for the network, and for results of earlier batches that wait to be
        brought to main memory.
        """
        model = self.original
        pixels = batch * height * width
        channels = model.input_channels * ClipTraits.of(model).frames
        result = pixels * model.output_channels * model.scale**2 * 4
        padding = model.size_requirements.get_padding(width, height)
        shape = batch, channels, height + padding[1], width + padding[0]
        network = working_bytes(
            self._network(), shape, self.dtype, model.scale, self.placement.device
        )
        return pixels * channels * 4 + network + AHEAD * result

    def _network(self) -> nn.Module:
        """The module that is run on a tile: the contract's, else the descriptor's model."""
        contract = getattr(self.original.model, "tile_contract", None)
        network = contract.network if contract else self.original.model
        return network if isinstance(network, nn.Module) else self.original.model

    def looks_at_whole(self) -> bool:
        """Whether tiles change the model's result: as its loader says, or as a dry run finds."""
        model = self.original
        if model.tiling is ModelTiling.DISCOURAGED:
            return True
        wanted = model.size_requirements
        sides = [side + wanted.get_padding(side, side)[0] for side in (SIDE, 2 * SIDE)]
        channels = model.input_channels * ClipTraits.of(model).frames
        return looks_at_the_whole(self._network(), channels, (sides[0], sides[1]))

    def tell_tiles(self, height: int, width: int) -> None:
        """Say once what tiles of this size mean for a model that looks at the whole picture."""
        if self._told or not self.looks_at_whole():
            return
        self._told = True
        exact = getattr(self.original.model, "exact_engine", None) is not None
        logger.warning(
            "%s looks at the whole picture: in tiles of %dx%d pixels colours and textures can differ from tile to "
            "tile and from the whole picture's result; %s avoids that",
            self.original.architecture.name,
            width,
            height,
            "mode 'exact'" if exact else "mode 'whole', or more free memory,",
        )

    def __call__(self, tiles: Tensor, recalls: Sequence[Recall] = ()) -> Result:
        """Upscale tiles (B, Cin, h, w) float32, `Copies.staged` or on the device.

        With ``recalls``, one for each tile, they go through the network one at a time.

        The device is not waited for. If the model does not run in half precision, this and all
        later calls are in float32.

        Raises:
            ValueError: the model makes pictures of another size than it promises.
        """
        try:
            return self._forward(tiles, recalls)
        except Exception as error:
            if self.dtype == torch.float32 or self.placement.is_out_of_memory(error):
                raise
            reason = f"does not run ({first_line(error)})"
        self.fall_back(reason, tiles)
        return self._forward(tiles)

    def fall_back(self, reason: str, tiles: Tensor) -> None:
        """Go on in float32, with a warning."""
        precision = str(self.dtype).removeprefix("torch.")
        logger.warning(
            "%s %s in %s; this and the remaining tiles are computed in float32",
            self.original.architecture.name,
            reason,
            precision,
        )
        self.dtype = torch.float32
        self.prepare(tiles.shape[0], *tiles.shape[-2:])

    def _forward(self, tiles: Tensor, recalls: Sequence[Recall] = ()) -> Result:
        if not self.one_at_a_time and not recalls:
            try:
                return self._run(self.copies.upload(tiles, self.dtype))
            except Exception as error:
                if (
                    len(tiles) == 1
                    or self.dtype != torch.float32
                    or self.placement.is_out_of_memory(error)
                ):
                    raise
                logger.info("%s takes no batches (%s)", self.original.architecture.name, error)
            self.one_at_a_time = True
        parts = [
            self._run(self.copies.upload(tile, self.dtype), recall)
            for tile, recall in zip_longest(tiles.split(1), recalls)
        ]
        if len(parts) == 1:
            return parts[0]
        return Result(
            torch.cat([part.values for part in parts]),
            torch.stack([part.finite for part in parts]).all(),
            self.dtype,
            fresh=True,
        )

    def _run(self, batch: Tensor, recall: Recall | None = None) -> Result:
        contract = getattr(self.ready.model, "tile_contract", None)
        if recall is not None:
            result = ClipTraits.of(self.ready).recalling(batch, recall)
            finite = all_finite(result)
        elif contract is not None:
            result = contract.network(batch)
            finite = all_finite(result)
        else:
            result, finite = self._run_descriptor(batch)
        fresh = is_fresh(result)
        model, (frames, _, height, width) = self.original, batch.shape
        promised = (frames, model.output_channels, height * model.scale, width * model.scale)
        if tuple(result.shape) != promised:
            raise ValueError(
                f"{model.architecture.name} made {tuple(result.shape)} of {tuple(batch.shape)}, where its descriptor "
                f"promises {promised}; the loader read its scale or channels wrongly"
            )
        return Result(result, finite, self.dtype, fresh)

    def _run_descriptor(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The result, and whether the module's own output is finite.

        A hook looks at that output, because spandrel clamps it, which hides infinity. It does not
        look at what another thread makes by the same model.
        """
        seen: list[Tensor] = []
        thread = threading.get_ident()

        def look(module: Any, inputs: Any, output: Any) -> None:
            if threading.get_ident() == thread:
                tensors = output if isinstance(output, tuple | list) else (output,)
                seen.extend(all_finite(t) for t in tensors if isinstance(t, Tensor))

        look.of_one_call = True  # type: ignore[attr-defined]
        hook = self.ready.model.register_forward_hook(look)
        try:
            result = self.ready(batch)
        finally:
            hook.remove()
        return result, torch.stack(seen or [all_finite(result)]).all()
