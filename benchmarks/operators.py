"""The operators of FDAT's engine on a CPU, against what they replace; for docs/fdat-engine.md.

    python -m benchmarks.operators [--repeats 15] [--threads 2]

- products with a packed weight, against 1x1 convolutions, which pack it at every call;
- window attention by two batched products and a softmax, against ``scaled_dot_product_attention``;
- attention with heads padded to 32, against heads of 30;
- Winograd's convolution, against the direct one: time, rounding, and the rounding with other
  points.

A ratio is the median of the ratios of wall-clock times of alternating runs: use an idle machine.
With one thread PyTorch computes convolutions in another way, and times are CPU times.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from fdat_dense_iso.cpu_torchvision import make_torchvision_importable

make_torchvision_importable()

from benchmarks.measure import interleaved, machine, median_ratio  # noqa: E402
from fdat_dense_iso.arch.fdat.engine.sweeps import window_attention  # noqa: E402
from fdat_dense_iso.arch.fdat.engine.weights import HEAD_MULTIPLE  # noqa: E402
from fdat_dense_iso.arch.kernels import winograd  # noqa: E402
from fdat_dense_iso.arch.kernels.products import AddedProduct, Product, linear  # noqa: E402
from fdat_dense_iso.arch.kernels.winograd import ALGORITHMS, Algorithm  # noqa: E402

Ratio = Callable[[Callable[[], object], Callable[[], object]], float]
"""(slower, quicker) -> ratio of their times."""

OTHERS = {
    "F(4x4, 3x3), points 0, +-3/4, +-3/2": ALGORITHMS[torch.float32],
    "F(4x4, 3x3), points 0, +-1, +-2": Algorithm(4, (0.0, 1.0, -1.0, 2.0, -2.0)),
    "F(2x2, 3x3), points 0, +-1": ALGORITHMS[torch.bfloat16],
}


def products(ratio: Ratio) -> None:
    """Products of tokens with a weight (360, 180), as in the preset large."""
    packed = Product.of(torch.randn(360, 180))
    for tokens in (8192, 2048, 512):
        x = torch.randn(1, tokens, 180)
        gain = ratio(lambda x=x: linear(x, packed.weight), lambda x=x: packed(x))
        print(f"  {tokens:5d} tokens: 1x1 convolution / packed {gain:.2f}")


class Attention:
    """Stands for the block and the map of `window_attention`, with given queries, keys, values.

    So attention is measured without the products before and after it.
    """

    def __init__(self, windows: int, heads: int, width: int) -> None:
        self.heads, self.scale = heads, 0.2
        self.rows = torch.randn(windows, 64, 3 * heads * width)

    def qkv(self, windows: Tensor) -> Tensor:
        """The given (windows, 64, 3 * heads * width); the windows are ignored."""
        return self.rows

    def projection(self, attended: Tensor) -> Tensor:
        """Returns its argument."""
        return attended

    def run(self, bias: Tensor) -> Tensor:
        """(windows, 64, heads * width); the shape of ``bias`` decides how it is computed."""
        either: Any = self
        return window_attention(either, either, bias, self.rows)


def sums(ratio: Ratio, height: int = 64, width: int = 256) -> None:
    """Products that are added to rows, in the shapes of tiny and medium."""
    for channels, outputs in ((96, 96), (144, 96), (240, 120)):
        weight, bias = torch.randn(outputs, channels), torch.randn(outputs)
        x, rows = torch.randn(height, width, channels), torch.zeros(height, width, outputs)
        product, added = Product.of(weight, bias), AddedProduct.of(weight, bias)
        gain = ratio(
            lambda r=rows, x=x, p=product: r.add_(p(x)), lambda r=rows, x=x, a=added: a(r, x)
        )
        print(f"  {channels} to {outputs}: product and sum / product into the sum {gain:.2f}")


def attention(ratio: Ratio, windows: int = 16, heads: int = 6) -> None:
    """The engine's attention in some windows of 8x8, between its two products."""
    by_torch = torch.randn(1, heads, 64, 64)
    by_products = by_torch.expand(windows, -1, -1, -1).flatten(0, 1)
    padded = 30 + -30 % HEAD_MULTIPLE
    narrow, wide = (Attention(windows, heads, width) for width in (30, padded))
    gain = ratio(lambda: wide.run(by_torch), lambda: wide.run(by_products))
    print(f"  heads of {padded}: scaled_dot_product_attention / batched products {gain:.2f}")
    for name, bias in (
        ("batched products", by_products),
        ("scaled_dot_product_attention", by_torch),
    ):
        gain = ratio(lambda bias=bias: narrow.run(bias), lambda bias=bias: wide.run(bias))
        print(f"  {name}: heads of 30 / padded to {padded} {gain:.2f}")


def convolutions(ratio: Ratio, side: int = 128) -> None:
    """3x3 convolutions of a picture of ``side`` x ``side`` tokens."""
    for dtype, channels in (
        (torch.float32, 96),
        (torch.float32, 180),
        (torch.bfloat16, 96),
        (torch.bfloat16, 180),
    ):
        image = (
            torch.randn(1, channels, side, side)
            .to(dtype)
            .contiguous(memory_format=torch.channels_last)
        )
        weight = (
            torch.randn(channels, channels, 3, 3)
            .to(dtype)
            .contiguous(memory_format=torch.channels_last)
            / 30
        )
        transformed = winograd.transform_weight(weight)
        gain = ratio(
            lambda i=image, w=weight: F.conv2d(i, w, padding=1),
            lambda i=image, t=transformed: winograd.convolve(i, t, (1, 1, 1, 1)),
        )
        print(f"  {dtype}, {channels} channels: direct / Winograd {gain:.2f}")


def rounding(dtype: torch.dtype, channels: int = 96) -> float:
    """RMS error of Winograd's convolution, as a multiple of that of the direct one.

    Both are in ``dtype``; errors are against float64.
    """
    image = torch.randn(1, channels, 64, 64).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = (torch.randn(channels, channels, 3, 3) / channels**0.5 / 3).to(dtype)
    wanted = F.conv2d(image.double(), weight.double(), padding=1)
    got = winograd.convolve(image, winograd.transform_weight(weight), (1, 1, 1, 1))
    return float(
        (
            (got - wanted).square().mean()
            / (F.conv2d(image, weight, padding=1) - wanted).square().mean()
        ).sqrt()
    )


def amplification(algorithm: Algorithm) -> float:
    """RMS error over the direct convolution's, if all products had the same relative error.

    In one dimension an output is a sum of products weighted by A^T; B^T and G decide how large they
    are. The variance in one dimension is the RMS in two dimensions. Data and kernels are white
    noise.
    """
    result, kernel, data = algorithm.matrices()
    # (places,): mean square of a product, in one dimension
    size = data.square().sum(1) * kernel.square().sum(1)
    return float((result.square() @ size).mean() / 3)


def main(
    repeats: Annotated[int, typer.Option(help="Counted runs of each contestant.")] = 15,
    threads: Annotated[int, typer.Option(help="CPU threads; with one, CPU time is measured.")] = 2,
) -> None:
    """Print the ratios."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    clock = time.process_time if threads == 1 else time.perf_counter

    def ratio(
        slower: Callable[[], object], quicker: Callable[[], object], calls: int = 10
    ) -> float:
        def often(work: Callable[[], object]) -> Callable[[], object]:
            return lambda: [work() for _ in range(calls)]

        seconds = interleaved({"slower": often(slower), "quicker": often(quicker)}, repeats, clock)
        return median_ratio(seconds["slower"], seconds["quicker"])

    with torch.inference_mode():
        print(machine())
        print("Products, float32")
        products(ratio)
        print("Sums of products, float32")
        sums(ratio)
        print("Attention, float32")
        attention(ratio)
        print("Convolutions")
        convolutions(ratio)
        print("Rounding of Winograd's convolution over the direct one's, RMS")
        for dtype in (torch.float32, torch.bfloat16):
            print(
                f"  {dtype}, F({ALGORITHMS[dtype].tile}x{ALGORITHMS[dtype].tile}, 3x3): {rounding(dtype):.1f}"
            )
        print("Growth of errors in the transforms, RMS")
        for name, algorithm in OTHERS.items():
            print(f"  {name}: {amplification(algorithm):.1f}")


if __name__ == "__main__":
    typer.run(main)
