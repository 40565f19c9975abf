"""`WindowedUpscaler`: a network for windows of one size as a module that takes images of any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..contract import TileContract
from ..guards import is_hooked
from .bands import Windowing
from .engine import WindowEngine, usual_batch

NETWORK_PREFIX = "network."


class WindowedUpscaler(nn.Module):
    """Runs a network for ``window`` x ``window`` pixels on images of any size.

    (B, C, H, W) -> (B, C, H * scale, W * scale) in the image's dtype, on its device. An image of
    exactly one window gets exactly the network's output.

    Args:
        network: (N, C, window, window) -> (N, C, window * scale, window * scale); holds all
            parameters. `Windowing` says what else it may offer.
        window: side of the network's input, in pixels.
        scale: output size / input size.
        alignment: tiles cut from an image should start at multiples of this many input pixels, and
            have such sizes.
        overlap: least overlap of neighbouring windows, in input pixels, up to half a window; None:
            a quarter.
        batch: windows per call of the network; None: `usual_batch` of the device.
        assumptions: sentences on what the network's loader had to assume, for `arch.info`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        window: int,
        scale: int,
        alignment: int = 1,
        overlap: int | None = None,
        batch: int | None = None,
        assumptions: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.window = window
        self.scale = scale
        self.alignment = alignment
        self.overlap = window // 4 if overlap is None else overlap
        self.batch = batch
        self.assumptions = tuple(assumptions)
        self._windowing()  # raises if the numbers are out of their ranges

    def _windowing(self) -> Windowing:
        return Windowing(
            network=self.network, window=self.window, scale=self.scale, overlap=self.overlap
        )

    @property
    def tile_contract(self) -> TileContract:
        """Its own windows, so that nobody else need tile it.

        With hooks on the module there are none: then tiles of any size have to go through it.
        """
        return TileContract(
            window=None if is_hooked(self) else self.window,
            overlap=self.overlap,
            alignment=self.alignment,
            network=self,
        )

    @property
    def exact_engine(self) -> WindowEngine:
        """The same result band by band, in bounded memory, with progress for every window.

        Raises:
            AttributeError: the module has hooks; a band would not pass through them.
        """
        if is_hooked(self):
            raise AttributeError("a hooked upscaler has no exact engine; run the upscaler itself")
        return WindowEngine(self._windowing(), self.batch)

    def forward(self, x: Tensor) -> Tensor:
        batch = self.batch or usual_batch(x.device)
        return torch.cat(list(self._windowing().bands(x, batch)), 2).to(x.dtype)
