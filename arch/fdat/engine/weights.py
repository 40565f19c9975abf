"""The weights of an FDAT, packed once for the precision and the device of a run.

Weights of the operators that process every token are in the run's ``dtype``. LayerNorm stays in the
residual's precision. What the matrices of folding.py are made of is in float64 for the CPU's engine,
and for fused sweeps in the residual's precision: other devices may not know float64.

Fused sweeps in bfloat16 hold in float16 what provably fits it (bounds.py), for its finer rounding.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....common.fingerprint import fingerprint
from ...kernels import winograd
from ...kernels.attention import prefers_products
from ...kernels.products import AddedProduct, Product
from ..network import FDAT, DualPathBlock, ResidualGroup, WindowAttention
from .bounds import fitting
from .rows import as_image, as_rows, convolve_band

HEAD_MULTIPLE = 16
"""Attention kernels are fastest where heads are as wide as this, or a multiple: 32 costs a third
less than 30."""


def residual_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type of the residual stream and of sums within a band: float32, or float64 in float64."""
    return torch.promote_types(dtype, torch.float32)


def output_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type of the upsampler's last layer and of the image.

    Float32 for bfloat16, whose precision is below the eight bits of a picture.
    """
    return torch.float32 if dtype == torch.bfloat16 else dtype


@dataclass(frozen=True)
class Norm:
    """LayerNorm over the last dimension, from the residual's precision into ``dtype``."""

    weight: Tensor
    bias: Tensor
    eps: float
    dtype: torch.dtype

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps).to(self.dtype)

    def less(self, offset: Tensor | None) -> Norm:
        """The same norm with ``offset`` (C,) subtracted, in the residual's precision."""
        bias = self.bias if offset is None else self.bias - offset
        return Norm(self.weight, bias, self.eps, self.weight.dtype)


@dataclass(frozen=True)
class BlockWeights:
    """The weights of one block; the comments give shapes."""

    heads: int
    dim: int
    dtype: torch.dtype
    map_dtype: torch.dtype  # in fused runs, of the map that it writes
    norm1: Norm
    norm2: Norm
    depthwise: Tensor  # (C, 1, 3, 3)
    expand: Product  # (hidden, C)
    mix: Tensor  # (hidden, 1, 3, 3)
    contract: AddedProduct  # (C, hidden)

    def rounded(self, matrix: Tensor) -> Tensor:
        """A matrix made of those that subclasses add, in the precision of the block's products."""
        return matrix.to(self.dtype)


@dataclass(frozen=True)
class SpatialWeights(BlockWeights):
    """A block with window attention; its channel gate needs the image's mean."""

    window: int
    scale: float  # of the logits
    qkv: Product  # (3P, C); P: C with every head padded
    position_bias: Tensor  # (1, heads, window**2, window**2), in the run's dtype
    projection: Tensor  # (C, P), as all below in the precision of folding.py
    projection_bias: Tensor  # (C,)
    gate_down: Tensor  # (C // reduction, C)
    gate_up: Tensor  # (C, C // reduction)

    def bias_of_windows(self, windows: int) -> Tensor:
        """The position bias in the shape that `attend` takes, for at most ``windows`` windows.

        If attention is computed by products, (windows * heads, window**2, window**2), else (1,
        heads, window**2, window**2).
        """
        bias = self.position_bias
        return (
            bias.expand(windows, -1, -1, -1).flatten(0, 1)
            if prefers_products(bias.shape[-1], bias.dtype, bias.device)
            else bias
        )


@dataclass(frozen=True)
class ChannelWeights(BlockWeights):
    """A block with channel attention, whose matrices are folded once its Gram matrix is known."""

    query: Tensor  # (C, C), as all below in the precision of folding.py
    key: Tensor  # (C, C)
    value: Tensor  # (C, C)
    temperature: Tensor  # (heads, 1, 1)
    outputs: Tensor  # (C + 1, C): the projection, and below it AIM's gate, which is made of that
    outputs_bias: Tensor  # (C + 1,), in the block's dtype


@dataclass(frozen=True)
class Convolution:
    """A dense 3x3 convolution of rows, computed directly or by Winograd's algorithm."""

    weight: Tensor  # (O, C, 3, 3), channels last
    bias: Tensor | None  # (O,)
    transformed: Tensor | None  # see kernels/winograd.py; None: computed directly
    map_dtype: torch.dtype | None  # in fused runs, of the map that it writes

    @classmethod
    def of(
        cls, weight: Tensor, bias: Tensor | None, map_dtype: torch.dtype | None = None
    ) -> Convolution:
        """From weight (O, C, 3, 3) and bias (O,), transformed where Winograd is faster.

        ``map_dtype``: for the operator of arch/fdat/gpu, which takes the weight as it is.
        """
        suits = map_dtype is None and winograd.suits(weight.shape, weight.dtype, weight.device)
        transformed = winograd.transform_weight(weight) if suits else None
        weight = weight.contiguous(memory_format=torch.channels_last)
        return cls(weight, bias, transformed, map_dtype)

    def __call__(self, rows: Tensor, top: bool, bottom: bool) -> Tensor:
        """As `convolve_band`: (h + 2, W, C) -> (h, W, O), without halo rows beyond the image."""
        if self.transformed is None:
            return convolve_band(rows, top, bottom, self.weight, self.bias)
        padding = 1, 1, int(top), int(bottom)
        return as_rows(
            winograd.convolve(as_image(rows), self.transformed, padding, self._with_bias)
        )

    def _with_bias(self, outputs: Tensor) -> Tensor:
        return outputs if self.bias is None else outputs.add_(self.bias)


@dataclass(frozen=True)
class Weights:
    """All weights of an FDAT, in one precision on one device.

    Attributes:
        first: the convolution of the (unshuffled) image, in the residual's precision: that costs
            little, and rounding the image would change everything that follows.
        groups: the blocks and the closing convolution of each group.
        after: the convolution after the groups; in fused runs in bfloat16 the convolutions of maps
            have weights in float32, because their values need not fit float16.
        upsampler: a copy of the upsampler's layers, from which the tail is built; the last one in
            `output_dtype`.
    """

    dtype: torch.dtype
    device: torch.device
    first: Convolution
    groups: list[tuple[list[SpatialWeights | ChannelWeights], Convolution]]
    after: Convolution
    upsampler: list[nn.Module]


def pad_heads(weight: Tensor, heads: int) -> Tensor:
    """Pad every head with zeros to a multiple of `HEAD_MULTIPLE`.

    (..., heads * c, C) -> (..., P, C)
    """
    split = weight.unflatten(-2, (heads, -1))
    return F.pad(split, (0, 0, 0, -split.shape[-2] % HEAD_MULTIPLE)).flatten(-3, -2)


def _pack_block(
    block: nn.Module,
    dtype: torch.dtype,
    map_dtype: torch.dtype,
    device: torch.device,
    fused: bool,
) -> SpatialWeights | ChannelWeights:
    assert isinstance(block, DualPathBlock)
    residual = residual_dtype(dtype)
    folding = residual if fused else torch.float64

    def exact(weight: Tensor) -> Tensor:
        return weight.to(device, folding)

    def norm(module: nn.LayerNorm) -> Norm:
        return Norm(
            module.weight.to(device, residual), module.bias.to(device, residual), module.eps, dtype
        )

    attention = block.attn
    dim = attention.proj.in_features
    shared = {
        "heads": attention.num_heads,
        "dim": dim,
        "dtype": dtype,
        "map_dtype": map_dtype,
        "norm1": norm(block.n1),
        "norm2": norm(block.n2),
        "depthwise": block.conv[0].get_parameter("weight").to(device, dtype),
        "expand": Product.of(block.ffn.fc1.weight.to(device, dtype)),
        "mix": block.ffn.smix.weight.to(device, dtype),
        "contract": AddedProduct.of(block.ffn.fc2.weight.to(device, dtype)),
    }
    projection, bias = exact(attention.proj.weight), exact(attention.proj.bias)
    if isinstance(attention, WindowAttention):
        qkv = pad_heads(
            attention.qkv.weight.to(device, dtype).unflatten(0, (3, -1)), attention.num_heads
        )
        return SpatialWeights(
            **shared,
            window=attention.window_size,
            scale=(dim // attention.num_heads) ** -0.5,
            qkv=Product.of(qkv.flatten(0, 1)),
            position_bias=attention.bias.detach().to(device, dtype)[None],
            projection=pad_heads(projection.T, attention.num_heads).T.contiguous(),
            projection_bias=bias,
            gate_down=exact(block.inter.cg[1].get_parameter("weight")).flatten(1),
            gate_up=exact(block.inter.cg[3].get_parameter("weight")).flatten(1),
        )
    query, key, value = exact(attention.qkv.weight).view(3, dim, dim)
    gate = exact(block.inter.sg[0].get_parameter("weight")).flatten(1)  # (1, C)
    return ChannelWeights(
        **shared,
        query=query,
        key=key,
        value=value,
        temperature=exact(attention.temp),
        outputs=torch.cat([projection, gate @ projection]),
        outputs_bias=torch.cat([bias, gate @ bias]).to(dtype),
    )


def _pack(model: FDAT, dtype: torch.dtype, device: torch.device, fused: bool) -> Weights:
    half, dense = torch.float16, output_dtype(dtype) if fused else dtype
    # of the blocks of each group, and of the maps that they read and write
    blocks = [[dtype] * len(group.blocks) for group in model.groups]  # type: ignore[arg-type]
    maps = [dtype] * len(blocks)
    if fused and dtype == torch.bfloat16:
        fits = fitting(model)
        blocks = [[half if fit else dtype for fit in group.blocks] for group in fits]
        maps = [half if group.maps else dtype for group in fits]
    maps.append(dtype)

    def convolution(
        module: nn.Module, dtype: torch.dtype, map_dtype: torch.dtype | None = None
    ) -> Convolution:
        assert isinstance(module, nn.Conv2d)
        bias = None if module.bias is None else module.bias.to(device, dtype)
        written = (map_dtype or dtype) if fused else None
        return Convolution.of(module.weight.to(device, dtype), bias, written)

    def group(number: int) -> tuple[list[SpatialWeights | ChannelWeights], Convolution]:
        module, map_dtype = model.groups[number], maps[number]
        assert isinstance(module, ResidualGroup)
        packed = [
            _pack_block(block, kind, map_dtype, device, fused)
            for block, kind in zip(module.blocks, blocks[number])
        ]
        return packed, convolution(module.conv, dense, maps[number + 1])

    first = model.conv_first[1] if isinstance(model.conv_first, nn.Sequential) else model.conv_first
    return Weights(
        dtype=dtype,
        device=device,
        first=convolution(first, residual_dtype(dtype), maps[0]),
        groups=[group(number) for number in range(len(blocks))],
        after=convolution(model.conv_after, dense),
        upsampler=_upsampler(model, dtype, device),
    )


def _upsampler(model: FDAT, dtype: torch.dtype, device: torch.device) -> list[nn.Module]:
    layers = [
        copy.deepcopy(layer).to(device, dtype).requires_grad_(False) for layer in model.upsampler
    ]
    last = max(index for index, layer in enumerate(layers) if list(layer.parameters()))
    layers[last] = (
        copy.deepcopy(model.upsampler[last]).to(device, output_dtype(dtype)).requires_grad_(False)
    )
    return layers


Target = tuple[torch.dtype, torch.device, bool]
_packed: WeakKeyDictionary[FDAT, dict[Target, tuple[object, Weights]]] = WeakKeyDictionary()


def packed_weights(
    model: FDAT, dtype: torch.dtype, device: torch.device, fused: bool = False
) -> Weights:
    """The model's weights for a run; packed again only if they were moved, replaced or changed.

    ``fused``: for the sweeps of arch/fdat/gpu.
    """
    state = fingerprint([*model.parameters(), *model.buffers()])
    by_target = _packed.setdefault(model, {})
    target = dtype, device, fused
    known = by_target.get(target)
    if known is None or known[0] != state:
        by_target.clear()  # only one set of packed weights is kept, to save memory
        by_target[target] = known = (state, _pack(model, *target))
    return known[1]


def forget_packed(model: FDAT) -> None:
    """Drop the packed weights of a model, so that its next run packs them again.

    For changes of the weights that their fingerprint does not show.
    """
    _packed.pop(model, None)


def release_packed(model: FDAT) -> None:
    """Drop the packed weights of a model, unless they are on the CPU."""
    kept = {
        target: packed
        for target, packed in _packed.get(model, {}).items()
        if target[1].type == "cpu"
    }
    if model in _packed:
        _packed[model] = kept
