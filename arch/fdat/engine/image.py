"""The image that an FDAT reads, in rows of its feature maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ....common.reflection import reflect
from ....common.rows import Rows
from ..network import pad_to_multiple


class ImageRows:
    """One image (C, H, W), pixel-unshuffled, in rows of the feature map.

    Args:
        image: (C, H, W), which is converted at once, or `Rows` of a batch of one, which are read
            when they are needed.
        unshuffle: pixels along a side that become channels of one.
        device, dtype: of the rows.
    """

    def __init__(
        self, image: Tensor | Rows, unshuffle: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.unshuffle, self.device, self.dtype = unshuffle, device, dtype
        self._whole, self._source = None, image
        if isinstance(image, Tensor):
            whole = F.pixel_unshuffle(pad_to_multiple(image[None], unshuffle), unshuffle)[0]
            self._whole = whole.to(device, dtype).permute(1, 2, 0).contiguous()

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of the feature map: (stop - start, columns, C * unshuffle**2)."""
        if self._whole is not None:
            return self._whole[start:stop]
        source, size = self._source, self.unshuffle
        height = source.shape[2]
        top, bottom = start * size, stop * size
        # beyond the bottom come the rows above it once more, as `pad_to_multiple` has it
        first = min(top, max(height - size, 0)) if bottom > height else top
        pixels = source.rows(first, min(bottom, height))
        pixels = reflect(pixels, 2, 0, max(bottom - height, 0))[:, :, top - first :]
        pixels = reflect(pixels, 3, 0, -pixels.shape[3] % size)
        rows = F.pixel_unshuffle(pixels, size)[0].to(self.device, self.dtype)
        return rows.permute(1, 2, 0).contiguous()
