"""Dense-Iso-ViT for inference: the same parameters and the same output, computed with less work.

- The linear end of the head is one convolution (`dense_iso_fold`).
- The head is computed only where its output is kept: going backwards, every layer is asked for the cells that the
  next one reads, and no others (`_plan`).
- GDFN keeps the layout of tokens: both depthwise paths as one convolution on channels-last memory, no copies.

In training, and where gradients are recorded, the plain network runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dense_iso_config import ACTIVATIONS, RGB, VALUE_RANGES, DenseIsoViTConfig
from .dense_iso_fold import RADIUS, FoldedHead, Span, fold_head
from .dense_iso_vit import GDFN, Block, DenseIsoViT, Stage


@dataclass(frozen=True)
class Step:
    """One convolution of the head along one axis, in cells of its own grid.

    Attributes:
        cells: those that are computed.
        read: those of its input that are needed.
        padding: zeros before and after, where ``read`` ends at the border.
    """

    cells: Span
    read: Span
    padding: Span


class InferenceDenseIsoViT(DenseIsoViT):
    """`DenseIsoViT` with a faster path without gradients, and with output for a part of the window."""

    def __init__(self, config: DenseIsoViTConfig | None = None) -> None:
        super().__init__(config)
        self._folded: tuple[tuple[int, ...], FoldedHead | None] | None = None
        self.register_load_state_dict_post_hook(lambda module, _: module._forget())

    def forward(self, x: Tensor) -> Tensor:
        if self.training or torch.is_grad_enabled():
            return super().forward(x)
        end = self.config.window * self.config.scale
        return self.part(x, (0, end), (0, end))

    def part(self, x: Tensor, rows: Span, columns: Span) -> Tensor:
        """Some output pixels of a window: (B, 3, window, window) -> (B, 3, rows, columns).

        Args:
            x: windows, as for `DenseIsoViT.forward`.
            rows, columns: first output pixel and one past the last.
        """
        if self.training or torch.is_grad_enabled():
            return super().forward(x)[:, :, slice(*rows), slice(*columns)]
        self.check_input(x)
        gain, offset = VALUE_RANGES[self.config.value_range]
        x = x if gain == 1 else x * gain + offset
        skip = self.skip(x)[:, :, slice(*rows), slice(*columns)]
        x = self._head(self.features(x), rows, columns) + skip
        return x if gain == 1 else (x - offset) / gain

    def run_stage(self, stage: Stage, x: Tensor) -> Tensor:
        if self.training or torch.is_grad_enabled():
            return super().run_stage(stage, x)
        for block in stage.blocks:
            assert isinstance(block, Block)
            attended = block.attention(block.norm1(x))
            x = x + (attended if block.layer_scale_1 is None else block.layer_scale_1 * attended)
            fed_forward = _gdfn_on_tokens(block.gdfn, block.norm2(x))
            x = x + (fed_forward if block.layer_scale_2 is None else block.layer_scale_2 * fed_forward)
        return x

    def _head(self, x: Tensor, rows: Span, columns: Span) -> Tensor:
        """(B, sum(dims), grid, grid) -> (B, 3, rows, columns)."""
        folded = self._fold()
        vertical, horizontal = self._plan(folded, rows), self._plan(folded, columns)
        covered = (0, self.config.grid), (0, self.config.grid)
        for i, (v, h) in enumerate(zip(vertical, horizontal)):
            if folded is not None and i == folded.start:
                x, factor = folded(x, covered, (v.cells, h.cells)), folded.factor
            else:
                layer, convolution = self.config.head[i], self._convolutions[i]
                x = x[:, :, _shifted(v.read, covered[0]), _shifted(h.read, covered[1])]
                x = F.conv2d(F.pad(x, (*h.padding, *v.padding)), convolution.weight, convolution.bias)
                x, factor = F.pixel_shuffle(x, layer.shuffle), layer.shuffle
                x = ACTIVATIONS[layer.activation](x)
            covered = (v.cells[0] * factor, v.cells[1] * factor), (h.cells[0] * factor, h.cells[1] * factor)
        return x[:, :, _shifted(rows, covered[0]), _shifted(columns, covered[1])]

    def _plan(self, folded: FoldedHead | None, wanted: Span) -> list[Step]:
        """The steps of the head along one axis for output pixels ``wanted``, found from the last to the first."""
        layers = [(layer.kernel // 2, layer.shuffle) for layer in self.config.head]
        if folded is not None:
            layers = [*layers[: folded.start], (RADIUS, folded.factor)]
        side = self.config.window * self.config.scale
        steps = []
        for radius, factor in reversed(layers):
            side //= factor
            cells = wanted[0] // factor, -(-wanted[1] // factor)
            wanted = max(0, cells[0] - radius), min(side, cells[1] + radius)
            steps.append(Step(cells, wanted, (wanted[0] - cells[0] + radius, cells[1] + radius - wanted[1])))
        return steps[::-1]

    @property
    def _convolutions(self) -> list[nn.Conv2d]:
        return [module for module in self.head if isinstance(module, nn.Conv2d)]

    def _fold(self) -> FoldedHead | None:
        """The folded head for the weights as they are now."""
        state = tuple(parameter.data_ptr() for parameter in self.head.parameters())
        if self._folded is None or self._folded[0] != state:
            self._folded = state, fold_head(self._convolutions, self.config.head, self.config.grid)
        return self._folded[1]

    def _forget(self) -> None:
        self._folded = None

    def _apply(self, fn, recurse: bool = True) -> nn.Module:  # moved or cast: also gives the memory back
        self._forget()
        return super()._apply(fn, recurse)


def _shifted(span: Span, covered: Span) -> slice:
    """Absolute cells as a slice of a tensor that covers some of them."""
    return slice(span[0] - covered[0], span[1] - covered[0])


def _gdfn_on_tokens(gdfn: GDFN, x: Tensor) -> Tensor:
    """`GDFN.forward` on channels-last memory. (B, N, C) -> (B, N, C)."""
    x = gdfn.g_proj(x).unflatten(1, (gdfn.grid, gdfn.grid)).permute(0, 3, 1, 2)  # (B, 2 * hidden, grid, grid)
    weight = torch.cat([gdfn.path_1.weight, gdfn.path_2.weight])
    bias = None
    if gdfn.path_1.bias is not None and gdfn.path_2.bias is not None:
        bias = torch.cat([gdfn.path_1.bias, gdfn.path_2.bias])
    x = F.conv2d(x, weight, bias, padding=1, groups=weight.shape[0])
    first, second = x.permute(0, 2, 3, 1).flatten(1, 2).chunk(2, dim=-1)  # (B, N, hidden) each
    return gdfn.out_proj(F.gelu(first) * second if gdfn.gate_first else first * F.gelu(second))


def peak_bytes(config: DenseIsoViTConfig, batch: int, element_size: int, folded: FoldedHead | None = None) -> int:
    """Working memory of one forward of ``batch`` windows, parameters not counted, from the sizes of its tensors.

    The largest step of the head holds its input, its output, and the shuffled copy of the output; the tokens of all
    stages stay until the head has read them.
    """
    grid, side = config.grid, config.grid
    tokens = grid**2 * (sum(config.dims) + max(2 * w + 4 * h for w, h in zip(config.dims, config.hidden)))
    channels, largest = sum(config.dims), 0
    for i, layer in enumerate(config.head):
        if folded is not None and i == folded.start:
            largest = max(largest, side**2 * (channels + 2 * RGB * folded.factor**2))
            break
        largest = max(largest, side**2 * (2 * channels + 2 * layer.channels))
        side *= layer.shuffle
        channels = layer.channels // layer.shuffle**2
    images = RGB * (config.window**2 + 3 * (config.window * config.scale) ** 2)
    return batch * element_size * (max(tokens, largest + grid**2 * sum(config.dims)) + images)
