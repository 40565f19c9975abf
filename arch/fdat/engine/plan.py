"""How an exact run of an FDAT is cut into bands, and how much memory that takes.

    plan (this file) -> sweeps over the blocks (sweeps.py) -> tail (tail.py, sampling.py)

Memory on the device, beyond the weights:
    maps: trunk and one branch per image of the batch, H x W x C; ``dysample`` and ``lda`` need one
        more map per image, H x W x mid_dim. All may live in host memory or in files instead, except
        that of ``dysample``.
    image: one image of the batch, in the residual's precision; where maps live in files, it is read
        in bands.
    workspace: what a band needs at the worst moment of a block or of the tail, proportional to band
        height and width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ...kernels import winograd
from ...kernels.attention import prefers_products
from ...kernels.onednn import has_internal_operators
from ..config import FDATConfig
from ..gpu.memory import band_bytes
from ..upsampler import LDA_GROUPS, LDA_REDUCTION
from .bands import attention_tile, band_of, smallest_band
from .tail import widths_of_tail
from .weights import HEAD_MULTIPLE, output_dtype, residual_dtype

PREFERRED_TOKENS = {"cpu": 2**15, "cuda": 2**18}
"""Tokens in a band: enough to keep the device busy, and to make the halo and the fixed cost of
starting an operator small in comparison."""

FEW_TOKENS, MANY_TOKENS = 2**16, 2**20
"""Tokens in a band on other devices than the CPU: with fewer the device waits for launches, so maps
are rather streamed; more gain nothing, and progress is told after every band."""

FREE_SHARE = 0.25
"""Bands may take this share of the free memory where that makes them larger than usual."""

PREFERRED_VALUES = 11 * 2**18
"""Values in the largest tensor of a band on a CPU, 11 MiB in float32: the heap keeps blocks of this
size when they are freed (see kernels/heap.py). What it does not keep goes back to the system, which
clears the pages at every allocation; that takes as long as all the rest."""

HEAP_SHARE = 0.5
"""Memory that a process's heap holds beside the live tensors of a band, as a share of them: freed
pieces that no later tensor fits into. Measured on Linux by ``python -m benchmarks.fdat memory``:
0.2 to 0.9."""


def bytes_of(dtype: torch.dtype) -> int:
    """Bytes per value."""
    return torch.empty((), dtype=dtype).element_size()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One way to run ``batch`` images of ``height`` x ``width`` pixels.

    Attributes:
        config: the network.
        batch, height, width: the images.
        dtype: of the arithmetic; residual and statistics are at least float32.
        device: where it runs.
        map_dtype: of the feature maps.
        map_device: where the feature maps live: ``device``, or the CPU to stream them from there.
        band: rows of the feature map in a band, a multiple of the window (and of `smallest_band`).
        folder: where the feature maps live in files; None: in memory.
    """

    config: FDATConfig
    batch: int
    height: int
    width: int
    dtype: torch.dtype
    device: torch.device
    map_dtype: torch.dtype
    map_device: torch.device
    band: int
    folder: Path | None = None

    @property
    def rows(self) -> int:
        """Height of the feature maps."""
        return -(-self.height // self.config.unshuffle)

    @property
    def columns(self) -> int:
        """Width of the feature maps."""
        return -(-self.width // self.config.unshuffle)

    @property
    def host_maps(self) -> bool:
        """Whether the maps live in host memory, or in files, and are streamed."""
        return self.folder is not None or self.map_device.type != self.device.type

    @property
    def fused(self) -> bool:
        """Whether the blocks run by the operators of arch/fdat/gpu."""
        return self.device.type != "cpu"

    @property
    def sampler(self) -> str | None:
        """The upsampler's type if it samples the features at learnt positions, else None."""
        kind = self.config.upsampler_type
        return kind if kind in ("dysample", "lda") and self.config.upsampler_scale > 1 else None

    @property
    def tail_band(self) -> int:
        """Rows of the feature map that the tail takes at a time.

        As many as fit in what the sweeps leave, at least one. On a CPU as many with maps in files as
        without, so that the result is the same to the last bit.
        """
        if self.folder is not None and not self.fused:
            exact = residual_dtype(self.dtype)
            return replace(self, folder=None, map_dtype=exact).tail_band
        left = self.sweep_workspace + self.freed_bytes
        return max(1, min(self.band, left // self.tail_row_bytes))

    @property
    def bands(self) -> int:
        """Number of bands of every sweep."""
        return -(-self.rows // self.band)

    @property
    def steps(self) -> int:
        """Calls of ``progress``: one per band of every sweep, and one per band of the tail."""
        blocks = self.config.num_groups * len(self.config.blocks_per_group)
        sweeps = 1 + blocks + self.config.num_groups + 1
        return self.batch * sweeps * self.bands + -(-self.rows // self.tail_band)

    @property
    def result_rows(self) -> int:
        """Rows of the image whose result ``write`` gets at a time, at most."""
        return min(self.tail_band, self.rows) * self.config.unshuffle

    @property
    def map_bytes(self) -> int:
        """Bytes of the maps that may live in host memory or in files."""
        tokens = self.rows * self.columns
        dims = (self.batch + 1) * self.config.embed_dim
        if self.sampler == "lda":
            dims += self.batch * self.config.mid_dim
        return tokens * dims * bytes_of(self.map_dtype)

    @property
    def sampled_bytes(self) -> int:
        """Bytes of the maps that ``dysample`` samples, which must be on the device."""
        exact = bytes_of(residual_dtype(self.dtype))
        return (
            self.batch * self.rows * self.columns * self.config.mid_dim * exact
            if self.sampler == "dysample"
            else 0
        )

    @property
    def resident_bytes(self) -> int:
        """Bytes of what stays on the device for the whole run."""
        maps = 0 if self.host_maps else self.map_bytes
        if self.folder is not None:
            return self.sampled_bytes
        channels, exact = (
            self.config.num_in_ch * self.config.unshuffle**2,
            residual_dtype(self.dtype),
        )
        return maps + self.rows * self.columns * channels * bytes_of(exact) + self.sampled_bytes

    @property
    def freed_bytes(self) -> int:
        """Bytes of the device that the tail gets of the maps before it: of the trunk, and of the
        branches where the upsampler samples a map of its own. A CPU is quicker in small bands."""
        if self.host_maps or not self.fused:
            return 0
        values = self.rows * self.columns * self.config.embed_dim
        return (1 + (self.batch if self.sampler else 0)) * values * bytes_of(self.map_dtype)

    @property
    def workspace(self) -> int:
        """Bytes of the tensors that a band needs at its worst moment, in a sweep or in the tail,
        beyond the `resident_bytes`."""
        tail = self.tail_row_bytes * (self.tail_band + 1) - self.freed_bytes
        return max(self.sweep_workspace, tail)

    @property
    def memory_required(self) -> int:
        """Bytes on the device, beyond the weights and what ``write`` keeps."""
        heap = HEAP_SHARE if self.device.type == "cpu" else 0
        return self.resident_bytes + round(self.workspace * (1 + heap))

    @property
    def host_memory_required(self) -> int:
        """Bytes in host memory; pinned blocks (for CUDA) are rounded up to powers of two."""
        if not self.host_maps or self.folder is not None:
            return 0
        if self.device.type != "cuda":
            return self.map_bytes
        tokens = self.rows * self.columns * bytes_of(self.map_dtype)
        sampled = self.batch if self.sampler == "lda" else 0
        maps = [self.config.embed_dim] * (self.batch + 1) + [self.config.mid_dim] * sampled
        return sum(1 << (tokens * dim - 1).bit_length() for dim in maps)

    @property
    def disk_required(self) -> int:
        """Bytes of the files in ``folder``."""
        if self.folder is None:
            return 0
        tokens = self.rows * self.columns if self.spare else 0
        return self.map_bytes + tokens * self.config.embed_dim * bytes_of(self.map_dtype)

    @property
    def spare(self) -> bool:
        """Whether there is a third map, so that every pass can be run again from what it read."""
        return self.folder is not None and not self.fused and self.batch == 1

    @property
    def sweep_workspace(self) -> int:
        """Bytes that a band of a block's sweep needs at its worst moment."""
        config = self.config
        if self.fused:
            rows = min(self.band, self.rows)
            return band_bytes(
                config, rows, self.columns, self.dtype, self.map_dtype, self.host_maps
            )
        width = -(-self.columns // config.window_size) * config.window_size
        tokens = (min(self.band, self.rows) + 2) * width
        run, residual = bytes_of(self.dtype), bytes_of(residual_dtype(self.dtype))
        dim, hidden = config.embed_dim * tokens, config.ffn_dim * tokens
        converted = run != residual
        loaded = dim * residual if self.host_maps or bytes_of(self.map_dtype) != residual else 0
        if self.host_maps:
            loaded += 2 * dim * bytes_of(self.map_dtype)  # the band in use and the one being copied
        outside = dim * residual if loaded else 0  # y, where it can't be computed in the map
        # the largest of: n while it is converted to the run's precision; n and gelu(depthwise(n));
        # n and the windows for which attention is computed at a time
        normed = dim * (run + residual) if converted else dim * run
        down, across = attention_tile(
            min(self.band, self.rows), width, config.window_size, self.dtype, self.device
        )
        attention = max(
            normed, 2 * dim * run, dim * run + down * across * self._attention_values * run
        )
        # the largest of: n while it is converted; the hidden rows before and after the depthwise
        # convolution; n and the hidden rows before and after GELU, where that is a separate
        # operator
        fused = has_internal_operators(self.dtype, self.device)
        feed_forward = max(
            normed, 2 * hidden * run, (dim + 2 * hidden) * run if converted and not fused else 0
        )
        # the statistic for the next block: its n, and gelu(depthwise(n))
        statistic = max(normed, 2 * dim * run)
        # the output of a convolution, beside the output of the first one or the tiles between
        # Winograd's transforms
        convolution = dim * residual + dim * (residual + (run if converted else 0))
        if winograd.suits((config.embed_dim, config.embed_dim, 3, 3), self.dtype, self.device):
            tiles = winograd.working_values(config.embed_dim, config.embed_dim, self.dtype) * run
            convolution = max(convolution, dim * residual + tiles)
        # kept for the next band: one row of y, and two input rows of every depthwise convolution
        carried = self.columns * (3 * config.embed_dim + 2 * config.ffn_dim) * residual
        return carried + loaded + outside + max(attention, feed_forward, statistic, convolution)

    @property
    def _attention_values(self) -> int:
        """Values that window attention keeps for each of the tokens it works on at a time."""
        config = self.config
        dim, heads = config.embed_dim, config.num_heads
        padded = heads * (-(-dim // heads // HEAD_MULTIPLE) * HEAD_MULTIPLE)
        windows, qkv, logits = dim, 3 * padded, heads * config.window_size**2
        if not prefers_products(config.window_size**2, self.dtype, self.device):
            return windows + qkv + padded
        # the ``logits`` outside the maximum are the position bias, repeated for every window
        return windows + logits + max(2 * qkv, qkv + 2 * logits + padded)

    @property
    def tail_row_bytes(self) -> int:
        """Bytes that the tail needs for each row of the feature map."""
        config, run = self.config, bytes_of(self.dtype)
        residual = bytes_of(residual_dtype(self.dtype))
        out = config.num_out_ch * config.upsampler_scale**2 * bytes_of(output_dtype(self.dtype))
        *widths, final = widths_of_tail(config)
        converted = output_dtype(self.dtype) != self.dtype  # then both copies exist for a moment
        final *= bytes_of(output_dtype(self.dtype)) + (run if converted else 0)
        worst = max(final, *(values * run for values in widths), 0)
        if self.sampler == "dysample":
            groups_grid = 4 * 2 * config.upsampler_scale**2
            worst = (
                3 * groups_grid * residual
                + 2 * config.mid_dim * config.upsampler_scale**2 * residual
            )
        elif self.sampler == "lda":
            taps = 9
            query = config.mid_dim // LDA_REDUCTION
            worst = (3 * config.mid_dim + 3 * query + 2 * LDA_GROUPS * (2 * taps + 4)) * residual
            worst *= config.upsampler_scale**2
        return self.columns * (worst + config.embed_dim * residual + (self.batch + 1) * out)

    def smaller(self) -> Plan | None:
        """The plan to try after running out of memory; None if there is none.

        It has half the band. On other devices than the CPU, where small bands are slow, maps move
        to host memory before bands have less than `FEW_TOKENS`; then there is room for larger bands
        again, and those are halved to the smallest.
        """
        streams = not self.host_maps and self.device.type != "cpu"
        least = smallest_band(self.config.window_size)
        floor = band_of(FEW_TOKENS, self.columns, least) if streams else least
        band = min(self.band, self.rows)
        if band > floor:
            return replace(self, band=max(floor, band // 2 // least * least))
        if not streams:
            return None
        streamed = replace(self, map_device=torch.device("cpu"))
        while streamed.band < self.rows and streamed.band * self.columns < MANY_TOKENS:
            larger = replace(streamed, band=2 * streamed.band)
            if larger.memory_required >= self.memory_required:
                break
            streamed = larger
        return streamed


def make_plan(
    config: FDATConfig,
    batch: int,
    height: int,
    width: int,
    *,
    dtype: torch.dtype,
    device: torch.device,
    available: int | None = None,
    band: int | None = None,
    map_dtype: torch.dtype | None = None,
    map_device: torch.device | None = None,
    folder: Path | None = None,
    disk: int | None = None,
) -> Plan:
    """The fastest plan within ``available`` bytes of the device, else the smallest plan.

    Args:
        config: the network.
        batch, height, width: the images, in pixels.
        dtype: of the arithmetic.
        device: where it runs.
        available: bytes; None for no limit.
        band: rows of the feature map in a band, rounded up to whole windows; None: by the device.
        map_dtype: of the feature maps; None: the residual's precision (float32, or float64 in
            float64).
        map_device: where the feature maps live; None: on the device, or on the CPU if the device
            can't hold them.
        folder: where maps live in files, for images that are larger than memory.
        disk: bytes that these may take; where they would take more, they are in half precision,
            unless ``map_dtype`` is given. None for no limit.

    Raises:
        ValueError: an image without pixels, or a band without rows.
    """
    if min(batch, height, width) < 1:
        raise ValueError(
            f"FDAT: a batch of {batch} images of {height} x {width} pixels has no pixels; pass at least one"
        )
    if band is not None and band < 1:
        raise ValueError(f"FDAT: band is {band}; it must be at least 1 row, or None")
    least = smallest_band(config.window_size)
    columns = -(-width // config.unshuffle)
    chosen = band
    if band is None:
        tokens = PREFERRED_TOKENS.get(device.type, PREFERRED_TOKENS["cuda"])
        if device.type == "cpu":
            tokens = min(tokens, PREFERRED_VALUES // max(config.ffn_dim, config.embed_dim))
        band = band_of(tokens, columns, least)
    plan = Plan(
        config=config,
        batch=batch,
        height=height,
        width=width,
        dtype=dtype,
        device=device,
        map_dtype=map_dtype or (dtype if device.type != "cpu" else residual_dtype(dtype)),
        map_device=map_device or device,
        band=max(1, math.ceil(band / least)) * least,
        folder=folder,
    )
    if map_dtype is None and disk is not None and plan.disk_required > disk:
        plan = replace(plan, map_dtype=torch.float16)
    if chosen is None and available is not None and plan.fused:
        while plan.band < plan.rows and plan.band * columns < MANY_TOKENS:
            larger = replace(plan, band=2 * plan.band)
            if larger.memory_required > available or larger.workspace > FREE_SHARE * available:
                break
            plan = larger
    while (
        available is not None
        and plan.memory_required > available
        and (smaller := plan.smaller()) is not None
    ):
        plan = smaller
    return plan
