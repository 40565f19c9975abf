"""What the networks that take several successive frames have in common."""

from __future__ import annotations

import logging
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..contract import ClipContract, Recall, compute_anew

logger = logging.getLogger(__name__)


class ClipNetwork(nn.Module):
    """A network of an odd number of frames that gives the middle one.

    It is called with a clip (B, frames, C, H, W) or (B, frames * C, H, W) in [0, 1], or with a
    single picture (B, C, H, W), which is then repeated; the result is (B, C, H * scale,
    W * scale), not clamped. A subclass defines `joined`.
    """

    remembers: ClassVar[bool] = False
    """Whether `joined` asks its `Recall` for anything."""

    def __init__(self, frames: int, channels: int) -> None:
        super().__init__()
        self.frames, self.channels = frames, channels
        self._told = False

    @property
    def clip_contract(self) -> ClipContract:
        """The frames around the one that comes out."""
        around = self.frames // 2
        recalling = self._recalling if self.remembers else None
        return ClipContract(before=around, after=around, recalling=recalling)

    def joined(self, clip: Tensor, recall: Recall) -> Tensor:
        """The middle frame of (B, frames, C, H, W), enlarged."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.joined(self.clip_of(x), compute_anew)

    def _recalling(self, x: Tensor, recall: Recall) -> Tensor:
        return self.joined(self.clip_of(x), recall)

    def clip_of(self, x: Tensor) -> Tensor:
        """The clip (B, frames, C, H, W) of what the network is called with."""
        if x.ndim == 5 and tuple(x.shape[1:3]) == (self.frames, self.channels):
            return x
        if x.ndim == 4 and x.shape[1] == self.frames * self.channels:
            return x.unflatten(1, (self.frames, self.channels))
        if x.ndim == 4 and x.shape[1] == self.channels:
            self._tell()
            return x[:, None].expand(-1, self.frames, -1, -1, -1)
        raise ValueError(
            f"{type(self).__name__} got {tuple(x.shape)}; {self.frames} frames (B, {self.frames}, "
            f"{self.channels}, H, W), or a picture (B, {self.channels}, H, W), were expected"
        )

    def _tell(self) -> None:
        """Say once that a picture is repeated, by whatever node or program passes it."""
        if not self._told and not torch.compiler.is_compiling():
            self._told = True
            logger.warning(
                "%s takes %d successive frames and gets one picture, which is repeated; the nodes "
                "of this pack give it neighbouring frames of videos and of batches",
                *(type(self).__name__, self.frames),
            )
