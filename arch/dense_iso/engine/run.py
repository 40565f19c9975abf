"""Dense-Iso-ViT for inference: the same parameters and the same output, computed with less work.

- The linear end of the head is one convolution (`fold`); wide 3x3 convolutions before it run by
  Winograd's algorithm on a CPU (`winograd`).
- The head is computed only where its output is kept: from the last layer to the first, every layer
  computes only the cells that the next one reads (`_plan`).
- The widest layers run in bands of rows, which needs half of the memory and is faster on CPUs.
- Tokens of several windows go through the stages together, and through the head's layers before it
  enlarges, so that the fixed cost of starting an operator is shared. After that a CPU takes one
  window at a time.
- All tensors keep the channels-last layout of tokens. In it a PixelShuffle copies runs of adjacent
  values if the channels of the convolution before it are in the right order. GDFN's two depthwise
  paths are one convolution.

In training, and where gradients are recorded, the plain network of network.py runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....common.dry_run import device_of
from ....common.fingerprint import fingerprint
from ...guards import is_altered, without_autocast
from ...kernels import winograd
from ...kernels.onednn import convolve_gelu, has_internal_operators
from ...windowed.bands import Place, cut_places
from ..config import ACTIVATIONS, VALUE_RANGES, DenseIsoViTConfig, HeadLayer
from ..network import GDFN, DenseIsoViT, Stage, TransformerBlock
from .block import PackedBlock
from .fold import RADIUS, FoldedHead, Span, fold_head

# In bands of so many output rows, the widest layers' tensors stay below the size from which on the
# allocator maps memory anew each time.
BAND = 128


@dataclass(frozen=True)
class Step:
    """One convolution of the head along one axis, in cells of its own grid.

    Attributes:
        cells: the output cells that are computed.
        read: the input cells that they depend on.
        padding: zeros before and after ``read``, where it ends at the border of the grid.
    """

    cells: Span
    read: Span
    padding: Span


class HeadConvolution:
    """Convolution, activation and PixelShuffle of one layer of the head.

    The output channels are ordered so that the shuffle copies runs of adjacent values.
    """

    def __init__(self, convolution: nn.Conv2d, layer: HeadLayer) -> None:
        self.shuffle, self.radius, self.activation = (
            layer.shuffle,
            layer.kernel // 2,
            layer.activation,
        )
        self.bias = None if convolution.bias is None else self._ordered(convolution.bias)
        weight = self._ordered(convolution.weight)
        suits = winograd.suits(weight.shape, weight.dtype, weight.device)
        self.transformed = winograd.transform_weight(weight) if suits else None
        self.weight = (
            weight.contiguous(memory_format=torch.channels_last)
            if self.transformed is None
            else None
        )

    def _ordered(self, values: Tensor) -> Tensor:
        """Reorder the first dimension from PixelShuffle's (C, r, r) to (r, r, C)."""
        return values.detach().unflatten(0, (-1, self.shuffle**2)).transpose(0, 1).flatten(0, 1)

    def __call__(
        self, x: Tensor, covered: tuple[Span, Span], vertical: Step, horizontal: Step
    ) -> Tensor:
        """Compute the cells of the steps, activated and shuffled.

        ``x`` is the part of the layer's input whose rows and columns are ``covered``.
        """
        x = x[:, :, _shifted(vertical.read, covered[0])]
        if self.transformed is not None:
            x = x[:, :, :, _shifted(horizontal.read, covered[1])]
            padding = *horizontal.padding, *vertical.padding
            return winograd.convolve(x, self.transformed, padding, self._finish, self.shuffle)
        assert self.weight is not None, "one of the two is kept"
        # All columns are computed, with zero padding even where the window continues: cutting the
        # result is cheaper than copying the input.
        gelu = self.activation == "gelu"
        if gelu:
            x = convolve_gelu(x, self.weight, self.bias, (self.radius, self.radius), 1)
        else:
            x = F.conv2d(x, self.weight, self.bias, padding=self.radius)
        x = x.permute(0, 2, 3, 1)  # (B, h, w, r * r * C)
        x = x[:, _shifted(vertical.cells, vertical.read), _shifted(horizontal.cells, covered[1])]
        x = x if gelu else self._activated(x)
        return self._shuffled(x).permute(0, 3, 1, 2)

    def _finish(self, x: Tensor) -> Tensor:
        """Add the bias and activate: (..., r * r * C), same shape."""
        return self._activated(x if self.bias is None else x.add_(self.bias))

    def _activated(self, x: Tensor) -> Tensor:
        """(..., r * r * C), same shape."""
        return ACTIVATIONS[self.activation](x)

    def _shuffled(self, x: Tensor) -> Tensor:
        """(B, h, w, r * r * C) -> (B, h * r, w * r, C)"""
        r = self.shuffle
        if r == 1:
            return x
        return x.unflatten(3, (r, r, -1)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


@dataclass(frozen=True)
class Prepared:
    """What is computed from the weights once, before the network runs.

    Attributes:
        weights: fingerprint of the weights that it was computed from.
        folded: the linear end of the head as one convolution; None if nothing is folded.
        layers: the layers of the head before that.
        blocks: packed blocks. A block is packed when it first runs where that is faster.
    """

    weights: tuple[tuple[object, ...], ...]
    folded: FoldedHead | None
    layers: list[HeadConvolution]
    blocks: dict[TransformerBlock, PackedBlock] = field(default_factory=dict)


class InferenceDenseIsoViT(DenseIsoViT):
    """`DenseIsoViT` that is faster without gradients, and can compute a part of the output only."""

    def __init__(self, config: DenseIsoViTConfig | None = None) -> None:
        super().__init__(config)
        self._prepared: Prepared | None = None
        self.register_load_state_dict_post_hook(_weights_changed)

    def _as_written(self) -> bool:
        """Whether the plain network has to run: for gradients, or because it was altered."""
        return self.training or torch.is_grad_enabled() or is_altered(self)

    def forward(self, x: Tensor) -> Tensor:
        if self._as_written():
            return super().forward(x)
        end = self.config.window * self.config.scale
        return self.part(x, (0, end), (0, end))

    def part(self, x: Tensor, rows: Span, columns: Span) -> Tensor:
        """Compute the same part of the output of every window.

        (B, 3, window, window) -> (B, 3, rows, columns)

        Args:
            x: windows, as for `DenseIsoViT.forward`.
            rows, columns: first output pixel and one past the last.
        """
        parts = self.parts(x, [(rows, columns)] * x.shape[0])
        return torch.stack(parts) if parts else self.skip(x)[:, :, slice(*rows), slice(*columns)]

    def parts(self, x: Tensor, places: Sequence[Place]) -> list[Tensor]:
        """Compute a part of the output of each window.

        (B, 3, window, window) -> B of (3, rows, columns)

        Args:
            x: windows, as for `DenseIsoViT.forward`.
            places: rows and columns for each window, as for `part`. Windows with equal places are
                computed together if they are neighbours.
        """
        self.check_input(x)
        if len(places) != x.shape[0]:
            raise ValueError(f"{x.shape[0]} windows need as many places, found {len(places)}")
        if self._as_written():
            return cut_places(self(x), places)
        with without_autocast(x.device):
            return [y for group in self._parts(x, places) for y in group]

    def _parts(self, x: Tensor, places: Sequence[Place]) -> Iterator[Tensor]:
        gain, offset = VALUE_RANGES[self.config.value_range]
        x = x if gain == 1 else x * gain + offset
        prepared = self.prepare()
        cells = self._on_token_grid(
            self.features(x).contiguous(memory_format=torch.channels_last), prepared
        )
        first = 0
        for (rows, columns), equal in itertools.groupby(places):
            count = len(list(equal))
            step = self.head_batch(count, device_of(x))
            for start in range(first, first + count, step):
                chosen = slice(start, min(start + step, first + count))
                y = self._head(cells[chosen], rows, columns, prepared)
                y = y + self.skip(x[chosen])[:, :, slice(*rows), slice(*columns)]
                yield y if gain == 1 else (y - offset) / gain
            first += count

    @staticmethod
    def head_batch(batch: int, device: torch.device) -> int:
        """How many of ``batch`` windows go through the enlarging part of the head together."""
        return min(batch, 1) if device.type == "cpu" else batch

    def run_stage(self, stage: Stage, x: Tensor) -> Tensor:
        """As `DenseIsoViT.run_stage`: (B, N, C) -> (B, N, C), by packed blocks where possible."""
        if self.training or torch.is_grad_enabled() or is_altered(stage):
            return super().run_stage(stage, x)
        packed = self.prepare().blocks
        for block in stage.blocks:
            assert isinstance(block, TransformerBlock)
            if has_internal_operators(x.dtype, x.device) and PackedBlock.suits(block):
                if block not in packed:
                    packed[block] = PackedBlock(block)
                x = packed[block](x)
                continue
            attended = block.attention(block.norm1(x))
            x = x + (attended if block.layer_scale_1 is None else block.layer_scale_1 * attended)
            fed_forward = _gdfn_on_tokens(block.gdfn, block.norm2(x))
            x = x + (
                fed_forward if block.layer_scale_2 is None else block.layer_scale_2 * fed_forward
            )
        return x

    def _on_token_grid(self, x: Tensor, prepared: Prepared) -> Tensor:
        """The layers of the head before it enlarges, for all cells of the token grid.

        (B, sum(dims), grid, grid) -> (B, C, grid, grid)
        """
        whole = 0, self.config.grid
        for layer in prepared.layers[: self._enlarging_from(prepared.folded)]:
            step = Step(whole, whole, (layer.radius, layer.radius))
            x = layer(x, (whole, whole), step, step)
        return x

    def _enlarging_from(self, folded: FoldedHead | None) -> int:
        """Index of the head's first layer that is folded or has a PixelShuffle."""
        steps = len(self.config.head) if folded is None else folded.start
        return next((i for i in range(steps) if self.config.head[i].shuffle > 1), steps)

    def _head(self, x: Tensor, rows: Span, columns: Span, prepared: Prepared) -> Tensor:
        """The rest of the head, its widest layers in bands of rows.

        (B, C, grid, grid) from `_on_token_grid` -> (B, 3, rows, columns)
        """
        folded = prepared.folded
        horizontal = list(enumerate(self._plan(folded, columns)))
        start, split = self._enlarging_from(folded), self._banded_from(folded)
        covered = (0, self.config.grid), (0, self.config.grid)
        x, covered = self._run(
            x, covered, self._plan(folded, rows), horizontal[start:split], prepared
        )
        count = -(-(rows[1] - rows[0]) // BAND) if split < len(horizontal) else 1
        edges = [rows[0] + (rows[1] - rows[0]) * i // count for i in range(count + 1)]
        bands = []
        for band in itertools.pairwise(edges):
            out, reached = self._run(
                x, covered, self._plan(folded, band), horizontal[split:], prepared
            )
            bands.append(out[:, :, _shifted(band, reached[0]), _shifted(columns, reached[1])])
        return torch.cat(bands, dim=2) if count > 1 else bands[0]

    def _run(
        self,
        x: Tensor,
        covered: tuple[Span, Span],
        vertical: list[Step],
        horizontal: list[tuple[int, Step]],
        prepared: Prepared,
    ) -> tuple[Tensor, tuple[Span, Span]]:
        """Run some layers of the head; return the result, and which rows and columns it covers."""
        folded = prepared.folded
        for i, h in horizontal:
            v = vertical[i]
            if folded is not None and i == folded.start:
                x, factor = folded(x, covered, (v.cells, h.cells)), folded.factor
            else:
                layer = prepared.layers[i]
                x, factor = layer(x, covered, v, h), layer.shuffle
            covered = (
                (v.cells[0] * factor, v.cells[1] * factor),
                (h.cells[0] * factor, h.cells[1] * factor),
            )
        return x, covered

    def _banded_from(self, folded: FoldedHead | None) -> int:
        """Index of the first layer that runs in bands: the last unfolded one that shuffles."""
        steps = len(self.config.head) if folded is None else folded.start
        shuffling = [i for i in range(steps) if self.config.head[i].shuffle > 1]
        return shuffling[-1] if folded is None and shuffling else len(self.config.head)

    def _plan(self, folded: FoldedHead | None, wanted: Span) -> list[Step]:
        """The steps of the head along one axis for the output pixels ``wanted``.

        They are found from the last layer to the first.
        """
        layers = [(layer.kernel // 2, layer.shuffle) for layer in self.config.head]
        if folded is not None:
            layers = [*layers[: folded.start], (RADIUS, folded.factor)]
        side = self.config.window * self.config.scale
        steps = []
        for radius, factor in reversed(layers):
            side //= factor
            cells = wanted[0] // factor, -(-wanted[1] // factor)
            wanted = max(0, cells[0] - radius), min(side, cells[1] + radius)
            steps.append(
                Step(cells, wanted, (wanted[0] - cells[0] + radius, cells[1] + radius - wanted[1]))
            )
        return steps[::-1]

    @property
    def _convolutions(self) -> list[nn.Conv2d]:
        return [module for module in self.head if isinstance(module, nn.Conv2d)]

    def prepare(self) -> Prepared:
        """What is computed from the weights once; computed again after the weights changed."""
        weights = fingerprint(self.parameters())
        if self._prepared is None or self._prepared.weights != weights:
            convolutions = self._convolutions
            folded = fold_head(convolutions, self.config.head, self.config.grid)
            before = list(zip(convolutions, self.config.head))[
                : folded.start if folded is not None else None
            ]
            layers = [HeadConvolution(*pair) for pair in before]
            self._prepared = Prepared(weights, folded, layers)
        return self._prepared

    def train(self, mode: bool = True) -> InferenceDenseIsoViT:
        """As `nn.Module.train`; a change of mode also drops what was made from the weights."""
        if mode != self.training:  # fused optimisers change weights without raising their version
            self._forget()
        super().train(mode)
        return self

    def _forget(self) -> None:
        self._prepared = None

    def __getstate__(self) -> dict:  # copies and pickles leave out what can be made again
        return {**self.__dict__, "_prepared": None}

    def _apply(self, fn, recurse: bool = True) -> nn.Module:
        """As `nn.Module._apply`; if it moved or cast weights, what was made from them is dropped.

        ``.to(device)`` calls this even if everything is on the device already; then all is kept.
        """
        module = super()._apply(fn, recurse)
        if self._prepared and self._prepared.weights != fingerprint(self.parameters()):
            self._forget()
        return module


def _weights_changed(network: InferenceDenseIsoViT, _: object) -> None:
    network._forget()


def _shifted(span: Span, covered: Span) -> slice:
    """The cells ``span`` as a slice of a tensor that holds the ``covered`` cells."""
    return slice(span[0] - covered[0], span[1] - covered[0])


def _gdfn_on_tokens(gdfn: GDFN, x: Tensor) -> Tensor:
    """`GDFN.forward` in channels-last memory. (B, N, C) -> (B, N, C)."""
    x = (
        gdfn.g_proj(x).unflatten(1, (gdfn.grid, gdfn.grid)).permute(0, 3, 1, 2)
    )  # (B, 2 * hidden, grid, grid)
    weight = torch.cat([gdfn.path_1.weight, gdfn.path_2.weight])
    bias = None
    if gdfn.path_1.bias is not None and gdfn.path_2.bias is not None:
        bias = torch.cat([gdfn.path_1.bias, gdfn.path_2.bias])
    x = F.conv2d(x, weight, bias, padding=1, groups=weight.shape[0])
    first, second = x.permute(0, 2, 3, 1).flatten(1, 2).chunk(2, dim=-1)  # (B, N, hidden) each
    return gdfn.out_proj(F.gelu(first) * second if gdfn.gate_first else first * F.gelu(second))
